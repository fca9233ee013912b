"""Sets as rows: what is before the targets is asked from, the targets come back by query id."""

from __future__ import annotations

import torch
from datasets import Dataset

from seqkd.batches.collators import SequenceDataset
from seqkd.batches.target_sets import TargetSets
from seqkd.distiller import Distiller
from seqkd.models.mf import MFConfig, MFModel
from seqkd.trainer import DistillationTrainer
from tests.tiny import rows_of, tiny_split

from ..tiny import ITEMS, USERS, arguments


def rows_with_targets(rows: list[tuple[list[int], list[int]]]) -> Dataset:
    """Rows of (history, targets), with the query ids that a split reserves."""
    made = rows_of([history + targets for history, targets in rows], last_only=True)
    starts, at = [], 0
    for _, targets in rows:
        starts.append(at)
        at += len(targets) + 1
    features = made.features
    made = made.remove_columns(["first_target", "query_start"])
    made = made.add_column("first_target", [len(history) for history, _ in rows])
    return made.add_column("query_start", starts).cast(features)


ROWS = [([1, 2], [5, 3]), ([4], [1]), ([3, 1], [2, 4, 5])]


def test_a_row_is_one_query_and_knows_its_targets():
    dataset = TargetSets(rows_with_targets(ROWS), 5)
    assert [row.item_ids.tolist() for row in dataset] == [[1, 2], [4], [3, 1]]
    assert [(row.first_target, row.query_start) for row in dataset] == [(2, 0), (1, 3), (2, 5)]
    assert dataset.sizes.tolist() == [2, 1, 3]
    targets, owner = dataset.targets_of(torch.tensor([5, 0]))
    assert targets.tolist() == [2, 4, 5, 5, 3] and owner.tolist() == [0, 0, 0, 1, 1]


def test_a_part_that_does_not_begin_at_the_first_row():
    dataset = TargetSets(rows_with_targets(ROWS).select([1, 2]), 5)
    targets, owner = dataset.targets_of(torch.tensor([3, 5]))
    assert targets.tolist() == [1, 2, 4, 5] and owner.tolist() == [0, 1, 1, 1]


def test_an_item_is_in_a_set_once():
    dataset = TargetSets(rows_with_targets([([1], [5, 3, 5]), ([2], [5, 5])]), 5)
    targets, owner = dataset.targets_of(torch.tensor([0, 4]))
    assert targets.tolist() == [5, 3, 5] and owner.tolist() == [0, 0, 1]


def test_the_trainer_evaluates_sets(tmp_path):
    split = tiny_split()
    student = MFModel(MFConfig(num_users=USERS, num_items=ITEMS, hidden_size=4))
    student.set_catalogue(split.catalogue)
    student.set_users(split.users)
    train = SequenceDataset(split.train, ITEMS, users=split.users)
    settings = arguments(tmp_path, num_train_epochs=1, tail_queries=False)
    trainer = DistillationTrainer(Distiller(student), settings, train, TargetSets(split.valid, ITEMS, split.users))
    metrics = trainer.evaluate()
    alone = trainer.evaluate(SequenceDataset(split.valid, ITEMS, split.users))  # one target each: the same
    assert metrics["eval_recall@10"] == alone["eval_recall@10"] and "eval_mrr@10" not in metrics
