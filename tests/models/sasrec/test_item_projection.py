"""The map from teacher space to a student's items: exact where it can be, weighted, chosen on items left out."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tests.tiny import arguments, parts, tiny_sasrec, tiny_split
from transformers import AutoModel

from seqkd.catalogue import Catalogue
from seqkd.distiller import Distiller
from seqkd.errors import CheckpointError, ConfigError, DataError
from seqkd.models.sasrec import SASRecConfig, SASRecModel
from seqkd.models.sasrec.item_projection import RIDGES, _ridge, fit_item_projection
from seqkd.models.unisrec import UniSRecConfig, UniSRecModel
from seqkd.recommenders.recommender import RecommenderModel, count_items
from seqkd.trainer import DistillationTrainer

I, P, D = 40, 3, 8  # noqa: E741


def student_of(teacher: torch.Tensor, slope: torch.Tensor, bias: torch.Tensor, **config) -> SASRecModel:
    """A student whose item rows are a linear map of the teacher's vectors."""
    torch.manual_seed(0)
    model = SASRecModel(SASRecConfig(num_items=I, hidden_size=D, intermediate_size=8, num_hidden_layers=1, **config))
    with torch.no_grad():
        model.item_embedding.weight[1:] = teacher[1:] @ slope + bias
    model.set_catalogue(Catalogue(f"i{n}" for n in range(1, I + 1)), torch.arange(I + 1.0))
    return model.eval()


@pytest.fixture
def linear():
    """Teacher vectors, slope `(P, D)` and bias."""
    torch.manual_seed(1)
    return torch.randn(I + 1, P) * 3 + 1, torch.randn(P, D), torch.randn(D)


# ---- the fit ------------------------------------------------------------------------------------------------------


def test_an_exact_linear_map_is_recovered(linear):
    teacher, slope, bias = linear
    student = student_of(*linear)
    fit = fit_item_projection(student, teacher, ridges=(1e-12,))
    torch.testing.assert_close(student.item_projection.weight, slope.T)
    torch.testing.assert_close(student.item_projection.bias, bias)
    assert fit.ridge == 1e-12 and fit.explained == pytest.approx(1.0)
    assert student.config.item_projection_size == P


def test_ridge_by_hand():
    # x and y are 0, 1 and their variance v is 1/4: the slope is v / (v + r v) = 1 / (1 + r); r = 1 and 3
    x = y = torch.tensor([[0.0], [1.0]])
    slope, bias = _ridge(x, y, torch.ones(2), torch.tensor([1.0, 3.0]))
    assert slope.flatten().tolist() == pytest.approx([0.5, 0.25]) and bias.flatten().tolist() == [0.25, 0.375]
    # weights 1 and 3 move the mean to 3/4, and the line through it
    slope, bias = _ridge(x, y, torch.tensor([1.0, 3.0]), torch.tensor([1.0]))
    assert slope.item() == pytest.approx(0.5) and bias.item() == pytest.approx(0.375)


def test_a_weight_is_a_number_of_copies():
    torch.manual_seed(0)
    x, y, counts = torch.randn(6, 2), torch.randn(6, 4), torch.tensor([1, 2, 3, 1, 2, 5])
    copies = torch.arange(6).repeat_interleave(counts)
    weighted = _ridge(x, y, counts.float(), torch.tensor([0.1]))
    repeated = _ridge(x[copies], y[copies], torch.ones(len(copies)), torch.tensor([0.1]))
    for one, other in zip(weighted, repeated, strict=True):
        torch.testing.assert_close(one, other)


def test_items_that_nobody_bought_do_not_count(linear):
    teacher, slope, _ = linear
    student = student_of(*linear)
    with torch.no_grad():
        student.item_embedding.weight[5] = 1000.0
        student.item_counts[5] = 0
        teacher[0] = torch.nan  # padding is never read
    fit_item_projection(student, teacher, ridges=(1e-12,))
    torch.testing.assert_close(student.item_projection.weight, slope.T)


