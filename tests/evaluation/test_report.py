"""The table says under which protocol and on which data its numbers were measured; gains computed by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from seqkd.data.columns import PROTOCOLS
from seqkd.errors import DataError
from seqkd.evaluation.report import protocol_title, relative_gain, setting, table
from seqkd.evaluation.results import Result, summarise


def result(model, role, value, seed=0, **change):
    metrics = {"recall@10": value, "ndcg@10": value / 2, "recall@50": value, "ndcg@50": value}
    base = Result(
        model,
        role,
        "Scientific",
        "Amazon Reviews 2018",
        seed,
        "test",
        "loo",
        "masked",
        metrics,
        90,
        100,
        1128,
        2.1249,
        0.0812,
    )
    return replace(base, **change)


RESULTS = [
    result("CKD", "distilled", 0.11, 0),
    result("CKD", "distilled", 0.24, 1),
    result("alone", "student", 0.10, 0),
    result("alone", "student", 0.16, 1),
    result("UniSRec", "teacher", 0.2, parameters=9_900_000),
]


def test_table():
    text = table(RESULTS)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    assert rows[0][:5] == ["domain", "model", "role", "Recall@10", "NDCG@10"] and rows[0][-3:] == [
        "parameters",
        "MB",
        "ms / user",
    ]
    assert [row[1] for row in rows[2:]] == ["UniSRec", "alone", "CKD"]
    assert rows[2][3:5] == ["0.2000", "0.1000"] and rows[2][7] == "9,900,000"
    assert rows[3][3] == "0.1300 ± 0.0424"  # deviations of .03 each: sqrt(2 * .0009 / 1)
    assert rows[4][3] == "0.1750 ± 0.0919" and rows[4][-3:] == ["1,128", "2.12", "0.0812"]
    # per seed 1.1 - 1 = .1 and 1.5 - 1 = .5: mean .3, deviation .2 * sqrt(2) = .2828
    assert "CKD against alone on Scientific: Recall@10 +30.0 ± 28.3 %, NDCG@10 +30.0 ± 28.3 %" in text
    for words in (
        "test split, leave-one-out",
        "full catalogue",
        "history masked",
        "Scientific: Amazon Reviews 2018; 90 users, 100 queries",
        "over 1 to 2 seeds",
        "batch of 256, top 10, 1 CPU thread",
    ):
        assert words in text


def test_how_teachers_were_weighed_is_said_once():
    def weighed(share):
        names = ("confidence", "consistency", "weight", "leads")
        return {"uni|srec": dict.fromkeys(names, share), "recformer": dict.fromkeys(names, 1 - share)}

    taught = [replace(r, teacher_weights=weighed(0.2 + 0.4 * r.seed)) for r in RESULTS[:2]]  # .2 and .6
    text = table([*taught, *RESULTS[2:], *(replace(r, history="unmasked") for r in taught)])
    assert text.count("How the teachers were weighed") == 1 and text.count("| recformer |") == 1
    rows = text.split("weighed")[1].splitlines()[4:6]
    assert rows[0].count("0.400 ± 0.283") == 4 and r"uni\|srec" in rows[0]  # deviations of .2 each: .2 * sqrt(2)
    assert rows[1].count("0.600 ± 0.283") == 4
    assert "weighed" not in table(RESULTS)


def test_every_protocol_has_a_table_of_its_own():
    text = table(
        [*RESULTS, *(replace(r, history="unmasked") for r in RESULTS), replace(RESULTS[0], protocol="temporal")]
    )
    assert text.count("| domain") == 3
    assert "history not masked" in text and "global temporal split" in text and "One seed, so the spread" in text


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_has_words_and_a_title(protocol):
    one = replace(RESULTS[0], protocol=protocol, num_queries=90)
    assert f"test split, {protocol_title(one)}" in setting(one)
    assert "(" not in protocol_title(one) and protocol_title(one) != protocol


def test_sets_are_named_as_such():
    text = table([replace(one, protocol="ratio", num_queries=one.num_users) for one in RESULTS])
    for words in (
        "test split, random 60/20/20 of each user, as sets",
        "means over users",
        "full catalogue",
        "history masked",
        "90 users, 90 queries",
    ):
        assert words in text
    unmasked = setting(replace(RESULTS[0], protocol="ratio", num_queries=90, history="unmasked"))
    assert "as sets" in unmasked and "history not masked" in unmasked


def test_synthetic_data_is_called_synthetic_in_every_row():
    text = table([replace(r, domain="books", data="embedded market, synthetic, seed 0") for r in RESULTS])
    assert all("books (synthetic)" in line for line in text.splitlines() if line.startswith("| books"))
    assert "on books (synthetic)" in text and "books (synthetic): embedded market, synthetic" in text
    already = table([replace(r, domain="synthetic books", data="synthetic") for r in RESULTS])
    assert "(synthetic)" not in already


def test_gain_without_shared_seeds_is_that_of_the_means():
    taught, alone = summarise([result("CKD", "distilled", 0.12, 7), result("alone", "student", 0.1, 0)])
    assert relative_gain(taught, alone, "recall@10") == pytest.approx((0.2, 0.0, 1))
    assert relative_gain(taught, alone, "mrr@10") is None


def test_gain_over_a_student_that_found_nothing_is_not_known():
    taught, alone = summarise([result("CKD", "distilled", 0.12), result("alone", "student", 0.0)])
    assert relative_gain(taught, alone, "recall@10") is None
    assert "on Scientific: not known" in table([result("CKD", "distilled", 0.1), result("alone", "student", 0.0)])


def test_mean_over_domains():
    office = [result("CKD", "distilled", 0.15, domain="Office"), result("alone", "student", 0.10, domain="Office")]
    here = [result("CKD", "distilled", 0.11), result("alone", "student", 0.10)]
    assert "CKD against alone, mean of 2 domains: Recall@10 +30.0 %" in table([*here, *office])


def test_missing_cutoffs_and_nothing():
    assert " - |" in table(RESULTS, ks=(10, 20))
    with pytest.raises(DataError, match="no results"):
        table([])


def test_names_cannot_break_the_table():
    text = table([replace(RESULTS[0], model="a|b\n| c")])
    assert r"a\|b \| c" in text and text.count("\n|") == 3
