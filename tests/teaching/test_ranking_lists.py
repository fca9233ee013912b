from __future__ import annotations

import json

import datasets
import pytest
import torch

from seqkd.batches.collators import SequenceDataset
from seqkd.batches.positives import Positives
from seqkd.catalogue import Catalogue
from seqkd.errors import ConfigError, KnowledgeError
from seqkd.knowledge import Knowledge
from seqkd.knowledge.store.source import Source
from seqkd.method import Epoch
from seqkd.methods.ir_rrd import who_have
from seqkd.teaching.ranking_lists import RankingLists, RankingListsConfig

from ..methods.tiny_rankings import begin, of_others, rankings, set_split, unfiltered
from ..tiny import ITEMS, USERS, nobody


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


@pytest.fixture(scope="module")
def ccd(golden):
    """Lists of CCD's release, ids from 0; and ours of the same scores, what is had left out."""
    case = json.loads((golden / "ccd_rrd_lists.json").read_text())
    scores = torch.tensor(case["teacher_scores"])
    users, items = scores.shape
    had = [sorted(item + 1 for item in case["train"][str(user)]) for user in range(users)]
    features = set_split().train.features
    names, lengths = [f"u{user}" for user in range(users)], [*map(len, had)]
    columns = {"user_id": names, "item_ids": had, "first_target": lengths, "query_start": [*range(users)]}
    avoid = [(user + 1, item + 1) for user, row in enumerate(case["negative_exclude"]) for item in row]
    rows = datasets.Dataset.from_dict(columns, features=features)
    positives = Positives(SequenceDataset(rows, items, Catalogue(names), torch.tensor(avoid).T))
    for user, owned in enumerate(had):
        scores[user, torch.tensor(owned, dtype=torch.int64) - 1] = -torch.inf
    size = len(case["interesting_items"][0])
    fans = scores.T.topk(size, dim=1)
    tables = {
        "query_topk": (scores.topk(size, dim=1).indices + 1).int(),
        "query_scores": scores.topk(size, dim=1).values,
        "item_topk": torch.cat([torch.zeros(1, size), fans.indices + 1]).int(),
    }
    catalogue = Catalogue([f"i{item}" for item in range(items)])
    said = Knowledge.from_tables(tables, source=Source("t", "r", "s", "train"), catalogue=catalogue)
    return case, said, positives


def drawn(said, positives, table, entities, uninteresting, **config):
    size = said.tables["query_topk"].shape[1]
    settings = RankingListsConfig(interesting=size, uninteresting=uninteresting, list_length=size, **config)
    lists = RankingLists(settings, {"t": said}, table, entities)
    taken = positives.of_queries if table == "query_topk" else lambda items, users: who_have(positives, items, users)
    lists.draw(Epoch(0, 1, torch.Generator().manual_seed(0), positives, nobody), taken)
    return lists.of("t", torch.arange(len(said.tables[table])))


@pytest.mark.parametrize("side", ["items", "users"])
def test_golden_ccd_what_is_had_comes_first_there_and_not_at_all_here(ccd, side):
    """NaN stands for what is had and sorts first (spec ccd 4): the release's lists are ours only behind it."""
    case, said, positives = ccd
    table, entities = {"items": ("query_topk", 60), "users": ("item_topk", 50)}[side]
    ours = drawn(said, positives, table, entities, 1).interesting
    release = drawn(said, positives, table, entities, 1, observed_first=True).interesting
    owned = {int(user): set(items) for user, items in case["train"].items()}
    scores = torch.tensor(case["teacher_scores"])
    if side == "users":
        scores = scores.T
        ours, release = ours[1:], release[1:]  # of no padding
        owned = {item: {user for user, items in owned.items() if item in items} for item in range(60)}
    for row, expected in enumerate(case[f"interesting_{side}"]):
        count = len(owned[row])
        mine, its = ([entity - 1 for entity in lists[row].tolist()] for lists in (ours, release))
        assert set(expected[:count]) == owned[row] == set(its[:count])
        ranked = [mine[: len(expected) - count], expected[count:], its[count:]]
        by_score = [scores[row, torch.tensor(listed)] for listed in ranked]  # a few are equal, in any order
        assert torch.equal(by_score[0], by_score[1]) and torch.equal(by_score[2], by_score[1])
        assert not set(mine) & owned[row]


def test_golden_ccd_uninteresting_items_are_drawn_from_more_here(ccd):
    """As many as there are: all but what is had, avoided or listed. The release also leaves out users who are listed
    for the item, and where nothing is left draws what has no weight; ours leaves the place empty.
    """
    case, said, positives = ccd
    rest = drawn(said, positives, "query_topk", 60, 60, observed_first=True).uninteresting
    for user, weights in enumerate(case["uninteresting_weight_rows"]):
        ours = {item - 1 for item in rest[user].tolist() if item}
        listed = {item for item in range(60) if user in case["interesting_users"][item]}
        assert ours - listed == {item for item, weight in enumerate(weights) if weight}
    assert (rest == 0).any()
    over = case["multinomial_over_ask"]
    assert 0.0 in [over["weights"][0][place] for place in over["result_torch_2.13.0+cpu_cpu_seed0"][0]]
