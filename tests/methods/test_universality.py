"""Which method teaches which student: the table of docs/papers.md, one tiny run a cell."""

from __future__ import annotations

import logging

import pytest
import torch

from seqkd.collators import SequenceDataset
from seqkd.distiller import Distiller
from seqkd.errors import ConfigError
from seqkd.export import export
from seqkd.methods import METHODS
from seqkd.models.deepfm import DeepFMConfig, DeepFMModel
from seqkd.models.fm import FMConfig, FMModel
from seqkd.models.lightgcn import LightGCNConfig, LightGCNModel, edges_of
from seqkd.models.mf import MFConfig, MFModel
from seqkd.trainer import DistillationTrainer

from ..tiny import arguments, tiny_sasrec, tiny_split

SPLIT = tiny_split()
SIZES = {"num_items": len(SPLIT.catalogue), "num_users": len(SPLIT.users)}
TRAIN = SequenceDataset(SPLIT.train, len(SPLIT.catalogue), SPLIT.users)
TABLES = ("query_topk", "query_embeddings", "item_embeddings", "item_topk")
SMALL = {
    "rrd": {"interesting": 3, "uninteresting": 3, "list_length": 6},
    "ir_rrd": {"interesting": 3, "uninteresting": 3, "list_length": 6, "item_interesting": 3, "item_uninteresting": 3},
    "rcekd": {"top": 3, "sampled": 2, "list_length": 6},
    "de": {"num_experts": 2},
    "htd": {"num_groups": 2},
}


def model(kind: str, width: int = 8):
    torch.manual_seed(0)
    if kind == "sasrec":
        return tiny_sasrec(SPLIT)
    made = {
        "mf": lambda: MFModel(MFConfig(**SIZES, hidden_size=width)),
        "lightgcn": lambda: LightGCNModel(LightGCNConfig(**SIZES, hidden_size=width), edges_of(TRAIN)),
        "fm": lambda: FMModel(FMConfig(**SIZES, hidden_size=width)),
        "deepfm": lambda: DeepFMModel(DeepFMConfig(**SIZES, hidden_size=width, mlp_hidden_sizes=[8, 8])),
    }[kind]()
    made.set_catalogue(SPLIT.catalogue)
    made.set_users(SPLIT.users)
    return made


@pytest.fixture(scope="module")
def knowledge():
    teacher = model("mf", 16)
    return {"mf": export(teacher, SPLIT.train, split=SPLIT, part="train", tables=TABLES, k=10, filter_seen=True)}


REFUSED = {
    ("ir_rrd", "sasrec"): "no vector for a user",
    ("ir_rrd", "fm"): "histories",
    ("ir_rrd", "deepfm"): "dot product",
    ("full_ce", "deepfm"): "in_batch",
    ("ckd_mdsr", "mf"): "mask_history=False",
    ("ckd_mdsr", "lightgcn"): "mask_history=False",
}


@pytest.mark.parametrize("kind", ["sasrec", "mf", "lightgcn", "fm", "deepfm"])
@pytest.mark.parametrize("name", METHODS)
def test_a_method_teaches_a_student_or_says_why_not(name, kind, knowledge, tmp_path, caplog):
    caplog.set_level(logging.ERROR)
    config = METHODS[name].config_class(**SMALL.get(name, {}))

    def run() -> None:
        student = model(kind)
        before = student.item_embeddings().detach().clone()
        distiller = Distiller(student, {name: METHODS[name](config)}, {name: 1.0}, knowledge, label_weight=0.0)
        settings = {"num_train_epochs": 1, "per_device_train_batch_size": 16, "tail_queries": False}
        trainer = DistillationTrainer(distiller, arguments(tmp_path, **settings), TRAIN)
        trainer.train()
        assert f"loss_{name}" in trainer.state.log_history[0]
        assert not torch.equal(student.item_embeddings().detach(), before)

    if (name, kind) in REFUSED:
        with pytest.raises(ConfigError, match=REFUSED[name, kind]):
            run()
    else:
        run()
