"""The distillation methods, one paper a file, and the one registry that names them."""

from __future__ import annotations

from ..method import Method
from .cd import CD
from .ckd_mdsr import CKDMDSR
from .concf import ConCF
from .dcd import DCD
from .de import DE
from .ftd import FTD
from .full_ce import FullCE
from .hetcomp import HetComp
from .htd import HTD
from .ir_rrd import IRRRD
from .lwc_kd import LWCKD
from .phr import PHR
from .rcekd import RCEKD
from .rd import RD
from .replay import Replay
from .rrd import RRD
from .unkd import UnKD

METHODS: dict[str, type[Method]] = {
    "cd": CD,
    "ckd_mdsr": CKDMDSR,
    "concf": ConCF,
    "dcd": DCD,
    "de": DE,
    "ftd": FTD,
    "full_ce": FullCE,
    "hetcomp": HetComp,
    "htd": HTD,
    "ir_rrd": IRRRD,
    "lwc_kd": LWCKD,
    "phr": PHR,
    "rcekd": RCEKD,
    "rd": RD,
    "replay": Replay,
    "rrd": RRD,
    "unkd": UnKD,
}

__all__ = [
    "CD",
    "CKDMDSR",
    "DCD",
    "DE",
    "FTD",
    "HTD",
    "IRRRD",
    "LWCKD",
    "METHODS",
    "PHR",
    "RCEKD",
    "RD",
    "RRD",
    "ConCF",
    "FullCE",
    "HetComp",
    "Replay",
    "UnKD",
]
