"""The distillation methods, one paper a file, and the one registry that names them."""

from __future__ import annotations

from ..method import Method
from .ckd_mdsr import CKDMDSR
from .de import DE
from .ftd import FTD
from .full_ce import FullCE
from .htd import HTD
from .ir_rrd import IRRRD
from .phr import PHR
from .rcekd import RCEKD
from .rrd import RRD

METHODS: dict[str, type[Method]] = {
    "ckd_mdsr": CKDMDSR,
    "de": DE,
    "ftd": FTD,
    "full_ce": FullCE,
    "htd": HTD,
    "ir_rrd": IRRRD,
    "phr": PHR,
    "rcekd": RCEKD,
    "rrd": RRD,
}

__all__ = ["CKDMDSR", "DE", "FTD", "HTD", "IRRRD", "METHODS", "PHR", "RCEKD", "RRD", "FullCE"]
