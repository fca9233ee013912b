from __future__ import annotations

import json
import math

import pytest
import torch

from seqkd.functional.knowledge_construction import advance, chosen, discrepancy, importance, merge
from seqkd.functional.votes import most_voted
from seqkd.knowledge.ensemble import consensus

WORDS = {"final_repo": True, "submission": False}  # release: does who falls behind move on?


def fixtures(golden) -> dict:
    return json.loads((golden / "hetcomp_dkc.json").read_text())["cases"][0]


def without(items: list[int], taken: list[int]) -> list[int]:
    """The golden ids count from 0, ours from 1."""
    return [item + 1 for item in items if item not in taken]


def student_lists(inputs: dict, call: int) -> torch.Tensor:
    train = inputs["train_items_per_user"]
    rows = enumerate(inputs["student_sorted_items_per_call"][call])
    return torch.tensor([without(row, train.get(str(user), []))[: inputs["k"]] for user, row in rows])


def slow_discrepancy(student: list[int], teacher: list[int], graded: bool = False) -> float:
    def gain(grade: int, place: int) -> float:
        return (2 ** math.exp(-grade / 10) - 1) / math.log2(place + 2)

    student = [item for item in student if item]
    teacher = [item for item in teacher if item]
    if not student or not teacher:
        return 0.0
    hits = [(place, teacher.index(item) if graded else place) for place, item in enumerate(student) if item in teacher]
    ideal = range(len(teacher) if graded else len(student))
    return 1 - round(sum(gain(grade, j) for j, grade in hits) / sum(gain(j, j) for j in ideal), 4)