def test_the_penalty_is_the_one_that_errs_least_on_items_left_out(linear):
    teacher, slope, bias = linear
    assert fit_item_projection(student_of(*linear), teacher).ridge == min(RIDGES)
    torch.manual_seed(2)
    nothing = fit_item_projection(student_of(torch.randn(I + 1, D) * 9, torch.eye(D), torch.zeros(D)), teacher)
    assert nothing.ridge == max(RIDGES) and nothing.explained < 0.05
    # between the two: noise on the rows; the errors again, item by item, with the penalty as extra rows of numpy lstsq
    student = student_of(teacher, slope * 0.2, bias)
    with torch.no_grad():
        student.item_embedding.weight.add_(torch.randn(I + 1, D))
    x, y = teacher[1:].double().numpy(), student.item_embedding.weight[1:].detach().double().numpy()
    w, fold = np.arange(1.0, I + 1), torch.randperm(I, generator=torch.Generator().manual_seed(0)).numpy() % 4
    errors, baseline = dict.fromkeys(RIDGES, 0.0), 0.0
    for number in range(4):
        a, b = fold != number, fold == number
        mean_x, mean_y = np.average(x[a], axis=0, weights=w[a]), np.average(y[a], axis=0, weights=w[a])
        root = np.sqrt(w[a] / w[a].sum())[:, None]
        baseline += (w[b, None] * (y[b] - mean_y) ** 2).sum()
        for ridge in RIDGES:
            variance = np.average((x[a] - mean_x) ** 2, axis=0, weights=w[a]).mean()
            left = np.vstack([root * (x[a] - mean_x), np.sqrt(ridge * variance) * np.eye(P)])
            right = np.vstack([root * (y[a] - mean_y), np.zeros((P, D))])
            found = np.linalg.lstsq(left, right, rcond=None)[0]
            errors[ridge] += (w[b, None] * (mean_y + (x[b] - mean_x) @ found - y[b]) ** 2).sum()
    best = min(errors, key=errors.get)
    assert min(RIDGES) < best < max(RIDGES)
    fit = fit_item_projection(student, teacher, folds=4)
    assert fit.ridge == best and fit.explained == pytest.approx(1 - errors[best] / baseline, abs=1e-6)


def test_a_teacher_that_says_nothing_is_a_warning(linear, caplog):
    torch.manual_seed(3)
    student = student_of(torch.randn(I + 1, D), torch.eye(D), torch.zeros(D))
    with caplog.at_level(logging.WARNING):
        fit = fit_item_projection(student, torch.randn(I + 1, 30), ridges=(1e-6,))
    assert fit.explained < 0 and "explains -" in caplog.text


def test_equal_input_gives_equal_weights(linear):
    one, two = student_of(*linear), student_of(*linear)
    fit_item_projection(one, linear[0])
    torch.manual_seed(99)
    fit_item_projection(two, linear[0].numpy())
    assert torch.equal(one.item_projection.weight, two.item_projection.weight)


@pytest.mark.parametrize("factor", [1.0, 7.0])
def test_cosine_students_fit_directions_and_keep_the_usual_length(linear, factor):
    teacher, slope, bias = linear
    student = student_of(*linear, similarity="cosine")
    lengths = torch.rand(I + 1, 1) + 0.5
    with torch.no_grad():
        student.item_embedding.weight[1:] = F.normalize(teacher[1:] @ slope + bias, dim=1) * lengths[1:] * factor
    other = student_of(*linear, similarity="cosine")
    for model in (student, other):  # the lengths of the rows do not matter for the fit
        fit_item_projection(model, teacher)
    torch.testing.assert_close(student.item_projection.weight, other.item_projection.weight)
    student.add_items(["new"], teacher_embeddings=torch.randn(1, P))
    assert student.item_embedding.weight[-1].norm().item() == pytest.approx(
        lengths[1:].mean().item() * factor, rel=1e-5
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"teacher_items": torch.zeros(I, P)}, r"must be \(41, P\).*\(40, 3\)"),
        ({"teacher_items": torch.zeros(I + 1)}, r"must be \(41, P\)"),
        ({"teacher_items": torch.ones(I + 1, P)}, "all teacher vectors are the same"),
        ({"folds": 1}, "folds at least 2"),
        ({"ridges": (0.0, 1.0)}, "above 0"),
        ({"ridges": ()}, "above 0"),
    ],
)
def test_wrong_input_is_named(linear, change, message):
    student = student_of(*linear)
    with pytest.raises((DataError, ConfigError), match=message):
        fit_item_projection(student, **{"teacher_items": linear[0], **change})
    assert student.item_projection is None


def test_nan_and_missing_counts_are_named(linear):
    teacher, student = linear[0].clone(), student_of(*linear)
    teacher[7, 1] = torch.nan
    with pytest.raises(DataError, match="row 7 holds NaN"):
        fit_item_projection(student, teacher)
    student.item_counts.zero_()
    with pytest.raises(DataError, match=r"0 items were bought.*count_items"):
        fit_item_projection(student, linear[0])


# ---- a student that ships with it ---------------------------------------------------------------------------------


