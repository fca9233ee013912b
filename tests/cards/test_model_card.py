"""The card: numbers that read back equal, everything a reader must know, and text from outside that stays text."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import EvalResult

from seqkd.cards.model_card import LIMITS, write_card
from seqkd.catalogue import Catalogue
from seqkd.data.columns import PROTOCOLS
from seqkd.errors import DataError
from seqkd.evaluation.results import Result
from seqkd.methods.ckd_mdsr import CKDMDSR
from seqkd.models.fm import FMConfig, FMModel
from seqkd.models.mf import MFConfig, MFModel
from seqkd.models.sasrec import SASRecConfig, SASRecModel

METRICS = {"recall@10": 0.0946, "ndcg@10": 0.06681234567890123, "recall@50": 1e-05, "ndcg@50": 0.2}
EVIL = (
    "\n---\n# Owned <script>alert(1)</script> {{ 7 * 7 }} {% for x in y %} [x](javascript:alert(1)) | `a` "
    "!!python/object:os.system"
)


@pytest.fixture(scope="module")
def model():
    config = SASRecConfig(num_items=4, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    model = SASRecModel(config)
    model.set_catalogue(Catalogue(["B001", "```\n<b>", '"]); import os #', "B002"]))
    return model


def results_of(model, data="Amazon Reviews 2018", domain="Scientific"):
    parameters = sum(p.numel() for p in model.parameters())
    own = Result("CKD", "distilled", domain, data, 1, "test", "loo", "masked", METRICS, 90, 100, parameters, 2.1, 0.08)
    teacher = replace(own, model="UniSRec", role="teacher", parameters=9_900_000, megabytes=38.2)
    return [teacher, replace(own, seed=0), own, replace(own, model="alone", role="student")]


def test_metrics_read_back_equal(model, tmp_path):
    own = results_of(model)
    write_card(
        tmp_path,
        model=model,
        name="CKD",
        seed=1,
        results=[*own, replace(own[2], history="unmasked")],
        methods=[CKDMDSR()],
    )
    found = ModelCard.load(tmp_path / "README.md").data
    assert (found.library_name, found.model_name) == ("seqkd", "CKD")
    assert found.tags == ["seqkd", "recommender-systems", "sequential-recommendation", "knowledge-distillation"]
    read = {(r.metric_args["history"], r.metric_type): r for r in found.eval_results}
    assert {key: r.metric_value for key, r in read.items()} == {
        (h, m): v for h in ("masked", "unmasked") for m, v in METRICS.items()
    }
    assert read["masked", "ndcg@10"] == EvalResult(
        task_type="sequential-recommendation",
        task_name="next item recommendation",
        dataset_type="amazon-reviews-2018",
        dataset_name="Scientific (Amazon Reviews 2018)",
        dataset_config="Scientific",
        dataset_split="test",
        metric_type="ndcg@10",
        metric_name="NDCG@10, history masked",
        metric_value=METRICS["ndcg@10"],
        metric_args={
            "k": 10,
            "full_ranking": True,
            "history": "masked",
            "split": "test",
            "protocol": "loo",
            "n_users": 90,
            "n_queries": 100,
            "seed": 1,
        },
    )


def test_eval_results_files(model, tmp_path):
    (tmp_path / ".eval_results").mkdir()
    (tmp_path / ".eval_results" / "07-old.yaml").write_text("of an earlier card")
    write_card(
        tmp_path, model=model, name="CKD", seed=1, results=results_of(model), datasets={"Scientific": "me/scientific"}
    )
    files = list((tmp_path / ".eval_results").iterdir())
    assert [file.name for file in files] == ["00-scientific.yaml"]
    entries = yaml.safe_load(files[0].read_text())
    assert {entry["dataset"]["task_id"]: entry["value"] for entry in entries} == METRICS
    assert entries[0]["dataset"]["id"] == "me/scientific" and "history masked" in entries[0]["notes"]


def test_what_a_reader_must_know(model, tmp_path):
    path = write_card(
        tmp_path,
        model=model,
        name="CKD",
        seed=1,
        results=results_of(model, data="embedded market, synthetic"),
        teachers={"UniSRec": "pre-trained on two domains"},
        methods=[CKDMDSR()],
        data=["the embedded synthetic market"],
        training={"learning rate": np.float64(0.003), "seeds": [0, 1]},
        limits=["Not tried on music."],
        repository="me/tiny",
        base_model=["sentence-transformers/all-MiniLM-L6-v2"],
        license="apache-2.0",
    )
    text = path.read_text()
    for words in (
        "teacher UniSRec: pre-trained on two domains",
        'AutoModel.from_pretrained("me/tiny", revision="main")',
        'model.recommend([["B001", "B002"]], k=10)',  # ids that could break the code are left out
        "| Scientific (synthetic) | CKD",
        "9,900,000",
        "Relative gain of CKD against alone on Scientific (synthetic)",
        "leave-one-out",
        "learning rate: 0.003",
        "Leave-one-out puts the last item",
        "Numbers on synthetic data",
        "until `add_items` is called",
        "Not tried on music.",
        "reconstruction",
        "[arXiv:2401.00797](https://arxiv.org/abs/2401.00797)",
        '"overlap_size": 10',
    ):
        assert words in text, words
    data = ModelCard.load(path).data
    assert data.base_model == ["sentence-transformers/all-MiniLM-L6-v2"] and data.license == "apache-2.0"


def test_a_card_about_sets_says_so(model, tmp_path):
    own = [replace(result, protocol="ratio", num_queries=result.num_users) for result in results_of(model)]
    own += [replace(result, history="unmasked") for result in own]
    path = write_card(tmp_path, model=model, name="CKD", seed=1, results=own)
    text = path.read_text()
    for words in (
        "test split, random 60/20/20 of each user, as sets",
        "Recall and NDCG are means over users",
        "full catalogue, history masked",
        "full catalogue, history not masked",
        "A random fifth of every user's interactions",
    ):
        assert words in text, words
    assert "Leave-one-out" not in text
    measured = ModelCard.load(path).data.eval_results
    assert {(one.task_type, one.task_name) for one in measured} == {("set-recommendation", "recommendation of a set")}
    assert {(one.metric_args["protocol"], one.metric_args["n_queries"]) for one in measured} == {("ratio", 90)}
    files = sorted((tmp_path / ".eval_results").iterdir())
    notes = [yaml.safe_load(file.read_text())[0]["notes"] for file in files]
    assert all("random 60/20/20 of each user, as sets" in note and "full catalogue" in note for note in notes)
    assert ["history not masked" in note for note in notes] == [False, True]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_has_its_limit(model, tmp_path, protocol):
    results = [replace(result, protocol=protocol, num_queries=result.num_users) for result in results_of(model)]
    text = write_card(tmp_path, model=model, name="CKD", seed=1, results=results).read_text()
    limits = text.split("## Limits")[1]
    assert [name for name in PROTOCOLS if LIMITS[name] in limits] == [protocol]


@pytest.mark.parametrize(
    ("kind", "answers"),
    [
        ("mf", "refused with a `DataError`, whatever the history, until `add_users` gives the model a row"),
        ("fm", "answered by the history"),
    ],
)
def test_the_card_of_a_model_that_knows_users(kind, answers, tmp_path):
    config, cls = {"mf": (MFConfig, MFModel), "fm": (FMConfig, FMModel)}[kind]
    known = cls(config(num_items=2, num_users=3, hidden_size=4))
    known.set_catalogue(Catalogue(["B1", "B2"]))
    known.set_users(Catalogue(["u1", "u2", "u3"]))
    path = write_card(tmp_path, model=known, name="small", seed=0)
    text = " ".join(path.read_text().split())
    assert "it knows 3 users by id" in text and f"A user who is not in the file is {answers}" in text
    assert 'model.recommend([["B1", "B2"]], users=["u1"], k=10)' in text
    assert "sequential" not in text and ModelCard.load(path).data.tags == ["seqkd", "recommender-systems"]
    known.recommend([["B1", "B2"]], users=["u1"], k=10)  # as the card says


@pytest.mark.parametrize(("kind", "cls"), [(MFConfig, MFModel), (FMConfig, FMModel)])
def test_what_the_card_claims_of_an_unknown_user_is_so(kind, cls, tmp_path):
    torch.manual_seed(0)
    known = cls(kind(num_items=3, num_users=2, hidden_size=4))
    known.set_catalogue(Catalogue(["B1", "B2", "B3"]), torch.tensor([0.0, 1.0, 5.0, 2.0]))
    known.set_users(Catalogue(["u1", "u2"]))
    text = " ".join(write_card(tmp_path, model=known, name="small", seed=0).read_text().split())
    popular = ["B2", "B3", "B1"]
    if "is refused with a `DataError`, whatever the history, until `add_users`" in text:
        assert cls is MFModel and LIMITS["known_users"] in text and "answered by popularity" not in text
        for history in ([], ["B1"]):
            with pytest.raises(DataError, match="'u3' is unknown"):
                known.recommend([history], users=["u3"])
        mean = known.user_embedding.weight[1:].mean(dim=0)
        known.add_users(["u3"])
        assert "the mean of all users, until" in text
        torch.testing.assert_close(known.user_embedding.weight[3], mean)
        assert known.recommend([[]], users=["u3"]).from_popularity == [False]
    else:
        assert cls is FMModel and "not in the file is answered by the history" in text and LIMITS["new_user"] in text
        answered = known.recommend([["B1"], [], ["B9"]], users=["u3", "u3", "u3"], filter_seen=False)
        assert answered.from_popularity == [False, True, True]
        assert answered.item_ids[1:] == [popular, popular]
        one, other = known.recommend([["B1"], ["B2"]], users=["u3", "u3"], filter_seen=False).scores
        assert one != other, "the history tells"
    assert "What a history holds is not recommended again" in text
    assert known.recommend([["B1", "B2"]], users=["u1"]).item_ids == [["B3"]]


def test_a_sequential_model_answers_by_popularity_as_its_card_says(model, tmp_path):
    text = write_card(tmp_path, model=model, name="bare", seed=0).read_text()
    assert LIMITS["no_history"] in text and LIMITS["known_users"] not in text and LIMITS["new_user"] not in text
    assert model.recommend([["nothing"]]).from_popularity == [True]
    for name in ("cold", "popular", "no_history"):
        assert text.count(LIMITS[name]) == 1


def test_a_card_without_results_says_so(model, tmp_path):
    text = write_card(tmp_path, model=model, name="bare", seed=0).read_text()
    assert "This model was not measured" in text and "Nothing: this model" in text
    assert ModelCard.load(tmp_path / "README.md").data.eval_results is None
    assert not (tmp_path / ".eval_results").exists()


def test_text_from_outside_stays_text(model, tmp_path):
    results = [replace(r, model=r.model + EVIL) for r in results_of(model, data="data" + EVIL, domain="domain" + EVIL)]
    path = write_card(
        tmp_path,
        model=model,
        name="CKD" + EVIL,
        seed=1,
        results=results,
        teachers={"UniSRec" + EVIL: "about" + EVIL},
        data=["data" + EVIL],
        training={"rate" + EVIL: EVIL},
        limits=[EVIL],
        base_model=["base" + EVIL],
        license="mit" + EVIL,
    )
    card = ModelCard.load(path)
    assert {r.metric_type: r.metric_value for r in card.data.eval_results} == METRICS
    assert list(card.data.to_dict()) == ["base_model", "library_name", "license", "tags", "model-index"]
    body = card.text
    assert "<" not in body
    assert "{{" not in body and "{%" not in body
    assert "\n---" not in body and body.count("\n# ") == 1 and "](javascript" not in body.replace(r"\](javascript", "")
    assert body.count("```") == 2
    for file in (tmp_path / ".eval_results").iterdir():
        assert {entry["value"] for entry in yaml.safe_load(file.read_text())} == set(METRICS.values())


def test_numpy_scalars_are_readable_again(model, tmp_path):
    results = [
        replace(r, metrics={m: np.float64(v) for m, v in METRICS.items()}, num_users=np.int64(9))
        for r in results_of(model)
    ]
    path = write_card(tmp_path, model=model, name=str(np.str_("CKD")), seed=np.int64(1), results=results)
    assert "!!python" not in path.read_text()
    assert ModelCard.load(path).data.eval_results[0].metric_args["n_users"] == 9


def test_refused(model, tmp_path):
    results = results_of(model)
    with pytest.raises(DataError, match=r"no result of model 'other' with seed 1; there are \[\('CKD', 0\)"):
        write_card(tmp_path, model=model, name="other", seed=1, results=results)
    with pytest.raises(DataError, match="with 5 parameters"):
        write_card(tmp_path, model=model, name="CKD", seed=1, results=[replace(results[2], parameters=5)])
    with pytest.raises(DataError, match="no Hub repository"):
        write_card(tmp_path, model=model, name="CKD", seed=1, repository='x")\nimport os')
    assert list(tmp_path.iterdir()) == []


def test_a_teachers_card_says_what_it_was_pretrained_on(model, tmp_path):
    results = [replace(results_of(model)[2], role="teacher", parameters=9)]  # without the head for pre-training
    path = write_card(
        tmp_path,
        model=model,
        name="CKD",
        seed=1,
        results=results,
        pretrained_on=["books: 90 users, 4 items, 500 training interactions", "films" + EVIL],
        training={"loss": "sequence-item contrast", "text": "title, read by minilm"},
        papers={"UniSRec": "arXiv:2206.05941", "other": "10.1145/1"},
    )
    assert "knowledge-distillation" not in (ModelCard.load(path).data.tags or [])
    text = path.read_text()
    for words in (
        "A pre-trained teacher (SASRecModel, ",
        "## What it was pre-trained on\n\n* books: 90 users, 4 items, 500 training interactions\n* films",
        "* loss: sequence-item contrast\n* text: title, read by minilm\n",
        "All are zero-shot",
        "Results are zero-shot",
        "mine = model.for_domain(catalogue, features)",
        "[arXiv:2206.05941](https://arxiv.org/abs/2206.05941)",
        "[10.1145/1](https://doi.org/10.1145/1)",
    ):
        assert words in text, words
    for words in ("small sequential recommender", "distilled from", "never, until", "<script", "{{"):
        assert words not in text, words
    assert text.count("```") == 2 and text.count("\n# ") == 1
    assert ModelCard.load(path).data.eval_results[0].metric_value == METRICS["recall@10"]
    with pytest.raises(DataError, match="with 99999 parameters"):
        more = [replace(results[0], parameters=99999)]
        write_card(tmp_path, model=model, name="CKD", seed=1, results=more, pretrained_on=["books"])


def test_only_a_teacher_has_the_words_of_one(model, tmp_path):
    text = write_card(tmp_path, model=model, name="CKD", seed=1, results=results_of(model)).read_text()
    for words in ("pre-trained", "zero-shot", "for_domain"):
        assert words not in text, words
    assert "\n# CKD\n\nA small sequential recommender (SASRecModel), made with seqkd" in text
    assert "\n\n## How to use it\n" in text
