"""Who is rehearsed, with what masked, and what a model says about them; all by hand."""

from __future__ import annotations

import pytest
import torch

from seqkd.batches.collators import SequenceDataset
from seqkd.batches.pairs import TrainingPairs
from seqkd.catalogue import Catalogue
from seqkd.continual.rehearsal import best_pairs, block_edges, listen, rehearsal_rows, rows_of_everyone
from seqkd.knowledge import Knowledge
from seqkd.knowledge.store.source import Source
from seqkd.models.mf import MFConfig, MFModel

from .by_hand import blocks, rows


def test_edges_of_a_block_are_its_own_training():
    assert block_edges(blocks()[1]).tolist() == [[1, 1, 4, 4], [3, 5, 5, 2]]


def test_sets_hold_the_last_two_blocks_training_as_far_as_known():
    """Item 5 is new in block 1, so no proxy of block 0 could name it; user 4 is new and not rehearsed."""
    told = rehearsal_rows(blocks()[:2])
    assert rows(told) == {"u1": [1, 2, 3], "u2": [2], "u3": [1, 3]}
    assert told["first_target"] == [3, 1, 2] and told["query_start"] == [0, 1, 2]


def test_rows_for_one_who_knows_the_last_block_hold_what_is_new_in_it():
    two = blocks()[:2]
    told = rehearsal_rows(two, two[1])
    assert rows(told) == {"u1": [1, 2, 3, 5], "u2": [2], "u3": [1, 3], "u4": [2, 5]}
    assert told["first_target"] == [4, 1, 2, 2]


def test_who_was_away_for_two_blocks_has_an_empty_row():
    told = rehearsal_rows(blocks())
    assert rows(told) == {"u1": [3, 5], "u2": [3], "u3": [], "u4": [2, 5]}
    assert told["user_id"] == ["u1", "u2", "u3", "u4"]  # in their order, as best_pairs counts on
    assert told["first_target"] == [2, 1, 0, 2]


def test_sequences_hold_the_history_when_a_user_was_last_seen():
    """All that is known of a user, what was held out among it: it lies before what is asked now."""
    told = rehearsal_rows(blocks("positions"))
    assert {user: sorted(items) for user, items in rows(told).items()} == {
        "u1": [1, 2, 2, 3, 3, 4, 5],
        "u2": [1, 2],
        "u3": [1, 3],
        "u4": [1, 2, 3, 5],
    }
    assert told["first_target"] == [len(items) for items in told["item_ids"]]
    assert sorted(told["query_start"]) == [0, 1, 2, 3] and SequenceDataset(told, 6).num_queries == 4


def test_everyone_is_the_block_and_empty_rows_of_the_others():
    told = rows_of_everyone(blocks())
    assert rows(told) == {"u2": [3, 6], "u4": [6], "u1": [], "u3": []}
    assert told["query_start"] == [0, 1, 2, 3] and told["first_target"] == [2, 1, 0, 0]
    pairs = TrainingPairs(SequenceDataset(told, 6, blocks()[2].users))
    assert pairs.users.tolist() == [2, 2, 4, 1, 3]
    assert pairs.targets.tolist() == [3, 6, 6, -100, -100] and pairs.query_ids.tolist() == [0, 0, 1, 2, 3]


def test_everyone_of_sequences_is_asked_at_the_end_of_the_history():
    block = blocks("positions")[2]
    asked = SequenceDataset(block.train, 6).num_queries
    told = rows_of_everyone(blocks("positions"))
    others = told.select(range(len(block.train), len(told)))
    assert {user: sorted(items) for user, items in rows(others).items()} == {"u1": [1, 2, 2, 3, 3, 4, 5], "u3": [1, 3]}
    assert others["first_target"] == [len(items) for items in others["item_ids"]]
    assert others["query_start"] == [asked, asked + 1]


@pytest.mark.parametrize("queries", ["users", "positions"])
def test_everyone_of_the_base_is_its_own_rows(queries):
    assert rows_of_everyone(blocks(queries)[:1]) is blocks(queries)[0].train


def grown_to(block):
    """Item i scores i for everybody."""
    model = MFModel(MFConfig(num_items=len(block.catalogue), num_users=len(block.users), hidden_size=1))
    model.set_catalogue(block.catalogue)
    model.set_users(block.users)
    with torch.no_grad():
        model.user_embedding.weight.fill_(1.0)
        model.item_embedding.weight.copy_(torch.arange(len(block.catalogue) + 1)[:, None])
    return model.eval()


def test_a_proxy_names_no_item_of_later_and_none_that_is_masked():
    two = blocks()[:2]
    told = listen(grown_to(two[0]), two[0], rehearsal_rows(two), two[1], 3)
    assert told.table("query_topk").tolist() == [[4, 0, 0], [4, 3, 1], [4, 2, 0]]
    assert told.table("query_scores")[1].tolist() == [4, 3, 1]
    assert told.catalogue == two[1].catalogue  # a student who has grown reads it
    told = listen(grown_to(two[1]), two[1], rehearsal_rows(two), two[1], 2)
    assert told.table("query_topk").tolist() == [[5, 4], [5, 4], [5, 4]]
    longer = listen(grown_to(two[0]), two[0], rehearsal_rows(two), two[1], 3, total=5)
    assert longer.table("query_topk").tolist() == [[4, 0, 0], [4, 3, 1], [4, 2, 0], [0, 0, 0], [0, 0, 0]]
    assert longer.table("query_scores")[1].tolist() == [4, 3, 1] and longer.num_queries == 5


def test_best_pairs_are_of_any_list_once():
    def said(lists):
        tables = {"query_topk": torch.tensor(lists, dtype=torch.int32), "query_scores": torch.zeros(2, 3)}
        return Knowledge.from_tables(tables, source=Source("t", "r", "s", "train"), catalogue=Catalogue("abcdef"))

    pairs = best_pairs([said([[4, 2, 1], [6, 0, 0]]), said([[2, 5, 3], [1, 6, 2]])], 2)
    assert pairs.tolist() == [[1, 1, 1, 2, 2], [2, 4, 5, 1, 6]]
