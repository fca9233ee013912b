"""Distil small sequential recommenders from pre-trained teachers.

`import seqkd` makes `AutoModel.from_pretrained` know the models of seqkd. What only training needs is imported when it
is first asked for. `export`, `ensemble` and `common_lists` are called like their files, so they come from there:
`from seqkd.export import export`.
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
from .recommender import Recommendations, RecommenderModel, count_items

if TYPE_CHECKING:
    from .collators import SequenceDataset
    from .common_lists import labels_of
    from .curriculum import Curriculum
    from .distiller import Distiller
    from .evaluation import rank_targets
    from .hub import push
    from .interactions import by_domain, load_interactions
    from .kcore import k_core
    from .knowledge import Knowledge
    from .market import synthetic_market
    from .method import Method, SoftLabels
    from .methods import CKDMDSR
    from .methods.ckd_mdsr import CKDMDSRConfig
    from .model_card import write_card
    from .split import Split, combine
    from .splits import leave_one_out, load_markets, preset, ratio_split, temporal
    from .text import encode_texts, item_text
    from .trainer import DistillationTrainer
    from .training_args import DistillationArguments
    from .trajectory import Trajectory, load_trajectories
    from .warm_start import principal_items

__version__ = "0.1.0"

_LATER = {
    "CKDMDSR": "methods",
    "CKDMDSRConfig": "methods.ckd_mdsr",
    "Curriculum": "curriculum",
    "DistillationArguments": "training_args",
    "DistillationTrainer": "trainer",
    "Distiller": "distiller",
    "Knowledge": "knowledge",
    "Method": "method",
    "SequenceDataset": "collators",
    "SoftLabels": "method",
    "Split": "split",
    "Trajectory": "trajectory",
    "by_domain": "interactions",
    "combine": "split",
    "encode_texts": "text",
    "item_text": "text",
    "k_core": "kcore",
    "labels_of": "common_lists",
    "leave_one_out": "splits",
    "load_interactions": "interactions",
    "load_markets": "splits",
    "load_trajectories": "trajectory",
    "preset": "splits",
    "principal_items": "warm_start",
    "push": "hub",
    "rank_targets": "evaluation",
    "ratio_split": "splits",
    "synthetic_market": "market",
    "temporal": "splits",
    "write_card": "model_card",
}

__all__ = [
    "CKDMDSR",
    "CKDMDSRConfig",
    "CMLConfig",
    "CMLModel",
    "Catalogue",
    "CausalRecformerConfig",
    "CausalRecformerForPretraining",
    "CausalRecformerModel",
    "CheckpointError",
    "ConCFConfig",
    "ConCFModel",
    "ConfigError",
    "Curriculum",
    "DataError",
    "DeepFMConfig",
    "DeepFMModel",
    "DistillationArguments",
    "DistillationTrainer",
    "Distiller",
    "FMConfig",
    "FMModel",
    "ItemAEConfig",
    "ItemAEModel",
    "Knowledge",
    "KnowledgeError",
    "LightGCNConfig",
    "LightGCNModel",
    "MFConfig",
    "MFModel",
    "Method",
    "MultVAEConfig",
    "MultVAEModel",
    "NeuMFConfig",
    "NeuMFModel",
    "RecformerConfig",
    "RecformerForPretraining",
    "RecformerModel",
    "Recommendations",
    "RecommenderModel",
    "SASRecConfig",
    "SASRecModel",
    "SeqKDError",
    "SequenceDataset",
    "SoftLabels",
    "Split",
    "Trajectory",
    "UniM2RecConfig",
    "UniM2RecForPretraining",
    "UniM2RecModel",
    "UniSRecConfig",
    "UniSRecForPretraining",
    "UniSRecModel",
    "__version__",
    "by_domain",
    "combine",
    "count_items",
    "encode_texts",
    "item_text",
    "k_core",
    "labels_of",
    "leave_one_out",
    "load_interactions",
    "load_markets",
    "load_trajectories",
    "preset",
    "principal_items",
    "push",
    "rank_targets",
    "ratio_split",
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
