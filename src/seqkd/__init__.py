"""Distil small sequential recommenders from pre-trained teachers.

`import seqkd` makes `AutoModel.from_pretrained` know the models of seqkd. What only training needs is imported when it
is first asked for. What users call comes from here, whatever room its file is in: `from seqkd import export`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .catalogue import Catalogue
from .errors import CheckpointError, ConfigError, DataError, KnowledgeError, SeqKDError
from .models.cml import CMLConfig, CMLModel
from .models.concf import ConCFConfig, ConCFModel
from .models.deepfm import DeepFMConfig, DeepFMModel
from .models.fm import FMConfig, FMModel
from .models.itemae import ItemAEConfig, ItemAEModel
from .models.lightgcn import LightGCNConfig, LightGCNModel
from .models.mf import MFConfig, MFModel
from .models.multvae import MultVAEConfig, MultVAEModel
from .models.neumf import NeuMFConfig, NeuMFModel
from .models.recformer import (
    CausalRecformerConfig,
    CausalRecformerForPretraining,
    CausalRecformerModel,
    RecformerConfig,
    RecformerForPretraining,
    RecformerModel,
)
from .models.sasrec import SASRecConfig, SASRecModel
from .models.unim2rec import UniM2RecConfig, UniM2RecForPretraining, UniM2RecModel
from .models.unisrec import UniSRecConfig, UniSRecForPretraining, UniSRecModel
from .recommenders.recommender import Recommendations, RecommenderModel, count_items

if TYPE_CHECKING:
    from .batches.collators import SequenceDataset
    from .batches.curriculum import Curriculum
    from .batches.edges import edges_of
    from .batches.target_sets import TargetSets
    from .cards.model_card import write_card
    from .continual.configuration import ContinualConfig
    from .continual.evolution import Evolution
    from .continual.fit import FitConfig
    from .continual.graph import renew_edges
    from .continual.growth import grow
    from .continual.proxies import follow
    from .data.cold_items import hide_items
    from .data.interactions import by_domain, load_interactions
    from .data.kcore import k_core
    from .data.market import synthetic_market
    from .data.split import Split, combine
    from .data.splits import leave_one_out, load_markets, preset, ratio_split, temporal
    from .data.stream import Block
    from .data.stream_ccd import read_ccd
    from .data.stream_cut import cut_stream, next_block
    from .data.text import encode_texts, item_text
    from .distiller import Distiller
    from .evaluation.head_selection import best_head
    from .evaluation.ranks import rank_targets
    from .evaluation.stream import block_metrics
    from .evaluation.stream_matrix import StreamMatrix, matrix_table, stream_table
    from .figures.stream import stream_figure
    from .files.hub import push
    from .knowledge import Knowledge
    from .knowledge.common_lists import common_lists, labels_of
    from .knowledge.ensemble import by_rank, ensemble, rank_consensus
    from .knowledge.export import export
    from .knowledge.trajectory import Trajectory, load_trajectories
    from .knowledge.warm_start import principal_items
    from .method import Method, SoftLabels
    from .methods.cd import CD, CDConfig
    from .methods.ckd_mdsr import CKDMDSR, CKDMDSRConfig
    from .methods.concf import ConCF, ConCFMethodConfig
    from .methods.dcd import DCD, DCDConfig
    from .methods.de import DE, DEConfig
    from .methods.ftd import FTD, FTDConfig
    from .methods.full_ce import FullCE, FullCEConfig
    from .methods.hetcomp import HetComp, HetCompConfig
    from .methods.htd import HTD, HTDConfig
    from .methods.ir_rrd import IRRRD, IRRRDConfig
    from .methods.lwc_kd import LWCKD, LWCKDConfig
    from .methods.phr import PHR, PHRConfig
    from .methods.rcekd import RCEKD, RCEKDConfig
    from .methods.rd import RD, RDConfig
    from .methods.replay import Replay, ReplayConfig
    from .methods.rrd import RRD, RRDConfig
    from .methods.unkd import UnKD, UnKDConfig
    from .models.sasrec.item_projection import fit_item_projection
    from .trainer import DistillationTrainer
    from .training_args import DistillationArguments

__version__ = "0.1.0"

_LATER = {
    "Block": "data.stream",
    "CD": "methods.cd",
    "CDConfig": "methods.cd",
    "CKDMDSR": "methods.ckd_mdsr",
    "CKDMDSRConfig": "methods.ckd_mdsr",
    "ConCF": "methods.concf",
    "ConCFMethodConfig": "methods.concf",
    "ContinualConfig": "continual.configuration",
    "Curriculum": "batches.curriculum",
    "DCD": "methods.dcd",
    "DCDConfig": "methods.dcd",
    "DE": "methods.de",
    "DEConfig": "methods.de",
    "DistillationArguments": "training_args",
    "DistillationTrainer": "trainer",
    "Distiller": "distiller",
    "Evolution": "continual.evolution",
    "FTD": "methods.ftd",
    "FTDConfig": "methods.ftd",
    "FitConfig": "continual.fit",
    "FullCE": "methods.full_ce",
    "FullCEConfig": "methods.full_ce",
    "HTD": "methods.htd",
    "HTDConfig": "methods.htd",
    "HetComp": "methods.hetcomp",
    "HetCompConfig": "methods.hetcomp",
    "IRRRD": "methods.ir_rrd",
    "IRRRDConfig": "methods.ir_rrd",
    "Knowledge": "knowledge",
    "LWCKD": "methods.lwc_kd",
    "LWCKDConfig": "methods.lwc_kd",
    "Method": "method",
    "PHR": "methods.phr",
    "PHRConfig": "methods.phr",
    "RCEKD": "methods.rcekd",
    "RCEKDConfig": "methods.rcekd",
    "RD": "methods.rd",
    "RDConfig": "methods.rd",
    "RRD": "methods.rrd",
    "RRDConfig": "methods.rrd",
    "Replay": "methods.replay",
    "ReplayConfig": "methods.replay",
    "SequenceDataset": "batches.collators",
    "SoftLabels": "method",
    "Split": "data.split",
    "StreamMatrix": "evaluation.stream_matrix",
    "TargetSets": "batches.target_sets",
    "Trajectory": "knowledge.trajectory",
    "UnKD": "methods.unkd",
    "UnKDConfig": "methods.unkd",
    "best_head": "evaluation.head_selection",
    "by_rank": "knowledge.ensemble",
    "block_metrics": "evaluation.stream",
    "by_domain": "data.interactions",
    "combine": "data.split",
    "common_lists": "knowledge.common_lists",
    "cut_stream": "data.stream_cut",
    "edges_of": "batches.edges",
    "encode_texts": "data.text",
    "ensemble": "knowledge.ensemble",
    "export": "knowledge.export",
    "fit_item_projection": "models.sasrec.item_projection",
    "follow": "continual.proxies",
    "grow": "continual.growth",
    "hide_items": "data.cold_items",
    "item_text": "data.text",
    "k_core": "data.kcore",
    "labels_of": "knowledge.common_lists",
    "leave_one_out": "data.splits",
    "load_interactions": "data.interactions",
    "load_markets": "data.splits",
    "load_trajectories": "knowledge.trajectory",
    "matrix_table": "evaluation.stream_matrix",
    "next_block": "data.stream_cut",
    "preset": "data.splits",
    "principal_items": "knowledge.warm_start",
    "push": "files.hub",
    "rank_consensus": "knowledge.ensemble",
    "rank_targets": "evaluation.ranks",
    "ratio_split": "data.splits",
    "read_ccd": "data.stream_ccd",
    "renew_edges": "continual.graph",
    "stream_figure": "figures.stream",
    "stream_table": "evaluation.stream_matrix",
    "synthetic_market": "data.market",
    "temporal": "data.splits",
    "write_card": "cards.model_card",
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
    "PHR",
    "RCEKD",
    "RD",
    "RRD",
    "Block",
    "CDConfig",
    "CKDMDSRConfig",
    "CMLConfig",
    "CMLModel",
    "Catalogue",
    "CausalRecformerConfig",
    "CausalRecformerForPretraining",
    "CausalRecformerModel",
    "CheckpointError",
    "ConCF",
    "ConCFConfig",
    "ConCFMethodConfig",
    "ConCFModel",
    "ConfigError",
    "ContinualConfig",
    "Curriculum",
    "DCDConfig",
    "DEConfig",
    "DataError",
    "DeepFMConfig",
    "DeepFMModel",
    "DistillationArguments",
    "DistillationTrainer",
    "Distiller",
    "Evolution",
    "FMConfig",
    "FMModel",
    "FTDConfig",
    "FitConfig",
    "FullCE",
    "FullCEConfig",
    "HTDConfig",
    "HetComp",
    "HetCompConfig",
    "IRRRDConfig",
    "ItemAEConfig",
    "ItemAEModel",
    "Knowledge",
    "KnowledgeError",
    "LWCKDConfig",
    "LightGCNConfig",
    "LightGCNModel",
    "MFConfig",
    "MFModel",
    "Method",
    "MultVAEConfig",
    "MultVAEModel",
    "NeuMFConfig",
    "NeuMFModel",
    "PHRConfig",
    "RCEKDConfig",
    "RDConfig",
    "RRDConfig",
    "RecformerConfig",
    "RecformerForPretraining",
    "RecformerModel",
    "Recommendations",
    "RecommenderModel",
    "Replay",
    "ReplayConfig",
    "SASRecConfig",
    "SASRecModel",
    "SeqKDError",
    "SequenceDataset",
    "SoftLabels",
    "Split",
    "StreamMatrix",
    "TargetSets",
    "Trajectory",
    "UnKD",
    "UnKDConfig",
    "UniM2RecConfig",
    "UniM2RecForPretraining",
    "UniM2RecModel",
    "UniSRecConfig",
    "UniSRecForPretraining",
    "UniSRecModel",
    "__version__",
    "best_head",
    "block_metrics",
    "by_domain",
    "by_rank",
    "combine",
    "common_lists",
    "count_items",
    "cut_stream",
    "edges_of",
    "encode_texts",
    "ensemble",
    "export",
    "fit_item_projection",
    "follow",
    "grow",
    "hide_items",
    "item_text",
    "k_core",
    "labels_of",
    "leave_one_out",
    "load_interactions",
    "load_markets",
    "load_trajectories",
    "matrix_table",
    "next_block",
    "preset",
    "principal_items",
    "push",
    "rank_consensus",
    "rank_targets",
    "ratio_split",
    "read_ccd",
    "renew_edges",
    "stream_figure",
    "stream_table",
    "synthetic_market",
    "temporal",
    "write_card",
]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'seqkd' has no attribute {name!r}")
    return getattr(import_module(f".{_LATER[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
