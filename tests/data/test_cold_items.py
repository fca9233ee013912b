"""The cold protocol: hidden items are nowhere in training, and every hidden target is asked for."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from seqkd.batches.collators import SequenceDataset
from seqkd.catalogue import Catalogue
from seqkd.data.cold_items import hide_items
from seqkd.data.split import Split
from seqkd.errors import ConfigError, DataError
from seqkd.evaluation.ranks import rank_targets
from seqkd.models.sasrec.item_projection import fit_item_projection
from tests.tiny import ITEMS, rows_of, tiny_sasrec, tiny_split


def external(split: Split, part: str) -> list[tuple[str, list[str], int]]:
    rows = split.part(part)
    return [
        (user, split.catalogue.decode(items), first)
        for user, items, first in zip(rows["user_id"], rows["item_ids"], rows["first_target"], strict=True)
    ]


def test_by_hand():
    histories = [[1, 2, 3, 4, 5], [2, 4, 1, 5, 3], [4, 2, 5, 1, 2], [3, 1, 2, 5, 4]]  # leave-one-out of four users
    split = Split(
        Catalogue("abcde"),
        rows_of([history[:-2] for history in histories], False),
        rows_of([history[:-1] for history in histories], True),
        rows_of(histories, True),
        "loo",
        "hand",
    )
    hidden = next(found for seed in range(99) if (found := hide_items(split, 0.4, seed)).item_ids == ("b", "d"))
    # one item of five is asked for by every part: a to e all are; 0.4 of them are two
    assert hidden.warm.catalogue.item_ids == ("a", "c", "e")
    assert hidden.cold.catalogue.item_ids == ("a", "c", "e", "b", "d")
    #   abc|d|e -> train ac, no valid, test ace      bda|e|c -> train a, valid ae, test aec
    #   dbe|a|b -> train e, valid ea, cold eab       cab|e|d -> train ca, valid cae, cold caed
    assert external(hidden.warm, "train") == [
        ("u0", ["a", "c"], 1),
        ("u1", ["a"], 1),
        ("u2", ["e"], 1),
        ("u3", ["c", "a"], 1),
    ]
    assert hidden.warm.train["query_start"][:] == [0, 2, 3, 4]  # the tail is a query too
    assert external(hidden.warm, "valid") == [("u1", ["a", "e"], 1), ("u2", ["e", "a"], 1), ("u3", ["c", "a", "e"], 2)]
    assert external(hidden.warm, "test") == [("u0", ["a", "c", "e"], 2), ("u1", ["a", "e", "c"], 2)]
    assert external(hidden.cold, "test") == [("u2", ["e", "a", "b"], 2), ("u3", ["c", "a", "e", "d"], 3)]
    assert hidden.warm.report == {"hidden_items": 2, "cold_queries_without_history": 0}
    assert hidden.protocol == "loo, hidden items, full catalogue incl. the new items, masked"


def test_a_window_keeps_its_first_target_and_an_empty_history_is_counted():
    split = Split(
        Catalogue("abcd"),
        rows_of([[1, 2, 3, 1, 2], [1, 3]], False),
        rows_of([[1, 3, 2]], True),
        rows_of([[4, 4], [4, 1, 4], [1, 2]], True),
        "loo",
        "hand",
    )
    split = Split(split.catalogue, _first(split.train, [3, 1]), split.valid, split.test, "loo", "hand")
    hidden = next(found for seed in range(99) if (found := hide_items(split, 0.25, seed)).item_ids == ("d",))
    assert external(hidden.warm, "train") == external(split, "train")
    assert external(hidden.cold, "test") == [("u1", ["a", "d"], 1)]
    assert hidden.cold.report["cold_queries_without_history"] == 1  # d alone before d
    hidden = next(found for seed in range(99) if (found := hide_items(split, 0.25, seed)).item_ids == ("b",))
    assert external(hidden.warm, "train") == [("u0", ["a", "c", "a"], 2), ("u1", ["a", "c"], 1)]


def _first(rows, first):
    return rows.remove_columns("first_target").add_column("first_target", first)


def test_the_tiny_split():
    split = tiny_split()
    hidden = hide_items(split, 0.2)
    assert len(hidden.item_ids) == 4 and len(hidden.warm.catalogue) == 16
    assert set(hidden.item_ids) | set(hidden.warm.catalogue.item_ids) == set(split.catalogue.item_ids)
    assert hidden.item_ids == hide_items(split, 0.2, seed=0).item_ids != hide_items(split, 0.2, seed=1).item_ids
    tests = {user: items for user, items, _ in external(split, "test")}
    warm, cold = external(hidden.warm, "test"), external(hidden.cold, "test")
    for user, items, first in warm + cold:
        assert items[:first] == [item for item in tests[user][:-1] if item not in hidden.item_ids]
        assert items[first:] == tests[user][-1:]
    assert {user for user, _, _ in cold} == {user for user, items in tests.items() if items[-1] in hidden.item_ids}
    assert len(warm) + len(cold) == len(tests)
    for part in ("train", "valid"):
        assert not set(hidden.item_ids) & {item for _, items, _ in external(hidden.warm, part) for item in items}
        assert external(hidden.cold, part) == external(hidden.warm, part)
    for each in (hidden.warm, hidden.cold):
        assert len(each.fingerprint) == 64  # every table can be read
        starts = SequenceDataset(each.test, len(each.catalogue))
        assert starts.num_queries == 2 * len(each.test)


def test_a_model_of_the_warm_items_grows_into_the_cold_ones():
    hidden = hide_items(tiny_split(), 0.2)
    model = tiny_sasrec(hidden.warm).eval()
    tests = SequenceDataset(hidden.warm.test, 16), SequenceDataset(hidden.cold.test, ITEMS)
    before = rank_targets(model, tests[0])
    fit_item_projection(model, torch.randn(17, 3))
    model.add_items(hidden.item_ids, teacher_embeddings=torch.randn(4, 3))
    assert model.catalogue == hidden.cold.catalogue
    after, cold = rank_targets(model, tests[0]), rank_targets(model, tests[1])
    assert len(cold.ranks) == len(hidden.cold.test) and (cold.targets > 16).all()
    assert (after.ranks >= before.ranks).all()  # more items compete


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1])
def test_a_share_is_between_0_and_1(share):
    with pytest.raises(ConfigError, match="share"):
        hide_items(tiny_split(), share)


def test_too_small_a_share_is_named():
    with pytest.raises(DataError, match="none of the 0 hidden items"):
        hide_items(tiny_split(), 0.001)


def test_sets_have_no_order_to_hide_items_in():
    with pytest.raises(ConfigError, match=r"asks for sets.*one by one.*leave_one_out or temporal"):
        hide_items(replace(tiny_split(), protocol="ratio"))
