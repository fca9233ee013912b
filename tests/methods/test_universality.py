"""Which method teaches which student, the table of docs/papers.md, and what holds for every method's run."""

from __future__ import annotations

import logging
import shutil
from math import isfinite

import pytest
import torch
from datasets import Dataset

from seqkd.batches.collators import SequenceDataset
from seqkd.distiller import Distiller
from seqkd.errors import ConfigError
from seqkd.knowledge.export import export
from seqkd.methods import METHODS
from seqkd.models.concf import ConCFConfig, ConCFModel
from seqkd.models.deepfm import DeepFMConfig, DeepFMModel
from seqkd.models.fm import FMConfig, FMModel
from seqkd.models.lightgcn import LightGCNConfig, LightGCNModel, edges_of
from seqkd.models.mf import MFConfig, MFModel
from seqkd.recommenders.recommender import count_items
from seqkd.trainer import DistillationTrainer

from ..tiny import arguments, tiny_sasrec, tiny_split

SPLIT = tiny_split()
SIZES = {"num_items": len(SPLIT.catalogue), "num_users": len(SPLIT.users)}
TRAIN = SequenceDataset(SPLIT.train, len(SPLIT.catalogue), SPLIT.users)
TABLES = ("query_topk", "query_seen_topk", "query_embeddings", "item_embeddings", "item_topk")
SMALL = {
    "rrd": {"interesting": 3, "uninteresting": 3, "list_length": 6},
    "ir_rrd": {"interesting": 3, "uninteresting": 3, "list_length": 6, "item_interesting": 3, "item_uninteresting": 3},
    "rcekd": {"top": 3, "sampled": 2, "list_length": 6},
    "de": {"num_experts": 2},
    "htd": {"num_groups": 2},
    "rd": {"top": 3, "samples": 5, "warmup_epochs": 1},
    "replay": {"draws": 2, "list_length": 6, "redraw": 1},
    "cd": {"sampled": 3, "list_length": 6},
    "dcd": {"under": 3, "over": 3, "list_length": 6},
    "unkd": {"pairs": 4},
    "concf": {"interesting": 3, "uninteresting": 3, "top": 6, "list_length": 6, "start": 1, "refresh": 1, "window": 2},
    "hetcomp": {"top": 4, "observed": 2, "depth": 4, "curriculum": False},
    "lwc_kd": {"clusters": 3, "degree": 4.0},
}


def model(kind: str, width: int = 8):
    torch.manual_seed(0)
    if kind == "sasrec":
        return tiny_sasrec(SPLIT)
    made = {
        "mf": lambda: MFModel(MFConfig(**SIZES, hidden_size=width)),
        "lightgcn": lambda: LightGCNModel(LightGCNConfig(**SIZES, hidden_size=width), edges_of(TRAIN)),
        "fm": lambda: FMModel(FMConfig(**SIZES, hidden_size=width)),
        "concf": lambda: ConCFModel(ConCFConfig(**SIZES, hidden_size=width)),
        "deepfm": lambda: DeepFMModel(DeepFMConfig(**SIZES, hidden_size=width, mlp_hidden_sizes=[8, 8])),
    }[kind]()
    made.set_catalogue(SPLIT.catalogue, count_items(SPLIT.train, len(SPLIT.catalogue)))
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
    ("hetcomp", "deepfm"): "dot product",
    **{("concf", kind): "one way of scoring" for kind in ("sasrec", "mf", "lightgcn", "fm", "deepfm")},
    **{("lwc_kd", kind): "Take MF or LightGCN" for kind in ("sasrec", "fm", "deepfm")},
    ("lwc_kd", "mf"): "interactions of the block before",
    ("ckd_mdsr", "mf"): "mask_history=False",
    ("ckd_mdsr", "lightgcn"): "mask_history=False",
}


