from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from seqkd.batches.positives import Positives
from seqkd.errors import ConfigError, KnowledgeError
from seqkd.method import Epoch
from seqkd.teaching.guided_lists import GuidedLists

from ..methods.tiny_rankings import dataset, of_others, rankings, set_split, unfiltered
from ..tiny import ITEMS, USERS, nobody

SPLIT = set_split()
POSITIVES = Positives(dataset(SPLIT))


class Drawn(NamedTuple):
    student: Tensor
    teacher: Tensor
    score: Tensor


def rule(ranked, generator):
    """A place of both rankings at random, and the teacher's score of it."""
    place = torch.randint(0, 4, (len(ranked.teacher), 1), generator=generator)
    return Drawn(ranked.student.gather(1, place), ranked.teacher.gather(1, place), ranked.scores.gather(1, place))


class Student:
    """Ranks otherwise whenever it is asked."""

    asked = 0

    def topk(self, k: int) -> Tensor:
        self.asked += 1
        return (torch.arange(USERS)[:, None] + torch.arange(k) + self.asked).int() % ITEMS + 1


def lists_of(refresh: int = 1, length: int = 4) -> GuidedLists:
    return GuidedLists({"a": rankings(SPLIT, 0), "b": rankings(SPLIT, 1)}, ITEMS, length, refresh)


def draw(lists: GuidedLists, student_topk, number: int) -> dict[str, list[Tensor]]:
    lists.draw(Epoch(number, 10, torch.Generator().manual_seed(number), POSITIVES, student_topk), rule)
    return {teacher: list(lists.of(teacher, torch.arange(USERS))) for teacher in ("a", "b")}


def same(one, other) -> bool:
    return all(torch.equal(x, y) for teacher in one for x, y in zip(one[teacher], other[teacher], strict=True))


def test_lists_are_drawn_from_both_rankings_row_by_row():
    drawn, student = draw(lists_of(), Student().topk, 0), Student()
    ranking, place = student.topk(4), torch.Generator().manual_seed(0)
    for teacher, seed in (("a", 0), ("b", 1)):
        places = torch.randint(0, 4, (USERS, 1), generator=place)
        said = rankings(SPLIT, seed)
        expected = [ranking, said.table("query_topk"), said.table("query_scores")]
        assert all(torch.equal(x, y.gather(1, places)) for x, y in zip(drawn[teacher], expected, strict=True))
    lists = lists_of()
    draw(lists, student.topk, 0)
    some = lists.of("b", torch.tensor([7, 3, 7]))
    assert all(torch.equal(x, y[[7, 3, 7]]) for x, y in zip(some, lists.drawn["b"], strict=True))


def test_the_student_is_asked_once_a_period_and_lists_are_drawn_in_every_epoch():
    student, lists = Student(), lists_of(refresh=2)
    drawn = [draw(lists, student.topk, number) for number in range(4)]
    assert student.asked == 2
    assert not same(drawn[0], drawn[1]) and not same(drawn[1], drawn[2])


@pytest.mark.parametrize("number", [2, 3])
def test_a_resumed_run_asks_no_later_student(number):
    """From a checkpoint of epoch 2 or 3, both in one period."""
    student, lists = Student(), lists_of(refresh=2)
    drawn = [draw(lists, student.topk, epoch) for epoch in range(number + 1)][-1]
    resumed = lists_of(refresh=2)
    resumed.load_state_dict(lists.state_dict())
    assert same(draw(resumed, nobody, number), drawn)


def test_a_student_is_not_asked_for_no_places():
    lists = lists_of(length=0)
    lists.draw(Epoch(0, 10, torch.Generator(), POSITIVES, nobody), lambda ranked, _: (ranked.student, ranked.teacher))
    student, teacher = lists.of("b", torch.arange(USERS))
    assert student.shape == (USERS, 0) and torch.equal(teacher, rankings(SPLIT, 1).table("query_topk"))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="on_epoch_begin"):
        lists_of().of("a", torch.tensor([0]))
    for length in (4, 0):  # the student need not be asked for it to be noticed
        lists = GuidedLists({"a": of_others(rankings(SPLIT), USERS + 5)}, ITEMS, length, 1)
        with pytest.raises(KnowledgeError, match=f"'a' answers {USERS + 5} queries, but .* asks {USERS}"):
            draw(lists, Student().topk, 0)
    with pytest.raises(KnowledgeError, match=r"lists of 'a' hold what users have already.*filter_seen=True"):
        GuidedLists({"a": unfiltered(rankings(SPLIT))}, ITEMS, 4, 1)
    with pytest.raises(KnowledgeError, match="'few': 5"):
        GuidedLists({"a": rankings(SPLIT), "few": of_others(rankings(SPLIT), 5)}, ITEMS, 4, 1)
