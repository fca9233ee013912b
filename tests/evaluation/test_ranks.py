from __future__ import annotations

from math import isnan, log2

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from seqkd.batches.collators import SequenceDataset
from seqkd.batches.target_sets import TargetSets
from seqkd.catalogue import Catalogue
from seqkd.errors import ConfigError, DataError
from seqkd.evaluation.ranks import metrics_of, rank_targets
from seqkd.recommenders.configuration import RecommenderConfig
from seqkd.recommenders.recommender import RecommenderModel, RecommenderOutput

from ..batches.test_target_sets import rows_with_targets
from ..tiny import rows_of, tiny_sasrec, tiny_split

# newest item: score of padding (which must never be ranked), 1, 2, 3, 4, 5
AFTER = {1: [0, 9, 5, 4, 3, 2], 2: [99, 1, 8, 2, 2, 0]}


class LastItem(RecommenderModel):
    """Scores depend on the newest item alone and stand in a table, so that ranks can be read off."""

    config_class = RecommenderConfig

    def __init__(self):
        super().__init__(RecommenderConfig(num_items=5, hidden_size=6, max_position_embeddings=4))
        self.table = nn.Parameter(torch.zeros(6, 6))  # (item, newest item)
        for newest, scores in AFTER.items():
            self.table.data[:, newest] = torch.tensor(scores, dtype=torch.float32)

    def forward(self, item_ids, sequence_ids, position_ids, query_index):
        newest = item_ids.flatten()[query_index]
        return RecommenderOutput(query_embeddings=F.one_hot(newest, 6).float())

    def item_embeddings(self, item_ids=None):
        return self.table if item_ids is None else self.table[item_ids]


def dataset(*histories):
    return SequenceDataset(rows_of([list(history) for history in histories], last_only=True), 5)


# after 1: 1 > 2 > 3 > 4 > 5; after 2: 2 > 3 = 4 > 1 > 5
HISTORIES = ([1, 3], [1, 2, 3], [1, 2, 5])


def test_masked_by_hand():
    ranks = rank_targets(LastItem(), dataset(*HISTORIES), history="masked", depth=5)
    assert ranks.ranks.tolist() == [1, 1, 2]  # behind 2; level with 4, which counts against; behind 3 and 4
    assert ranks.targets.tolist() == [3, 3, 5]
    assert ranks.history_lengths.tolist() == [1, 2, 2]
    assert ranks.histogram().tolist() == [0, 2, 1, 0, 0, 0]
    gain = 1 / log2(3)
    assert ranks.metrics((1, 2, 3)) == pytest.approx(
        {
            "recall@1": 0, "ndcg@1": 0, "mrr@1": 0,
            "recall@2": 2 / 3, "ndcg@2": 2 * gain / 3, "mrr@2": 2 * 0.5 / 3,
            "recall@3": 1, "ndcg@3": (2 * gain + 1 / 2) / 3, "mrr@3": (0.5 + 0.5 + 1 / 3) / 3,
        }
    )  # fmt: skip