@pytest.mark.parametrize("release", WORDS)
def test_golden_traces(golden, release):
    case = fixtures(golden)
    inputs, trace = case["inputs"], case["expected"]["trace"][release]
    teachers = [
        [(torch.tensor(moment) + 1).__getitem__ for moment in inputs["checkpoint_perms"][name]]
        for name in inputs["models"]
    ]
    selection = torch.zeros(len(teachers), 4, dtype=torch.int8)
    reference = torch.zeros(len(teachers), 4, dtype=torch.float64)
    for call, told in enumerate(trace):
        threshold = inputs["alpha"] * 0.995 ** (told["epoch"] // inputs["p"])
        assert threshold == pytest.approx(told["threshold"], rel=1e-12)
        student = student_lists(inputs, call)
        for at, checkpoints in enumerate(teachers):
            selection[at], reference[at] = advance(
                student,
                checkpoints,
                selection[at],
                reference[at] if call else None,
                threshold=threshold,
                behind=WORDS[release],
            )
        assert selection.tolist() == told["selection_model_by_user"]
        torch.testing.assert_close(
            reference, torch.tensor(told["reference_discrepancy"], dtype=torch.float64), rtol=1e-9, atol=1e-11
        )


def test_golden_ndcg(golden):
    case = fixtures(golden)
    inputs = case["inputs"]
    student = student_lists(inputs, -1)
    moments = torch.tensor(inputs["checkpoint_perms"]["MF"])[:, :, : inputs["k"]] + 1
    ndcg = torch.stack([1 - discrepancy(student, moment) for moment in moments], dim=1)
    expected = torch.tensor(case["expected"]["ndcg_last_student_vs_MF_checkpoints"], dtype=torch.float64)
    torch.testing.assert_close(ndcg, expected, rtol=1e-9, atol=1e-11)


def test_golden_merge(golden):
    """There, importance is a dense table; here, each teacher's list holds all items that are not in training."""
    case = fixtures(golden)
    inputs = case["inputs"]
    items, weights = [], []
    for user, choice in enumerate(inputs["merge_selection_user_by_model"]):
        listed = torch.tensor(without(range(90), inputs["train_items_per_user"].get(str(user), [])))
        tables = [inputs["merge_importance"][name][v][user] for name, v in zip(inputs["models"], choice, strict=True)]
        said = [torch.tensor(table, dtype=torch.float64)[listed - 1] for table in tables]
        items.append(torch.cat([listed] * len(said)))
        weights.append(torch.cat(said))
    merged = [most_voted(i[None], w[None], 10)[0][0].tolist() for i, w in zip(items, weights, strict=True)]
    assert [[item - 1 for item in row] for row in merged] == case["expected"]["merge_top10_items"]


@pytest.mark.parametrize("graded", [False, True])
def test_discrepancies_match_a_slow_loop(graded):
    torch.manual_seed(0)
    student = torch.stack([torch.randperm(12)[:8] + 1 for _ in range(6)])
    teacher = torch.stack([torch.randperm(12)[:6] + 1 for _ in range(6)])
    student[1, 5:], teacher[2, 3:] = 0, 0
    student[3], teacher[4] = 0, 0
    teacher[5] = student[5, :6]
    expected = [slow_discrepancy(a, b, graded) for a, b in zip(student.tolist(), teacher.tolist(), strict=True)]
    ours = discrepancy(student, teacher, graded=graded)
    assert ours.tolist() == pytest.approx(expected, abs=1e-9)
    assert ours[3] == ours[4] == 0 and ours[0] > 0 and (ours[5] == 0) == graded


def lists(*rows):
    return torch.tensor(rows).__getitem__


def test_who_comes_closer_moves_on_and_nobody_beyond_the_last():
    student = torch.tensor([[1, 2, 3]]).expand(5, -1)
    start, near, same = [7, 8, 9], [9, 2, 3], [1, 2, 3]
    moments = [lists(*[start] * 5), lists(near, same, near, near, start), lists(*[start] * 5)]
    selection = torch.tensor([0, 0, 0, 2, 0], dtype=torch.int8)
    d = slow_discrepancy([1, 2, 3], near)
    reference = torch.tensor([d * 1.06, 0.0, d * 0.99, d * 1.06, 1.0], dtype=torch.float64)
    chose, refers = advance(student, moments, selection, reference, threshold=1.05, behind=False)
    # closer by 6 %; nothing left (0 / 0, too); behind; at the last already; as far as ever
    assert chose.tolist() == [1, 1, 0, 2, 0] and chose.dtype == torch.int8
    assert refers.tolist() == [1, 1, pytest.approx(d * 0.99), pytest.approx(d * 1.06), 1]
    chose, _ = advance(student, moments, selection, reference, threshold=1.05, behind=True)
    assert chose.tolist() == [1, 1, 1, 2, 0]
    chose, first = advance(student[:3], moments, selection[:3], None, threshold=1.05, behind=True)
    assert chose.tolist() == [0, 0, 0] and first.tolist()[:2] == [pytest.approx(d), 0]


def test_lists_of_the_chosen_moments():
    moments = [lists([1, 2, 3], [4, 5, 6], [7, 8, 9]), lists([11], [12], [13])]
    assert chosen(moments, torch.tensor([1, 0, 1])).tolist() == [[11, 0, 0], [4, 5, 6], [13, 0, 0]]
    assert chosen(moments, torch.tensor([1, 0]), start=1, places=2).tolist() == [[12, 0], [7, 8]]


def test_merging_adds_importance_over_the_union():
    """Query 0: items 1 and 3 stand first and second of one teacher, second and first of the other: a tie."""
    teachers = [[lists([1, 3, 2], [5, 6, 0]), lists([9, 9, 9], [8, 7, 6])], [lists([3, 1, 4], [0, 0, 0])]]
    selection = torch.tensor([[0, 1], [0, 0]])
    assert merge(teachers, selection, 3).tolist() == [[1, 3, 2], [8, 7, 6]]
    assert merge(teachers, selection, 5).tolist() == [[1, 3, 2, 4, 0], [8, 7, 6, 0, 0]]
    assert merge(teachers, selection, 7).shape == (2, 7)
    torch.testing.assert_close(importance(3, 10.0), torch.tensor([1, math.exp(-0.1), math.exp(-0.2)]))


def test_by_the_power_law_who_is_not_listed_stands_behind_the_last():
    """Items 2 at places 3, 2, 2 of lists of 4, items 5, 7, 8 once first, 9 always last, 1 at places 2 and 3."""
    told = importance(4, 10.0, "power").tolist()
    assert told == pytest.approx(
        [1 - 5**-0.05, 2**-0.05 - 5**-0.05, 3**-0.05 - 5**-0.05, 4**-0.05 - 5**-0.05], abs=1e-6
    )
    totals = {2: told[2] + 2 * told[1], 5: told[0], 1: told[1] + told[2], 9: 3 * told[3]}
    assert sorted(totals, key=totals.get) == [9, 1, 5, 2]
    lists = [torch.tensor([[7, 1, 2, 9]]), torch.tensor([[5, 2, 1, 9]]), torch.tensor([[8, 2, 6, 9]])]
    moments, first = [[one.__getitem__] for one in lists], torch.zeros(3, 1, dtype=torch.int8)
    assert merge(moments, first, 6, law="power")[0].tolist() == [2, 5, 7, 8, 1, 9]
    assert merge(moments, first, 3)[0].tolist() == [2, 9, 1]


def test_the_power_law_is_that_of_rank_consensus():
    draw = torch.Generator().manual_seed(3)
    lists = [torch.rand(6, 14, generator=draw).argsort(dim=1)[:, :12] + 1 for _ in range(4)]
    agreed, _ = consensus(lists, torch.ones(4), importance="power", k=5)
    merged = merge([[one.__getitem__] for one in lists], torch.zeros(4, 6, dtype=torch.int8), 5, law="power")
    assert merged.tolist() == agreed.tolist()


def test_consensus_matches_a_slow_loop():
    torch.manual_seed(0)
    items = torch.randint(0, 15, (30, 24))
    weights = torch.rand(30, 24)
    ranked = most_voted(items, weights, 10)[0]
    for row, said, ours in zip(items.tolist(), weights.tolist(), ranked.tolist(), strict=True):
        total: dict[int, float] = {}
        for item, weight in zip(row, said, strict=True):
            total[item] = total.get(item, 0) + weight * (item > 0)
        ranked = sorted((item for item in total if item), key=lambda item: -total[item])
        assert ours == (ranked + [0] * 10)[:10]
