from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from seqkd.batches.positives import Positives
from seqkd.errors import ConfigError, KnowledgeError
from seqkd.knowledge import Knowledge
from seqkd.method import Epoch
from seqkd.teaching.constructed_lists import ConstructedLists, ConstructedListsConfig

from ..methods.tiny_rankings import dataset, of_others
from ..methods.tiny_trajectories import SPLIT, trajectories
from ..tiny import USERS, nobody

SMALL = {"top": 4, "observed": 2, "depth": 4, "interval": 1}


def lists_of(knowledge=None, **config) -> ConstructedLists:
    return ConstructedLists(ConstructedListsConfig(**{**SMALL, **config}), knowledge or trajectories())


def begin(lists: ConstructedLists, number: int = 0, student_topk=nobody) -> ConstructedLists:
    lists.begin(Epoch(number, 10, torch.Generator(), Positives(dataset(SPLIT)), student_topk))
    return lists


def test_updates_at_their_time_and_no_more_when_all_have_arrived():
    knowledge = trajectories()
    lists = lists_of(knowledge, interval=2, release="submission")
    asked = []

    def teacher_itself(k):  # the student ranks as the converged first teacher
        asked.append(k)
        return knowledge["t0@2"].table("query_topk")[:, :k]

    start = begin(lists, 0).top.clone()
    begin(lists, 1)
    assert asked == [] and not lists.selection.any() and start.all()
    begin(lists, 2, teacher_itself)
    begin(lists, 2, teacher_itself)  # a resumed run begins it again
    begin(lists, 3)
    assert asked == [4] and not lists.selection.any() and lists.reference.all() and int(lists.updated) == 2
    assert torch.equal(lists.top, start)
    number = 4
    while not begin(lists, number, teacher_itself).arrived:
        number += 2
        assert number < 200
    assert not torch.equal(lists.top, start) and (lists.selection == 2).all()
    many = len(asked)
    begin(lists, number + 2, teacher_itself)
    assert len(asked) == many
    assert torch.equal(lists.progress(torch.tensor([0, 5])), torch.ones(2))


def test_the_lists_follow_from_the_saved_state():
    lists, draw = begin(lists_of()), torch.Generator().manual_seed(0)
    for number in range(1, 4):
        begin(lists, number, lambda k: torch.rand(USERS, 20, generator=draw).argsort(dim=1)[:, :k].int() + 1)
    assert lists.selection.unique().tolist() == [0, 1, 2]
    assert set(lists.state_dict()) == {"selection", "reference", "updated"}
    resumed = begin(lists_of())
    assert not torch.equal(resumed.top, lists.top)
    resumed.load_state_dict(lists.state_dict())
    assert torch.equal(begin(resumed, 3).top, lists.top)  # asks no student: the epoch is marked


def test_one_in_two_hundred_may_lag():
    lists = begin(lists_of())
    lists.selection = torch.full((2, 2400), 2, dtype=torch.int8)
    lists.selection[1, :12] = 1
    assert lists.arrived and lists.progress(torch.tensor([0, 99])).tolist() == [0.75, 1]
    lists.selection[1, :13] = 1
    assert not lists.arrived


def test_kind_errors():
    said = trajectories(1)
    with pytest.raises(KnowledgeError, match=r"'t0' has the checkpoints \[0, 2\].*without gaps"):
        lists_of({name: said[name] for name in ("t0@0", "t0@2")})
    with pytest.raises(KnowledgeError, match=r"'t0' has the checkpoints \[0\].*two at least"):
        lists_of({"t0@0": said["t0@0"]})
    for name in ("gnn", "gnn@last", "@0"):
        with pytest.raises(KnowledgeError, match=f"'{name}' names no checkpoint.*curriculum=False"):
            lists_of({name: said["t0@0"], **said})
    tables = {name: said["t0@2"].table(name)[:5] for name in said["t0@2"].tables}
    short = Knowledge.from_tables(tables, source=said["t0@2"].source, catalogue=SPLIT.catalogue)
    with pytest.raises(KnowledgeError, match=r"the same queries, but their rows are .*'t0@2': 5"):
        lists_of({**said, "t0@2": short})
    seen = Knowledge(replace(said["t0@0"].source, options={"filter_seen": False}), SPLIT.catalogue, said["t0@0"].tables)
    with pytest.raises(KnowledgeError, match=r"'t0@0' hold what users have already.*filter_seen=True"):
        lists_of({**said, "t0@0": seen})


def test_teachers_of_another_split_are_refused():
    """Of as many users, as a split by another seed is; each is taken for his neighbour."""
    others = {}
    for name, said in trajectories().items():
        tables = {table: said.table(table).roll(1, dims=0) for table in said.tables}
        others[name] = Knowledge.from_tables(tables, source=said.source, catalogue=said.catalogue)
    with pytest.raises(KnowledgeError, match=r"the user of query 0 has item \d+, who has not"):
        begin(lists_of(others))


@pytest.mark.parametrize("curriculum", [True, False])
def test_teachers_of_other_queries_are_refused_before_anything_is_taught(curriculum):
    more = {name: of_others(said, USERS + 5) for name, said in trajectories().items()}
    with pytest.raises(KnowledgeError, match=f"'t0@0' answers {USERS + 5} queries, but the training part asks {USERS}"):
        begin(lists_of(more, curriculum=curriculum), 0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"top": 0},
        {"depth": 0},
        {"alpha": 0.0},
        {"release": "first"},
        {"consensus": "linear"},
        {"importance": 0.0},
        {"interval": 0},
    ],
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        ConstructedListsConfig(**wrong)