def taught(name, kind, knowledge, folder, resume=None, **changes):
    """A run of two epochs of the method alone; the trainer."""
    method = METHODS[name](METHODS[name].config_class(**SMALL.get(name, {})))
    label_weight = float(kind == "concf")  # whose heads learn from labels first
    distiller = Distiller(model(kind), {name: method}, {name: 1.0}, knowledge, label_weight)
    trainer = DistillationTrainer(
        distiller, arguments(folder, **{"per_device_train_batch_size": 32, "tail_queries": False, **changes}), TRAIN
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def state(trainer):
    return {**trainer.model.student.state_dict(), **trainer.model.methods.state_dict()}


@pytest.mark.parametrize("name", METHODS)
def test_resume_is_bit_identical(name, knowledge, tmp_path):
    """From the middle of the second epoch, methods' own tensors and what they draw included."""
    kind = {"ckd_mdsr": "fm", "concf": "concf", "lwc_kd": "lightgcn"}.get(name, "mf")
    straight = taught(name, kind, knowledge, tmp_path / "a")
    whole = taught(name, kind, knowledge, tmp_path / "b", save_strategy="steps", save_steps=1)
    last = whole.state.global_step
    for step in range(last * 3 // 4 + 1, last + 1):
        shutil.rmtree(tmp_path / "b" / f"checkpoint-{step}")
    resumed = taught(name, kind, knowledge, tmp_path / "b", resume=True)
    assert resumed.state.global_step == last > 6
    one, other = state(straight), state(resumed)
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("name", ["full_ce", "rrd", "replay"])
def test_accumulation_gives_the_same_student(name, knowledge, tmp_path):
    """Methods whose loss is a sum over queries; topology and sampled items are of a micro-batch, as documented."""
    one = taught(name, "mf", knowledge, tmp_path / "one")
    four = taught(
        name, "mf", knowledge, tmp_path / "four", per_device_train_batch_size=8, gradient_accumulation_steps=4
    )
    for a, b in zip(one.model.student.parameters(), four.model.student.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("kind", ["sasrec", "mf", "lightgcn", "fm", "deepfm"])
@pytest.mark.parametrize("name", METHODS)
def test_a_method_teaches_a_student_or_says_why_not(name, kind, knowledge, tmp_path, caplog):
    caplog.set_level(logging.ERROR)

    def run() -> None:
        trainer = taught(name, kind, knowledge, tmp_path, num_train_epochs=1)
        assert f"loss_{name}" in trainer.state.log_history[0]
        student = trainer.model.student.eval()
        assert not torch.equal(student.item_embeddings(), model(kind).eval().item_embeddings())

    if (name, kind) in REFUSED:
        with pytest.raises(ConfigError, match=REFUSED[name, kind]):
            run()
    else:
        run()


EMPTY = [*range(0, len(SPLIT.train), 4)]  # users of whom a stream's block holds nothing


@pytest.fixture(scope="module")
def stream_rows():
    """Sets, some of them empty; and what a teacher says about all."""
    columns = SPLIT.train.to_dict()
    items = [[] if row in EMPTY else items for row, items in enumerate(columns["item_ids"])]
    columns |= {"item_ids": items, "first_target": [*map(len, items)], "query_start": [*range(len(items))]}
    rows = Dataset.from_dict(columns, features=SPLIT.train.features)
    said = export(model("mf", 16), rows, split=SPLIT, part="train", tables=TABLES, k=10, filter_seen=True)
    return SequenceDataset(rows, len(SPLIT.catalogue), SPLIT.users), {"mf": said}


@pytest.mark.parametrize("loss_type", ["bpr", "softmax"])
@pytest.mark.parametrize("name", [name for name in METHODS if (name, "mf") not in REFUSED])
def test_rows_without_items_are_taught(name, loss_type, stream_rows, tmp_path):
    """An epoch ends, and what teachers say reaches users without labels."""
    rows, knowledge = stream_rows
    student = MFModel(MFConfig(**SIZES, hidden_size=8, loss_type=loss_type))
    student.set_catalogue(SPLIT.catalogue, count_items(SPLIT.train, len(SPLIT.catalogue)))
    student.set_users(SPLIT.users)
    before = student.user_embedding.weight.detach().clone()
    method = METHODS[name](METHODS[name].config_class(**SMALL.get(name, {})))
    distiller = Distiller(student, {name: method}, {name: 1.0}, knowledge)
    settings = {"num_train_epochs": 1, "per_device_train_batch_size": 16, "tail_queries": True}
    trainer = DistillationTrainer(distiller, arguments(tmp_path, **settings), rows)
    trainer.train()
    steps = [entry for entry in trainer.state.log_history if f"loss_{name}" in entry]
    assert len(steps) == len(trainer.get_train_dataloader()) and all(isfinite(step["loss"]) for step in steps)
    assert (student.user_embedding.weight != before).any(dim=1)[1:].all(), "those of empty rows, too"
    assert student.user_embedding.weight.isfinite().all()