def test_unmasked_by_hand():
    ranks = rank_targets(LastItem(), dataset(*HISTORIES), history="unmasked", depth=5)
    assert ranks.ranks.tolist() == [2, 2, 4]
    assert ranks.metrics((3,))["recall@3"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(("history", "expected"), [("masked", 4), ("unmasked", 0)])
def test_an_item_bought_again_can_only_be_found_unmasked(history, expected):
    assert rank_targets(LastItem(), dataset([1, 2, 1, 1]), history=history, depth=4).ranks.tolist() == [expected]


def test_the_mask_holds_the_whole_history_also_what_the_model_does_not_read():
    ranks = rank_targets(LastItem(), dataset([2, 3, 3, 3, 3, 3, 1, 4]), history="masked", depth=5)
    assert ranks.ranks.tolist() == [0]  # 1, 2 and 3 are out, though 2 is older than the 4 items that are read


def test_ranks_beyond_the_depth_count_as_not_found():
    ranks = rank_targets(LastItem(), dataset(*HISTORIES), history="unmasked", depth=2)
    assert ranks.ranks.tolist() == [2, 2, 2]
    assert ranks.metrics((2,)) == {"recall@2": 0, "ndcg@2": 0, "mrr@2": 0}
    with pytest.raises(ConfigError, match="metrics at 3 need lists of that length; only the first 2"):
        ranks.metrics((3,))


def test_a_model_that_scores_everything_alike_gains_nothing():
    """After item 3 all scores are 0: every tie counts against."""
    assert rank_targets(LastItem(), dataset([3, 4]), history="unmasked", depth=5).ranks.tolist() == [4]


def test_batches_and_shards_change_nothing():
    whole = rank_targets(LastItem(), dataset(*HISTORIES), depth=5)
    single = rank_targets(LastItem(), dataset(*HISTORIES), depth=5, batch_size=1)
    assert whole.ranks.tolist() == single.ranks.tolist()
    shards = [rank_targets(LastItem(), dataset(*HISTORIES), depth=5, shard=(index, 2)) for index in range(2)]
    assert [shard.ranks.tolist() for shard in shards] == [[1, 2], [1]]  # rows 0 and 2, row 1
    assert metrics_of(shards[0].histogram() + shards[1].histogram(), (2,)) == whole.metrics((2,))


def test_a_shard_without_rows_adds_nothing():
    empty = rank_targets(LastItem(), dataset(*HISTORIES), depth=5, shard=(7, 8))
    assert empty.histogram().tolist() == [0] * 6


def test_every_target_tells_its_row():
    """Whatever the batches and shards are, and where ids of queries do not begin at 0; unanswered rows have none."""
    rows = rows_of([[1, 2, 3], [4], [1, 2, 5, 4]], last_only=False)  # after 1 and 1, 2; none; after 1, 1, 2 and 1, 2, 5
    asked = SequenceDataset(rows, 5, users=Catalogue(["u2", "u0"]))
    ranks = rank_targets(LastItem(), asked, depth=5, batch_size=2)
    assert ranks.rows.tolist() == [0, 0, 2, 2, 2] and asked.user[ranks.rows].tolist() == [2, 2, 1, 1, 1]
    assert rank_targets(LastItem(), asked, depth=5, shard=(2, 3)).rows.tolist() == [2, 2, 2]
    later = SequenceDataset(rows.select([2, 0]), 5)
    assert rank_targets(LastItem(), later, depth=5).rows.tolist() == [0, 0, 0, 1, 1]
    assert rank_targets(LastItem(), sets(*SETS), depth=4).rows.tolist() == [0, 0, 1, 2, 2, 2]


def test_an_empty_part_has_no_metrics():
    nothing = SequenceDataset(rows_of([[1, 3]], last_only=True).select([]), 5)
    ranks = rank_targets(LastItem(), nothing, depth=5)
    assert len(ranks.ranks) == len(ranks.targets) == len(ranks.history_lengths) == 0
    assert all(isnan(value) for value in ranks.metrics((5,)).values())


def test_a_query_without_history_is_not_asked():
    """A user with one item has nothing to be asked from; the others keep their ranks."""
    ranks = rank_targets(LastItem(), dataset([4], [1, 3]), history="masked", depth=5)
    assert ranks.ranks.tolist() == [1]
    alone = rank_targets(LastItem(), dataset([4]), history="masked", depth=5)
    assert alone.histogram().sum() == 0


def test_the_model_stays_in_its_mode():
    model = LastItem()
    for training in (True, False):
        model.train(training)
        rank_targets(model, dataset([1, 3]), depth=5)
        assert model.training is training


def test_a_protocol_that_is_neither_is_refused():
    with pytest.raises(ConfigError, match=r"masked.*unmasked.*got 'both'"):
        rank_targets(LastItem(), dataset([1, 3]), history="both")


# ---- sets ---------------------------------------------------------------------------------------------------------


def sets(*rows):
    """Rows of (history, targets)."""
    return TargetSets(rows_with_targets([(list(history), list(targets)) for history, targets in rows]), 5)


# after 1, which is masked: 2 > 3 > 4 > 5; after 2, masked: 3 = 4 > 1 > 5
SETS = (([1], [5, 2]), ([2], [4]), ([1, 2], [3, 4, 5]))


def test_sets_are_ranked_in_one_list():
    ranks = rank_targets(LastItem(), sets(*SETS), depth=4)
    assert ranks.targets.tolist() == [5, 2, 4, 3, 4, 5]
    assert ranks.ranks.tolist() == [3, 0, 1, 1, 1, 2]  # level items count against each other, too
    assert ranks.set_sizes.tolist() == [2, 2, 1, 3, 3, 3] and ranks.largest_set == 3
    assert ranks.history_lengths.tolist() == [1, 1, 1, 2, 2, 2]
    metrics = ranks.metrics((1, 2))
    assert metrics["recall@1"] == pytest.approx((1 / 2 + 0 + 0) / 3)
    assert metrics["recall@2"] == pytest.approx((1 / 2 + 1 + 2 / 3) / 3)
    gain = 1 / log2(3)
    assert metrics["ndcg@2"] == pytest.approx((1 / (1 + gain) + gain + 2 * gain / (1 + gain)) / 3)


def test_a_set_is_one_query():
    assert rank_targets(LastItem(), sets(*SETS), depth=4).num_queries == 3
    assert rank_targets(LastItem(), dataset(*HISTORIES), depth=4).num_queries == len(
        rank_targets(LastItem(), dataset(*HISTORIES), depth=4).ranks
    )


def test_sets_unmasked():
    assert rank_targets(LastItem(), sets(([1], [1, 2])), history="unmasked", depth=4).ranks.tolist() == [0, 1]


def test_batches_and_shards_of_sets_change_nothing():
    whole = rank_targets(LastItem(), sets(*SETS), depth=4)
    single = rank_targets(LastItem(), sets(*SETS), depth=4, batch_size=1)
    assert whole.ranks.tolist() == single.ranks.tolist() and whole.set_sizes.tolist() == single.set_sizes.tolist()
    shards = [rank_targets(LastItem(), sets(*SETS), depth=4, shard=(index, 2)) for index in range(2)]
    assert metrics_of(shards[0].histogram() + shards[1].histogram(), (1, 3)) == whole.metrics((1, 3))
    assert rank_targets(LastItem(), sets(*SETS), depth=4, shard=(7, 8)).histogram().tolist() == [[0] * 5] * 4


def test_sets_of_one_are_asked_like_positions():
    alone = rank_targets(LastItem(), sets(([1], [3]), ([1, 2], [3]), ([1, 2], [5])), depth=5)
    asked = rank_targets(LastItem(), dataset(*HISTORIES), depth=5)
    assert alone.ranks.tolist() == asked.ranks.tolist()
    assert alone.metrics((2,))["ndcg@2"] == pytest.approx(asked.metrics((2,))["ndcg@2"])


def test_a_rank_beyond_the_depth_of_sets():
    ranks = rank_targets(LastItem(), sets(*SETS), depth=1)
    assert ranks.ranks.tolist() == [1, 0, 1, 1, 1, 1]
    with pytest.raises(ConfigError, match="only the first 1"):
        ranks.metrics((2,))


def test_a_bare_part_is_refused_with_what_to_write():
    split = tiny_split()
    with pytest.raises(DataError, match=r"these rows are a Dataset.*SequenceDataset\(split.train"):
        rank_targets(tiny_sasrec(split), split.test)
