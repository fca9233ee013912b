from __future__ import annotations

import json
from math import log

import numpy as np
import pytest
import torch

from seqkd.batches.collators import UNLABELLED, QueryCollator, Sequence
from seqkd.batches.curriculum import Curriculum
from seqkd.distiller import Distiller
from seqkd.errors import ConfigError
from seqkd.methods.ckd_mdsr import (
    CKDMDSR,
    CKDMDSRConfig,
    calibrate,
    in_batch_mask,
    integrate,
    kd_loss,
    positive_column,
    warmup_factor,
    weighing,
)
from seqkd.models.deepfm import DeepFMConfig, DeepFMModel
from seqkd.models.mf import MFConfig, MFModel
from seqkd.teaching.teacher_weights import STATISTICS

from ..tiny import parts, tiny_distiller, tiny_sasrec, tiny_split


def golden_cases(folder):
    for path in sorted(folder.glob("ckd_*.json")):
        content = json.loads(path.read_text())
        yield from content.get("cases", [content])


def close(actual, expected):
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=torch.float64), atol=1e-5, rtol=1e-4)


def batch_of(histories, targets):
    rows = [Sequence(np.array([*h, t]), len(h), i) for i, (h, t) in enumerate(zip(histories, targets, strict=True))]
    batch = QueryCollator(50)(rows)
    return {**batch, "step_targets": batch["targets"]}


def test_golden_integration(golden):
    seen = 0
    for case in golden_cases(golden):
        inputs, hyper, expected = case["inputs"], case["hyper"], case["expected"]
        config = CKDMDSRConfig(
            temperature=hyper["T"],
            conf_temperature=hyper["conf_temperature"],
            cons_temperature=hyper["cons_temperature"],
            conf_power=hyper["conf_power"],
            cons_power=hyper["cons_power"],
        )
        batch = batch_of(inputs["histories"], inputs["targets"])
        mask = in_batch_mask(batch, batch["step_targets"], mask_history=True)
        # each row is asked for its own column in the golden file; which copy of the label stays makes no difference
        wanted = torch.tensor(expected["false_negative_mask"])
        scores = torch.tensor(inputs["teacher_scores"], dtype=torch.float64)
        own = torch.arange(len(mask))
        taught = integrate(scores, wanted, own, config)
        close(taught.teacher_probs, expected["teacher_probs"])
        close(-taught.teacher_probs[:, own, own].log(), expected["teacher_ce"])
        close(taught.confidence, expected["confidence_weight"])
        close(taught.consistency, expected["consistency_weight"])
        close(taught.weights, expected["teacher_weight_alpha(product)"])
        close(taught.divergence, expected["jsd"])
        close(taught.instance_weights, expected["instance_weight_omega"])
        close(taught.fused, expected["fused_distribution"])
        others = (taught.teacher_probs.sum(0) - taught.teacher_probs) / (len(scores) - 1)
        p = taught.teacher_probs
        close((torch.xlogy(p, p) - torch.xlogy(p, others)).sum(-1), expected["leave_one_out_divergence"])
        student = torch.tensor(inputs["student_scores"], dtype=torch.float64)
        close(kd_loss(student, taught, wanted, hyper["T"]).mean(), expected["L_KD"])
        log_q = (student / hyper["T"]).masked_fill(wanted, -torch.inf).log_softmax(1)
        close(
            log_q.masked_fill(wanted, 0.0),
            np.where(wanted, 0.0, expected["student_log_probs(unmasked entries valid)"]).tolist(),
        )
        close((torch.xlogy(p, p) - p * log_q.masked_fill(wanted, 0.0)).sum(-1), expected["kl_teacher_student"])
        ca_mkd = integrate(scores, wanted, own, CKDMDSRConfig(temperature=hyper["T"], confidence="ca_mkd"))
        close(ca_mkd.confidence, expected["confidence_weight_ca_mkd"])
        additive = integrate(scores, wanted, own, CKDMDSRConfig(temperature=hyper["T"], integration="additive"))
        close(additive.weights, expected["teacher_weight_alpha(additive 0.5/0.5)"])
        # our mask keeps the first copy of a repeated label instead of the own column: same columns up to that swap
        targets = torch.tensor(inputs["targets"])
        first = positive_column(targets.expand(len(targets), -1), targets)
        swapped = wanted.clone()
        swapped[own, own], swapped[own, first] = True, False
        repeated = first != own
        assert torch.equal(mask, torch.where(repeated[:, None], swapped, wanted))
        mine = integrate(scores[:, :, first], mask, first, config)  # same scores for equal items, as in real use
        assert mine.fused.sum(1).allclose(torch.ones(len(mask), dtype=torch.float64))
        seen += 1
    assert seen


