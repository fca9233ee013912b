"""CCD beside its baselines: which blocks, which runs, and one report."""

from __future__ import annotations

import dataclasses
import json

import pytest

from seqkd.continual import baselines
from seqkd.continual import experiment as module
from seqkd.continual.experiment import Contest, StreamExperiment, read_stream, report_of
from seqkd.data.stream_ccd import read_ccd
from seqkd.data.stream_cut import cut_stream
from seqkd.errors import ConfigError, DataError

from .small import FIT, config, market, stream


def small(folder, **changes):
    settings = {"run": config(), "baselines": ["frozen"], "output_dir": str(folder)}
    return StreamExperiment(**{**settings, **changes})


def test_the_synthetic_log_is_cut_as_asked(monkeypatch):
    monkeypatch.setattr(module, "synthetic_market", lambda domains: {"shop": market()}["shop"])
    blocks = read_stream(StreamExperiment(cut={"blocks": 3}, run=config(blocks={"split": "random"})))
    assert [block.number for block in blocks] == [0, 1, 2, 3] and blocks[0].protocol == "stream-random-users"
    assert len(read_stream(StreamExperiment(cut={"blocks": 3, "base": 0.7}, blocks=2))) == 2
    sasrec = {"type": "sasrec"}
    run = config(student=sasrec, teachers={"wide": sasrec}, blocks={"queries": "positions", "max_length": 9})
    block = read_stream(StreamExperiment(run=run))[0]
    assert block.protocol == "stream-temporal-positions" and max(map(len, block.train["item_ids"])) == 10


def test_the_authors_streams_are_read_as_they_are(data):
    folder = data / "ccd_yelp"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    blocks = read_stream(StreamExperiment(data=str(folder), blocks=1))
    assert [len(blocks), len(blocks[0].users)] == [1, 12_248]
    assert blocks[0].fingerprint == read_ccd(folder)[0].fingerprint


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"baselines": ["fine-tuned"]}, r"no baselines \['fine-tuned'\]"),
        ({"teacher_baselines": ["frosen"]}, "frosen"),
        ({"seeds": []}, "seeds is empty"),
        ({"cut": {"block": 3}}, r"cut names \['block'\]"),
        ({"cut": {"split": "random"}}, r"cut names \['split'\].*stands in run\.blocks"),
    ],
)
def test_wrong_settings_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        StreamExperiment(**changes)


def test_several_domains_are_refused(monkeypatch):
    monkeypatch.setattr(module, "load_markets", lambda source: {"a": market(), "b": market()})
    with pytest.raises(ConfigError, match=r"holds the domains \['a', 'b'\]"):
        read_stream(StreamExperiment(data="somewhere"))


def test_a_contest_of_two_seeds_becomes_one_report(tmp_path):
    experiment = small(tmp_path, teacher_baselines=["frozen"], baselines=["frozen", "fine-tune, init"])
    contests, said = [], []
    for seed in (0, 1):
        contests.append(Contest(experiment, seed))
        said.append(list(contests[-1].run(stream()[:2])))
    assert said[0] == said[1] == [
        f"block {k}: {what}"
        for k in range(2)
        for what in ("teachers and student", "teacher lightgcn, frozen", "student, frozen", "student, fine-tune, init")
    ]  # fmt: skip
    assert list(contests[0].run(stream()[:2])) == [], "all is there"
    assert contests[1].evolution.config.seed == 1 and contests[0].evolution.folder == tmp_path / "seed-0" / "ccd"
    told = contests[0].matrices("recall@5")
    names = ["CCD student, at once", "CCD student, distilled", "CCD teacher lightgcn"]
    assert [*told] == [*names, "student, frozen", "student, fine-tune, init", "teacher lightgcn, frozen"]
    assert told["student, frozen"].rows[0] == told["CCD student, distilled"].rows[0]
    assert told["teacher lightgcn, frozen"].rows[0] == told["CCD teacher lightgcn"].rows[0]
    text = report_of(contests, tmp_path, "shop")
    assert (
        text.startswith("# mf taught by lightgcn on shop")
        and "over 2 seeds" in text
        and "## student, fine-tune, init: what it took" in text
    )
    rows = json.loads((tmp_path / "stream.json").read_text())["CCD student, at once"]
    assert [matrix["rows"] for matrix in rows] == [
        c.matrices("recall@5")["CCD student, at once"].rows for c in contests
    ]


def test_a_student_alone_is_trained_as_it_is_generated_without_methods(tmp_path):
    made = Contest(small(tmp_path, baselines=["retrain"]), 0).chains["student, retrain"]
    assert made.base.methods == {} == made.base.weights and made.base.training == FIT["training"]
    own = config().base
    made = Contest(small(tmp_path / "b", baselines=["retrain"], student_alone=own), 0).chains["student, retrain"]
    assert made.base is own


def test_a_folder_that_learned_another_stream_is_refused(tmp_path):
    """Else CCD would be of the old stream, and a baseline that is new of this one."""
    contest = Contest(small(tmp_path), 0)
    for block in stream()[:2]:  # as if it had learned them
        block.save(tmp_path / "seed-0" / "ccd" / str(block.number) / "block")
        (tmp_path / "seed-0" / "ccd" / str(block.number) / "measured").mkdir()
    assert next(contest.run(stream())) == "block 0: student, frozen"
    assert next(contest.run(stream()[:1])) == "block 0: student, frozen"
    other = dataclasses.replace(stream()[1], report={}, known_items=3)
    with pytest.raises(DataError, match=rf"{tmp_path / 'seed-0'} has learned another block 1 than this stream has"):
        next(contest.run([stream()[0], other]))
    shifted = cut_stream(market(), blocks=2, base=0.6, split="random", max_length=20)
    with pytest.raises(DataError, match="another block 0"):
        next(contest.run(shifted))


def test_a_student_alone_that_changes_is_refused_where_it_was_trained(tmp_path, monkeypatch):
    monkeypatch.setattr(baselines.Chain, "_learn", lambda self, blocks, folder: None)
    monkeypatch.setattr(baselines.Chain, "_measure", lambda self, blocks, folder: None)
    made = Contest(small(tmp_path, baselines=["retrain", "fine-tune"]), 0)
    for chain in made.chains.values():
        chain.step(list(stream()[:1]))
    alone = dataclasses.replace(config().base, every=3)
    with pytest.raises(ConfigError, match=r"baselines/student/retrain was made with another training than asked for"):
        Contest(small(tmp_path, baselines=["retrain"], student_alone=alone), 0)
    Contest(small(tmp_path, baselines=["fine-tune"], student_alone=alone), 0)


def test_the_defaults_go_together(tmp_path):
    made = Contest(StreamExperiment(output_dir=str(tmp_path)), 0)
    missing = {f"student, {name}" for name in baselines.BASELINES} - set(made.chains)
    assert missing == {"student, lwc_kd", "student, retrain, distilled"}, (
        "an MF has no graph, and nobody would teach it"
    )


def test_a_student_taught_by_teachers_made_afresh_wants_their_chains(tmp_path):
    with pytest.raises(ConfigError, match="put retrain to teacher_baselines"):
        Contest(small(tmp_path, baselines=["retrain, distilled"]), 0)
    made = Contest(small(tmp_path / "b", baselines=["retrain, distilled"], teacher_baselines=["retrain"]), 0)
    chain = made.chains["student, retrain, distilled"]
    assert chain.teachers == {"lightgcn": made.chains["teacher lightgcn, retrain"]}