def tiny_teacher(split, **config) -> UniSRecModel:
    torch.manual_seed(4)
    settings = {"hidden_size": 6, "plm_size": 5, "num_experts": 2, "num_hidden_layers": 1, "intermediate_size": 8}
    model = UniSRecModel(UniSRecConfig(num_items=len(split.catalogue), **settings, **config))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    model.set_item_features(torch.randn(len(split.catalogue), 5))
    model.set_catalogue(split.catalogue, count_items(split.train, len(split.catalogue)))
    return model


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_new_items_from_the_teacher_to_the_student_and_through_files(similarity, tmp_path):
    split = tiny_split()
    teacher, student = tiny_teacher(split), tiny_sasrec(split, similarity=similarity).eval()
    histories = [["item1", "item2"], ["item7"]]
    before = student.recommend(histories, k=20, filter_seen=False)
    fit_item_projection(student, teacher.content_embeddings())
    assert student.recommend(histories, k=20, filter_seen=False) == before  # serving never reads it
    old, projection = student.item_embedding.weight.clone(), student.item_projection
    teacher.add_items(["new", "newer"], features=torch.randn(2, 5))
    content = teacher.content_embeddings(torch.tensor([21, 22]))  # (2, 6)
    student.add_items(["new", "newer"], teacher_embeddings=content)
    assert torch.equal(student.item_embedding.weight[:21], old)
    rows = content @ projection.weight.T + projection.bias
    if similarity == "cosine":
        rows = F.normalize(rows, dim=1) * old[1:].norm(dim=1).mean()
    torch.testing.assert_close(student.item_embedding.weight[21:], rows)
    found = student.recommend(histories, k=22, filter_seen=False)
    assert {"new", "newer"} <= set(found.item_ids[0])
    assert [item for item in found.item_ids[0] if not item.startswith("new")] == before.item_ids[0]
    assert student.recommend([["new"]]).from_popularity == [False]

    student.save_pretrained(tmp_path)
    assert load_file(tmp_path / "model.safetensors")["item_projection.weight"].shape == (16, 6)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert loaded.recommend(histories, k=22, filter_seen=False) == found
    assert not any(parameter.requires_grad for parameter in loaded.item_projection.parameters())
    for model in (student, loaded):  # the loaded one grows on from where the saved one was
        model.add_items(["newest"], teacher_embeddings=content[:1].numpy())
    torch.testing.assert_close(loaded.item_embedding.weight, student.item_embedding.weight)


def test_a_student_trained_on_keeps_its_projection(tmp_path):
    split = tiny_split()
    student = tiny_sasrec(split)
    fit_item_projection(student, tiny_teacher(split).content_embeddings())
    before, table = student.item_projection.weight.clone(), student.item_embedding.weight.clone()
    DistillationTrainer(Distiller(student), arguments(tmp_path, weight_decay=0.5), *parts(split)).train()
    assert torch.equal(student.item_projection.weight, before)
    assert not torch.equal(student.item_embedding.weight, table)


def test_what_is_missing_or_wrong_is_said_and_changes_nothing():
    split = tiny_split()
    student, content = tiny_sasrec(split), torch.randn(1, 6)
    unfitted = tiny_sasrec(split, item_projection_size=6)
    for model in (student, unfitted):
        with pytest.raises(ConfigError, match="fit_item_projection"):
            model.add_items(["new"], teacher_embeddings=content)
    fit_item_projection(student, tiny_teacher(split).content_embeddings())
    with pytest.raises(DataError, match=r"\(1, 6\).*\(1, 5\)"):
        student.add_items(["new"], teacher_embeddings=torch.randn(1, 5))
    with pytest.raises(DataError, match=r"\(2, 6\).*\(1, 6\)"):
        student.add_items(["new", "newer"], teacher_embeddings=content)
    with pytest.raises(DataError, match="row 0 holds NaN"):
        student.add_items(["new"], teacher_embeddings=content * torch.nan)
    with pytest.raises(DataError, match="NaN or infinite"):
        student.add_items(["new"], torch.full((1, 16), torch.inf))
    with pytest.raises(ConfigError, match="one of them"):
        student.add_items(["new"], torch.zeros(1, 16), teacher_embeddings=content)
    with pytest.raises(DataError, match="already in the catalogue"):
        student.add_items(["item3"], teacher_embeddings=content)
    assert len(student.catalogue) == student.config.num_items == len(student.item_embedding.weight) - 1 == 20
    student.add_items(["new"])  # without a vector still the mean of the old rows
    torch.testing.assert_close(student.item_embedding.weight[21], student.item_embedding.weight[1:21].mean(dim=0))


def test_a_checkpoint_without_its_projection_is_refused(tmp_path):
    split = tiny_split()
    tiny_sasrec(split).save_pretrained(tmp_path)
    text = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(text.replace('"item_projection_size": 0', '"item_projection_size": 6'))
    with pytest.raises(CheckpointError, match="item_projection"):
        AutoModel.from_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="item_projection_size"):
        SASRecConfig(num_items=3, item_projection_size=-1)


# ---- teacher space ------------------------------------------------------------------------------------------------


def test_content_is_the_text_without_learned_vectors():
    split = tiny_split()
    teacher = tiny_teacher(split, use_item_embedding=True).train()
    expected = F.normalize(teacher.eval().adaptor(teacher.item_features), dim=-1).detach()
    teacher.train()  # dropout and noise stay out of it
    torch.testing.assert_close(teacher.content_embeddings(), expected)
    ids = torch.tensor([[3, 3], [0, 20]])
    torch.testing.assert_close(teacher.content_embeddings(ids), expected[ids])
    assert teacher.adaptor.training and not teacher.content_embeddings().requires_grad
    inductive = tiny_teacher(split).eval()
    torch.testing.assert_close(inductive.content_embeddings(), inductive.item_embeddings().detach())


def test_a_model_without_content_says_so():
    with pytest.raises(ConfigError, match="SASRecModel reads no content"):
        tiny_sasrec(tiny_split()).content_embeddings()
    assert RecommenderModel.content_embeddings is SASRecModel.content_embeddings