def test_golden_curriculum(golden):
    for case in golden_cases(golden):
        inputs, hyper, expected = case["inputs"], case["hyper"], case["expected"]
        curriculum = Curriculum(hyper["c0"], 1.0, hyper["lambda_len"])
        lengths = np.array(expected["seq_len"])
        counts = {int(item): count for item, count in inputs["item_counts"].items()}
        total = sum(counts.values())
        rarity = np.array(
            [np.mean([-log(counts[item] / total) for item in history]) for history in inputs["histories"]]
        )
        np.testing.assert_allclose(rarity, expected["mean_neg_log_popularity"], atol=1e-9)
        np.testing.assert_allclose(curriculum.difficulty(lengths, rarity), expected["difficulty_cdf"], atol=1e-9)
        for step, value in expected["competence"].items():
            competence = curriculum.competence(int(step), hyper["curriculum_steps"])
            assert competence == pytest.approx(value, abs=1e-9)
            unlocked = np.flatnonzero(curriculum.difficulty(lengths, rarity) <= competence).tolist()
            assert unlocked == expected["available_examples"][step]  # at least one: the sampler's rule, see below


def test_weights_by_hand():
    """Two teachers, two candidates, label in column 0, T=1, no calibration: p = (.8,.2) and (.5,.5)."""
    scores = torch.tensor([[[log(4.0), 0.0]], [[0.0, 0.0]]])
    config = CKDMDSRConfig(temperature=1.0, score_normalization="none", consistency="none", instance_weighting=False)
    taught = integrate(scores, torch.zeros(1, 2, dtype=torch.bool), torch.tensor([0]), config)
    torch.testing.assert_close(taught.weights[:, 0], torch.tensor([0.8 / 1.3, 0.5 / 1.3]))  # softmax(-ce) is p(label)
    torch.testing.assert_close(taught.fused[0, 0], torch.tensor((0.8 * 0.8 + 0.5 * 0.5) / 1.3))
    unlabelled = integrate(scores, torch.zeros(1, 2, dtype=torch.bool), torch.tensor([-1]), config)
    entropies = [-(0.8 * log(0.8) + 0.2 * log(0.2)), log(2)]
    expected = torch.softmax(-torch.tensor(entropies), 0)
    torch.testing.assert_close(unlabelled.weights[:, 0], expected)


