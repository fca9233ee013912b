from __future__ import annotations

import pytest
import torch

from seqkd.errors import ConfigError, KnowledgeError
from seqkd.teaching.ranking_lists import RankingLists, RankingListsConfig

from ..methods.tiny_rankings import begin, of_others, rankings, set_split, unfiltered
from ..tiny import ITEMS, USERS


class Drawing(torch.nn.Module):
    """Passes the epoch on, as a method does."""

    def __init__(self, lists):
        super().__init__()
        self.lists = lists

    def on_epoch_begin(self, epoch):
        self.lists.draw(epoch, epoch.positives.of_queries)


def drawing(said=None, **config):
    settings = {"interesting": 4, "uninteresting": 3, "sampling": "position", **config}
    knowledge = {"one": said or rankings(set_split())}
    return Drawing(RankingLists(RankingListsConfig(**settings), knowledge, "query_topk", ITEMS))


def test_new_lists_in_every_epoch_and_the_same_for_the_same_epoch():
    split, method, again = set_split(), drawing(), drawing()
    ids = torch.arange(24)
    begin(method, split, 0)
    zero = method.lists.of("one", ids)
    begin(method, split, 1)
    one = method.lists.of("one", ids)
    assert not torch.equal(zero.interesting, one.interesting)
    assert not torch.equal(zero.uninteresting, one.uninteresting)
    begin(again, split, 1)  # as a run that is resumed there
    assert torch.equal(again.lists.of("one", ids).both, one.both)


def test_refresh_and_resuming_between_two_drawings():
    split, method, resumed = set_split(), drawing(refresh=3), drawing(refresh=3)
    begin(method, split, 3)
    drawn = method.lists.of("one", torch.arange(24)).both
    begin(method, split, 5)
    assert torch.equal(method.lists.of("one", torch.arange(24)).both, drawn)
    resumed.load_state_dict(method.state_dict())
    begin(resumed, split, 5)
    assert torch.equal(resumed.lists.of("one", torch.arange(24)).both, drawn)
    begin(method, split, 6)
    assert not torch.equal(method.lists.of("one", torch.arange(24)).both, drawn)


def test_top_is_the_head_of_the_list_and_the_rest_stands_outside():
    split, method = set_split(), drawing(sampling="top")
    begin(method, split)
    table = rankings(split).table("query_topk").long()
    lists = method.lists.of("one", torch.arange(24))
    assert torch.equal(lists.interesting, table[:, :4])
    for row, history in enumerate(split.train["item_ids"]):
        drawn = [item for item in lists.uninteresting[row].tolist() if item]
        assert len(set(drawn)) == 3 and not set(drawn) & {*history, *table[row].tolist()}


def test_list_length_cuts_what_is_read():
    method = drawing(sampling="top", interesting=2, list_length=2, uninteresting=20)
    begin(method, set_split())
    lists = method.lists.of("one", torch.arange(24))
    table = rankings(set_split()).table("query_topk").long()
    assert (lists.uninteresting[:, :, None] == table[:, None, 2:]).any()  # beyond the list, so uninteresting


def test_asked_before_an_epoch_begins():
    with pytest.raises(ConfigError, match="on_epoch_begin"):
        drawing().lists.of("one", torch.arange(2))


@pytest.mark.parametrize(
    "wrong", [{"sampling": "best"}, {"temperature": 0.0}, {"interesting": 0}, {"refresh": 0}, {"list_length": 39}]
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        RankingListsConfig(**wrong)


@pytest.mark.parametrize("rows", [USERS + 5, USERS - 5])
def test_teachers_of_other_queries_are_refused(rows):
    split = set_split()
    with pytest.raises(KnowledgeError, match=f"'one' answers {rows} queries, but the training part asks {USERS}"):
        begin(drawing(of_others(rankings(split), rows)), split)


def test_lists_of_what_users_have_are_refused():
    with pytest.raises(KnowledgeError, match=r"lists of 'one' hold what users have already.*filter_seen=True"):
        drawing(unfiltered(rankings(set_split())))


def test_the_release_of_ccd_puts_what_is_observed_first():
    split = set_split()
    plain, release = (
        drawing(sampling="top", interesting=12),
        drawing(sampling="top", interesting=12, observed_first=True),
    )
    begin(plain, split, 0)
    begin(release, split, 0)
    for query, row in enumerate(split.train):
        owned = sorted(set(row["item_ids"]))
        told = plain.lists.of("one", torch.tensor([query])).interesting[0].tolist()
        assert release.lists.of("one", torch.tensor([query])).interesting[0].tolist() == (owned + told)[:6]
