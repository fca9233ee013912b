"""A market small enough to check by hand, and the runs over it that several tests share."""

from __future__ import annotations

import numpy as np
import torch
from datasets import Dataset, Features, List, Value

from seqkd.batches.collators import SequenceDataset
from seqkd.catalogue import Catalogue
from seqkd.data.split import Split
from seqkd.distiller import Distiller
from seqkd.knowledge.common_lists import common_lists
from seqkd.knowledge.export import export
from seqkd.methods.ckd_mdsr import CKDMDSR, CKDMDSRConfig
from seqkd.models.sasrec import SASRecConfig, SASRecModel
from seqkd.recommenders.recommender import count_items
from seqkd.training_args import DistillationArguments

ITEMS, USERS = 20, 24


def rows_of(histories: list[list[int]], last_only: bool) -> Dataset:
    first = [len(history) - 1 if last_only else 1 for history in histories]
    reserved = [len(history) - f + 1 for history, f in zip(histories, first, strict=True)]
    starts = np.concatenate([[0], np.cumsum(reserved)[:-1]])
    users = [f"u{i}" for i in range(len(histories))]
    columns = {"user_id": users, "item_ids": histories, "first_target": first, "query_start": starts.tolist()}
    kinds = {
        "user_id": Value("string"),
        "item_ids": List(Value("int32")),
        "first_target": Value("int32"),
        "query_start": Value("int64"),
    }
    return Dataset.from_dict(columns, features=Features(kinds))


def tiny_split(seed: int = 0) -> Split:
    """24 users, 20 items; each history walks round the catalogue, so that the next item is mostly the next id."""
    draw = np.random.default_rng(seed)
    walks = []
    for _ in range(USERS):
        start, length = int(draw.integers(ITEMS)), int(draw.integers(4, 11))
        walks.append([(start + step) % ITEMS + 1 for step in range(length)])
    return Split(
        Catalogue(f"item{i}" for i in range(1, ITEMS + 1)),
        rows_of([walk[:-2] for walk in walks], False),
        rows_of([walk[:-1] for walk in walks], True),
        rows_of(walks, True),
        "loo",
        "tiny",
    )


def tiny_sasrec(split: Split, seed: int = 0, **config) -> SASRecModel:
    torch.manual_seed(seed)
    settings = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "max_position_embeddings": 12}
    model = SASRecModel(SASRecConfig(num_items=len(split.catalogue), **{**settings, **config}))
    model.set_catalogue(split.catalogue, count_items(split.train, len(split.catalogue)))
    return model


def tiny_distiller(split: Split, candidates: str = "in_batch", dropout: float = 0.0, **method) -> Distiller:
    """A student with two (untrained, so far apart) teachers."""
    student = tiny_sasrec(split, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    tables = ("query_embeddings", "item_embeddings") if candidates == "in_batch" else ("query_topk",)
    teachers = {name: tiny_sasrec(split, seed) for name, seed in (("one", 1), ("two", 2))}
    knowledge = {
        name: export(t, split.train, split=split, part="train", tables=tables, k=20) for name, t in teachers.items()
    }
    if candidates == "catalogue":
        knowledge = common_lists(knowledge, k=8)
    return Distiller(
        student, {"ckd_mdsr": CKDMDSR(CKDMDSRConfig(candidates=candidates, **method))}, {"ckd_mdsr": 0.5}, knowledge
    )


def parts(split: Split) -> tuple[SequenceDataset, SequenceDataset]:
    return SequenceDataset(split.train, len(split.catalogue)), SequenceDataset(split.valid, len(split.catalogue))


def arguments(folder, **changes) -> DistillationArguments:
    settings = {
        "output_dir": str(folder),
        "num_train_epochs": 2,
        "per_device_train_batch_size": 8,
        "learning_rate": 1e-2,
        "use_cpu": True,
        "disable_tqdm": True,
        "logging_steps": 1,
        "save_strategy": "no",
        "tail_queries": True,
    }
    return DistillationArguments(**{**settings, **changes})


def nobody(k: int) -> torch.Tensor:
    """`Epoch.student_topk` for methods that do not look at the student."""
    raise AssertionError(f"this method asked for the student's best {k} items")
