"""Which moment of each teacher's training a query learns from, and the consensus of the moments chosen.

The dynamic knowledge construction of HetComp (WWW'23, section 4.2): a teacher's next checkpoint is due when the student
has come close enough to it. All users at once, and only on lists: nothing here is queries x items.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..catalogue import PADDING
from .votes import most_voted

ROWS = 2**12  # lists compared or merged at a time
NOTHING = 1e-12  # a discrepancy that is none
DECIMALS = 4  # to which the authors round NDCG
Lists = Callable[[Tensor], Tensor]  # ids (n,) to a checkpoint's lists (n, M), best first, 0 is an empty place


def importance(length: int, scale: float, law: str = "exponential") -> Tensor:
    """Importance of each rank r of a list, from 0, best first, `(length,)`.

    Args:
        law: `exponential`, `exp(-r / scale)`; or `power`, `(1 / (r + 1))^0.05` (CCD, KDD'24), less what the first rank
            behind the list has: as if items that are not listed stood there.
    """
    if law == "power":
        told = torch.arange(1, length + 2).pow(-0.05)
        return told[:-1] - told[-1]
    return torch.exp(-torch.arange(length) / scale)


def discrepancy(student: Tensor, teacher: Tensor, *, scale: float = 10.0, graded: bool = False) -> Tensor:
    """How far the student is from a teacher, 1 - NDCG, `(n,)` float64; 0 where one of them says nothing.

    An item of the teacher's list that the student has at place j gains `(2^exp(-j / scale) - 1) / log2(j + 2)`: in both
    releases the student's place grades it, too. `graded` is the standard NDCG, in which the teacher's place does.

    Args:
        student: `(n, L)`, best first; 0 is an empty place. teacher: `(n, M)`.
    """
    size = max(student.shape[1], teacher.shape[1])
    places = torch.arange(size, dtype=torch.float64)
    grades, discounts = torch.exp2(torch.exp(-places / scale)) - 1, 1 / torch.log2(places + 2)
    gains = grades * discounts
    out = torch.empty(len(student), dtype=torch.float64)
    for rows in torch.arange(len(student)).split(ROWS):
        ours, theirs = student[rows], teacher[rows]
        match = (ours[:, :, None] == theirs[:, None, :]) & (ours != PADDING)[:, :, None]  # (n, L, M)
        hits = match.any(dim=2)
        if graded:
            place = match.to(torch.uint8).argmax(dim=2)  # in the teacher's list
            dcg = (hits * grades[place]) @ discounts[: ours.shape[1]]
            best = (theirs != PADDING)[:, : ours.shape[1]].double()
            ideal = best @ gains[: best.shape[1]]
        else:
            dcg = hits.double() @ gains[: ours.shape[1]]
            ideal = (ours != PADDING).double() @ gains[: ours.shape[1]]
        silent = (ours == PADDING).all(dim=1) | (theirs == PADDING).all(dim=1)
        out[rows] = (1 - (dcg / ideal).round(decimals=DECIMALS)).masked_fill(silent, 0.0)
    return out


def chosen(checkpoints: Sequence[Lists], choice: Tensor, *, start: int = 0, places: int | None = None) -> Tensor:
    """The list of each query, `(n, M)`, from the checkpoint that `choice (n,)` names; M of the longest, 0 fills up.

    Args:
        start: id of the first query; the others follow.
        places: read no more of a list.
    """
    rows = [(choice == number).nonzero().squeeze(1) for number in range(len(checkpoints))]
    read = [lists(at + start)[:, :places] for lists, at in zip(checkpoints, rows, strict=True)]
    out = torch.zeros(len(choice), max(part.shape[1] for part in read), dtype=torch.int32)
    for at, part in zip(rows, read, strict=True):
        out[at, : part.shape[1]] = part.int()
    return out


def advance(
    student: Tensor,
    checkpoints: Sequence[Lists],
    selection: Tensor,
    reference: Tensor | None,
    *,
    threshold: float,
    behind: bool,
    scale: float = 10.0,
    graded: bool = False,
) -> tuple[Tensor, Tensor]:
    """One update of one teacher: `selection (N,)` and `reference (N,)` float64 anew, both on the CPU.

    A query moves on when its discrepancy to the next checkpoint, d, has fallen so far below what it was when the query
    arrived where it is: `reference / d > threshold`. So does one that has nothing left to learn there: `d <= 1e-12`.

    Args:
        student: `(N, L)`, its best unobserved items.
        checkpoints: in the order of training, the converged model last. What is read of each is L places.
        selection: checkpoint of every query, from 0. reference: None in the first update, which only sets it.
        behind: also move on when the discrepancy has grown, `reference / d < 1` (the final release).
    """
    last = len(checkpoints) - 1

    def ahead(selection: Tensor) -> Tensor:
        following = chosen(checkpoints, (selection + 1).clamp(max=last), places=student.shape[1])
        return discrepancy(student, following, scale=scale, graded=graded)

    now = ahead(selection)
    if reference is None:
        return selection, now
    moves = (now <= NOTHING) | (reference / now > threshold)
    if behind:
        moves |= reference / now < 1
    moves &= selection < last
    selection = selection + moves.to(selection.dtype)
    return selection, torch.where(moves, ahead(selection), reference)


def merge(
    teachers: Sequence[Sequence[Lists]], selection: Tensor, k: int, *, scale: float = 10.0, law: str = "exponential"
) -> Tensor:
    """The consensus of the checkpoints that every query learns from, `(N, k)` int32, best first, 0 fills up.

    Args:
        teachers: the checkpoints of each.
        selection: `(T, N)`, one of them for every teacher and query.
        scale, law: see `importance`.
    """
    merged = torch.zeros(selection.shape[1], k, dtype=torch.int32)
    for rows in torch.arange(len(merged)).split(ROWS):
        choices = zip(teachers, selection[:, rows], strict=True)
        lists = [chosen(checkpoints, choice, start=int(rows[0])) for checkpoints, choice in choices]
        weights = torch.cat([importance(part.shape[1], scale, law) for part in lists])
        merged[rows] = most_voted(torch.cat(lists, dim=1), weights, k)[0]
    return merged