def test_what_is_logged_about_teachers():
    """Weights by hand as above: .8 / 1.3 and .5 / 1.3 on the first query; on the second both say the same."""
    scores = torch.tensor([[[log(4.0), 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    config = CKDMDSRConfig(temperature=1.0, score_normalization="none", consistency="none")
    taught = integrate(scores, torch.zeros(2, 2, dtype=torch.bool), torch.tensor([0, 0]), config)
    told = weighing(["one", "two"], taught)
    assert set(told) == {f"{teacher}/{name}" for teacher in ("one", "two") for name in STATISTICS}
    torch.testing.assert_close(told["one/confidence"], torch.tensor([0.8 / 1.3, 0.5]))
    torch.testing.assert_close(told["two/consistency"], torch.tensor([0.5, 0.5]))
    torch.testing.assert_close(told["two/weight"], torch.tensor([0.5 / 1.3, 0.5]))
    torch.testing.assert_close(told["one/leads"], torch.tensor([1.0, 0.5]))  # who weighs the same shares the lead
    torch.testing.assert_close(told["two/leads"], torch.tensor([0.0, 0.5]))
    assert (
        weighing(["one"], integrate(scores[:1], torch.zeros(2, 2, dtype=torch.bool), torch.tensor([0, 0]), config))
        == {}
    )


@pytest.mark.parametrize("candidates", ["in_batch", "catalogue"])
def test_a_forward_leaves_its_statistics(candidates):
    split = tiny_split()
    distiller = tiny_distiller(split, candidates, curriculum=None)
    method = distiller.methods["ckd_mdsr"]
    assert method.statistics == {}
    batch = distiller.student.collator(tail=True)([parts(split)[0][row] for row in range(4)])
    labels = batch["targets"][batch["targets"] != UNLABELLED]
    distiller(**distiller.look_up(dict(batch)), step_targets=labels)
    for name in STATISTICS:
        both = method.statistics[f"one/{name}"] + method.statistics[f"two/{name}"]
        torch.testing.assert_close(both, torch.ones(len(batch["targets"])))
        assert not both.requires_grad
    assert (method.statistics["one/weight"] != 0.5).any()
    alone = Distiller(distiller.student, distiller.methods, knowledge={"one": distiller.knowledge["one"]})
    alone(**alone.look_up(dict(batch)), step_targets=labels)
    assert method.statistics == {}


def test_rank_confidence_and_overlap_by_hand():
    scores = torch.tensor([[[3.0, 2.0, 1.0, 0.0]], [[0.0, 1.0, 2.0, 3.0]]])
    config = CKDMDSRConfig(confidence="rank", consistency="topk_overlap", overlap_size=3, instance_weighting=False)
    taught = integrate(scores, torch.zeros(1, 4, dtype=torch.bool), torch.tensor([1]), config)
    # ranks 2 and 3: log2(3), log2(4)=2
    torch.testing.assert_close(taught.confidence[:, 0], torch.softmax(-torch.tensor([log(3) / log(2), 2.0]), 0))
    torch.testing.assert_close(taught.consistency[:, 0], torch.tensor([0.5, 0.5]))  # both share 2 of 3


def test_agreeing_teachers_weigh_one():
    scores = torch.randn(1, 5, 7).expand(3, -1, -1)
    taught = integrate(scores, torch.zeros(5, 7, dtype=torch.bool), torch.full((5,), -1), CKDMDSRConfig())
    torch.testing.assert_close(taught.instance_weights, torch.ones(5))
    torch.testing.assert_close(taught.weights, torch.full((3, 5), 1 / 3))


@pytest.mark.parametrize("how", ["zscore", "minmax", "none"])
def test_masked_columns_never_count(how):
    scores = torch.randn(2, 3, 5)
    mask = torch.zeros(3, 5, dtype=torch.bool)
    mask[:, 4] = True
    other = scores.clone()
    other[:, :, 4] = 1e4
    torch.testing.assert_close(calibrate(scores, mask, how), calibrate(other, mask, how))
    assert (calibrate(scores, mask, how).softmax(2)[:, :, 4] == 0).all()


@pytest.mark.parametrize("how", ["zscore", "minmax", "none"])
def test_finite_at_large_scores_and_gradient_reaches_the_student(how):
    config = CKDMDSRConfig(score_normalization=how)
    scores = torch.randn(2, 3, 5) * 1e4
    mask = torch.zeros(3, 5, dtype=torch.bool)
    mask[1, 1:] = True  # one candidate only
    logits = torch.tensor([[0.0, 1e4, 0, 0, 0], [3e4, 0, 0, 0, 0], [0, 0, 0, 0, -1e4]], requires_grad=True)
    scores[:, 0] = torch.tensor([1e4, 0, 0, 0, 0])
    loss = kd_loss(logits, integrate(scores, mask, torch.tensor([0, 0, -1]), config), mask, config.temperature)
    assert torch.isfinite(loss).all() and (loss >= -1e-4).all()
    loss.sum().backward()
    assert torch.isfinite(logits.grad).all() and logits.grad.abs().sum() > 0
    assert (logits.grad[1] == 0).all()


def test_history_and_repeated_labels_are_no_negatives():
    batch = batch_of([[1, 2], [3]], [4, 4])
    mask = in_batch_mask(batch, torch.tensor([4, 4, 2, 3]), mask_history=True)
    assert mask.tolist() == [[False, True, True, False], [False, True, False, True]]
    assert in_batch_mask(batch, torch.tensor([4, 4, 2, 3]), mask_history=False)[:, 2:].any().item() is False


def test_requires_follows_candidates():
    assert CKDMDSR().requires == {"query_embeddings", "item_embeddings"}
    assert CKDMDSR(CKDMDSRConfig(candidates="catalogue")).requires == {"query_topk", "query_scores"}


def test_list_candidates_compare_on_the_common_list_alone():
    """Two items and an empty place; the teacher says (.8, .2), the student (1/2, 1/2): KL is .8 log 1.6 + .2 log .4."""
    student = tiny_sasrec(tiny_split())
    with torch.no_grad():
        student.item_embedding.weight[5] = student.item_embedding.weight[4]
    batch = batch_of([[1], [2]], [4, UNLABELLED])
    output = student(**{name: batch[name] for name in student.inputs})
    lowest = torch.finfo(torch.float16).min
    table = {
        "query_topk": torch.tensor([[4, 5, 0], [0, 0, 0]]),  # nothing is known about the second query
        "query_scores": torch.tensor([[log(4.0), 0.0, lowest], [lowest] * 3]).half(),
    }
    config = CKDMDSRConfig(candidates="list", temperature=1.0, score_normalization="none")
    loss = CKDMDSR(config)(student, batch, output, {"t": table})
    expected = torch.tensor([0.8 * log(1.6) + 0.2 * log(0.4), 0.0])
    torch.testing.assert_close(loss, expected, atol=1e-3, rtol=0)  # scores are kept in half precision
    loss.sum().backward()
    moved = student.item_embedding.weight.grad.abs().sum(dim=1)
    assert moved[4] > 0 and moved[5] > 0
    assert not moved[[item for item in range(21) if item not in (1, 4, 5)]].any()  # 1 is the history


def test_students_it_cannot_teach_are_refused_before_training():
    split = tiny_split()
    sizes = {"num_items": len(split.catalogue), "num_users": len(split.users), "hidden_size": 8}
    deepfm, mf = DeepFMModel(DeepFMConfig(**sizes, mlp_hidden_sizes=[8])), MFModel(MFConfig(**sizes))

    def prepare(student, **settings):
        CKDMDSR(CKDMDSRConfig(**settings)).prepare(student, {})

    with pytest.raises(ConfigError, match=r"DeepFMModel has no softmax .*candidates='list' .*candidates='in_batch'"):
        prepare(deepfm, candidates="catalogue")
    with pytest.raises(ConfigError, match=r"MFModel reads no histories .*mask_history=False"):
        prepare(mf, candidates="in_batch")
    for student, settings in (
        (deepfm, {"candidates": "in_batch"}),
        (deepfm, {"candidates": "list"}),
        (mf, {"candidates": "in_batch", "mask_history": False}),
        (mf, {"candidates": "catalogue"}),
        (tiny_sasrec(split), {"candidates": "catalogue"}),
    ):
        prepare(student, **settings)


def test_unknown_choice_names_the_allowed_ones():
    with pytest.raises(ConfigError, match="confidence must be one of"):
        CKDMDSRConfig(confidence="loud")


def test_warmup_rises_linearly():
    batch = {"progress": torch.tensor(0.05)}
    assert warmup_factor(batch, 0.1).item() == pytest.approx(0.5)
    assert warmup_factor({"progress": torch.tensor(0.3)}, 0.1).item() == 1.0
    assert warmup_factor(batch, 0.0) == 1.0 and warmup_factor({}, 0.1) == 1.0
    with pytest.raises(ConfigError, match="warmup"):
        CKDMDSRConfig(warmup=2)


def test_logq_correction_takes_popularity_off_the_students_scores():
    """Two candidates of equal score, bought 8 times and once: corrected odds are 1/8."""
    split = tiny_split()
    student = tiny_sasrec(split)
    student.item_counts.zero_()
    student.item_counts[4], student.item_counts[5] = 8, 1
    with torch.no_grad():
        student.item_embedding.weight[5] = student.item_embedding.weight[4]
    batch = batch_of([[1], [2]], [4, 5])
    output = student(**{name: batch[name] for name in student.inputs})
    table = {"query_embeddings": torch.zeros(2, 3), "item_embeddings": torch.zeros(21, 3)}
    losses = [
        CKDMDSR(CKDMDSRConfig(temperature=1.0, logq_correction=on))(student, batch, output, {"t": table})
        for on in (False, True)
    ]
    # the teacher says (1/2, 1/2): KL to (1/2, 1/2) is 0, KL to (1/9, 8/9) is -log 2 - (log 1/9 + log 8/9) / 2
    torch.testing.assert_close(losses[0], torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(losses[1], torch.full((2,), -log(2) - (log(1 / 9) + log(8 / 9)) / 2))
