"""SASRec: golden vectors of RecBole and pmixer, packing, causality, files."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel

from seqkd.batches.collators import Sequence
from seqkd.catalogue import Catalogue
from seqkd.errors import CheckpointError, ConfigError
from seqkd.functional import losses
from seqkd.models.sasrec import SASRecConfig, SASRecModel
from seqkd.models.sasrec.convert_sasrec import from_pmixer, from_recbole

GOLDEN = Path(os.environ.get("SEQKD_GOLDEN", Path(__file__).parents[2] / "golden"))
RECBOLE = sorted(GOLDEN.glob("sasrec_recbole_tiny*.json"))
PMIXER = sorted(GOLDEN.glob("sasrec_pmixer_tiny*.json"))


def stem(path):
    return path.stem


def load(path):
    case = json.loads(path.read_text())
    return case, load_file(path.parent / case["weights_file"]), case["env"]["suggested_tolerance"]


def tiny(**settings):
    torch.manual_seed(0)
    defaults = {"num_items": 12, "hidden_size": 8, "intermediate_size": 16, "max_position_embeddings": 6}
    model = SASRecModel(SASRecConfig(**{**defaults, **settings})).eval()
    with torch.no_grad():  # far from the tiny initial values, so that every part matters
        for parameter in model.parameters():
            parameter.mul_(5).add_(torch.randn_like(parameter), alpha=0.1)
        model.item_embedding.weight[0] = 0
    return model


def embed(model, *histories, **collator):
    """Query embeddings of whole histories (the tail query of each), `(n, D)`."""
    rows = [Sequence(np.array(h), len(h), 0) for h in histories]
    batch = model.collator(tail=True, **collator)(rows)
    return model(**{name: batch[name] for name in model.inputs}).query_embeddings


# ---- golden vectors -----------------------------------------------------------------------------------------------


def test_golden_files_are_there():
    assert RECBOLE and PMIXER, f"no sasrec files in {GOLDEN}"


def recbole_model(case, weights):
    config = case["config"]
    settings, tensors = from_recbole(weights, num_attention_heads=config["n_heads"])
    assert settings["num_items"] == config["n_items_incl_pad"] - 1
    assert settings["num_hidden_layers"] == config["n_layers"]
    assert settings["intermediate_size"] == config["inner_size"]
    settings |= {
        "hidden_dropout_prob": config["hidden_dropout_prob"],
        "attention_probs_dropout_prob": config["attn_dropout_prob"],
        "hidden_act": config["hidden_act"],
        "layer_norm_eps": config["layer_norm_eps"],
    }
    model = SASRecModel(SASRecConfig(**settings)).eval()
    model.load_state_dict(tensors)
    return model


@pytest.mark.parametrize("path", RECBOLE, ids=stem)
def test_golden_recbole(path):
    case, weights, tolerance = load(path)
    model, expected, inputs = recbole_model(case, weights), case["expected"], case["inputs"]
    histories = [row[:n] for row, n in zip(inputs["item_seq"], inputs["item_length"], strict=True)]
    positive, negative = torch.tensor(inputs["pos_item"]), torch.tensor(inputs["neg_item"])

    queries = embed(model, *histories)
    torch.testing.assert_close(queries, torch.tensor(expected["seq_output"]), **tolerance)
    scores = queries @ model.item_embeddings().T
    torch.testing.assert_close(
        scores, torch.tensor(expected["full_sort_scores [B,n_items incl pad col 0]"]), **tolerance
    )
    torch.testing.assert_close(model.score(queries)[:, 1:], scores[:, 1:])
    logits = model.score(queries, torch.stack([positive, negative], dim=1))
    torch.testing.assert_close(logits[:, 0], torch.tensor(expected["predict(pos)"]), **tolerance)
    bpr = losses.bpr(logits[:, 0], logits[:, 1:]).mean()
    torch.testing.assert_close(bpr, torch.tensor(expected["BPR"]["loss"]), **tolerance)

    loss = model.loss(queries, positive).mean()
    torch.testing.assert_close(loss, torch.tensor(expected["CE"]["loss"]), **tolerance)
    loss.backward()
    gradient = torch.tensor(expected["CE_grad_item_embedding.weight"])
    torch.testing.assert_close(model.item_embedding.weight.grad, gradient, **tolerance)


@pytest.mark.parametrize("path", RECBOLE, ids=stem)
def test_golden_recbole_as_it_was_padded(path):
    """One right-padded row per sequence, as RecBole lays it out, gives what the packed batch gives."""
    case, weights, tolerance = load(path)
    item_ids, lengths = torch.tensor(case["inputs"]["item_seq"]), torch.tensor(case["inputs"]["item_length"])
    height, width = item_ids.shape
    positions = torch.arange(width).expand(height, width)
    index = torch.arange(height) * width + lengths - 1
    queries = recbole_model(case, weights)(item_ids, (item_ids != 0).long(), positions, index).query_embeddings
    torch.testing.assert_close(queries, torch.tensor(case["expected"]["seq_output"]), **tolerance)


@pytest.mark.parametrize("path", RECBOLE, ids=stem)
def test_golden_recbole_default_manifest(path):
    """A checkpoint of RecBole's default size has exactly the tensors that are converted."""
    case = json.loads(path.read_text())
    for name, manifest in case.items():
        if name.startswith("manifest_default"):
            weights = {key: torch.zeros(shape) for key, shape, _ in manifest}
            settings, tensors = from_recbole(weights)
            SASRecModel(SASRecConfig(**settings)).load_state_dict(tensors)
            assert (settings["hidden_size"], settings["max_position_embeddings"]) == (64, 50)
            with pytest.raises(CheckpointError, match=r"user_embedding\.weight"):
                from_recbole({**weights, "user_embedding.weight": torch.zeros(2)})


@pytest.mark.parametrize("path", PMIXER, ids=stem)
def test_golden_pmixer(path):
    case, weights, tolerance = load(path)
    inputs = {name: torch.tensor(value) for name, value in case["inputs"].items()}
    sequences = inputs["log_seqs"]
    real = inputs["pos_seqs"] != 0
    for variant, expected in case["expected"].items():
        settings, tensors = from_pmixer(
            weights, num_attention_heads=case["config"]["num_heads"], norm_first="norm_first" in variant
        )
        assert settings["num_items"] == case["config"]["item_num"]
        assert settings["max_position_embeddings"] == case["config"]["maxlen"]
        assert settings["num_hidden_layers"] == case["config"]["num_blocks"]
        model = SASRecModel(SASRecConfig(**settings)).eval()
        model.load_state_dict(tensors)

        height, width = sequences.shape
        positions = (torch.arange(width) + 1) * (sequences != 0)
        every_slot = torch.arange(height * width)
        states = model(sequences, (sequences != 0).long(), positions, every_slot).query_embeddings
        wanted = {name: torch.tensor(value) for name, value in expected.items()}
        torch.testing.assert_close(states.view(height, width, -1), wanted["log2feats"], **tolerance)
        pairs = torch.stack([inputs["pos_seqs"], inputs["neg_seqs"]], dim=-1).flatten(0, 1)
        logits = model.score(states, pairs).view(height, width, 2)
        torch.testing.assert_close(logits[..., 0], wanted["pos_logits"], **tolerance)
        torch.testing.assert_close(logits[..., 1], wanted["neg_logits"], **tolerance)
        bce = losses.bce(logits[..., 0][real], logits[..., 1:][real]).mean()
        torch.testing.assert_close(bce, wanted["bce_loss_masked_pos+neg"], **tolerance)

        # The collator of the model lays the same rows out by itself.
        histories = [row[row != 0].numpy() for row in sequences]
        queries = embed(model, *histories)
        torch.testing.assert_close(queries, wanted["log2feats"][:, -1], **tolerance)
        scores = model.score(queries, inputs["candidates"])
        torch.testing.assert_close(scores, wanted["predict(candidates)"], **tolerance)


def test_foreign_tensors_are_refused():
    with pytest.raises(CheckpointError, match=r"item_embedding\.weight"):
        from_recbole({})
    weights = {f"LayerNorm.{kind}": torch.zeros(2) for kind in ("weight", "bias")}
    weights |= {"item_embedding.weight": torch.zeros(3, 2), "position_embedding.weight": torch.zeros(3, 2)}
    with pytest.raises(CheckpointError, match="no layers"):
        from_recbole(weights)


# ---- packing and causality ----------------------------------------------------------------------------------------

VARIANTS = {
    "recbole": {},
    "cosine": {"similarity": "cosine", "temperature": 0.07},
    "pre": {"norm_style": "pre", "final_norm": True, "hidden_act": "relu"},
    "left": {"padding_side": "left", "scale_embedding": True},
    "pmixer": {"padding_side": "left", "attend_padding": True, "embedding_norm": False, "final_norm": True},
}


@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS)
def test_a_packed_batch_equals_one_sequence_at_a_time(settings):
    model = tiny(**settings)
    rows = [Sequence(np.array(h), 1, 0) for h in ([3, 1, 4, 1, 5, 9], [2, 6], [5, 3], [5, 8, 9], [7, 9, 3, 2])]
    collate = model.collator(tail=True)
    together = collate(rows)
    packed = model(**{name: together[name] for name in model.inputs}).query_embeddings
    alone = []
    for row in rows:
        batch = collate([row])
        alone.append(model(**{name: batch[name] for name in model.inputs}).query_embeddings)
    torch.testing.assert_close(packed, torch.cat(alone), atol=1e-5, rtol=1e-5)
    if not settings.get("attend_padding"):
        assert together["item_ids"].shape[0] < len(rows)  # they did share rows


@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS)
def test_items_of_the_future_change_nothing_before(settings):
    model = tiny(**settings)
    outputs = []
    for last in (5, 11):
        batch = model.collator()([Sequence(np.array([3, 1, 4, 2, last, 7]), 1, 0)])
        outputs.append(model(**{name: batch[name] for name in model.inputs}).query_embeddings)
    assert torch.equal(outputs[0][:4], outputs[1][:4])
    assert not torch.allclose(outputs[0][4], outputs[1][4])


def test_gradient_reaches_every_parameter():
    model = tiny().train()
    batch = model.collator()([Sequence(np.arange(1, 8), 1, 0)])
    queries = model(**{name: batch[name] for name in model.inputs}).query_embeddings
    model.loss(queries, batch["targets"]).mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name
    assert not model.item_embedding.weight.grad[0].any()


def test_cosine_embeddings_have_unit_length():
    model = tiny(similarity="cosine")
    assert torch.allclose(embed(model, [1, 2]).norm(dim=1), torch.ones(1))
    assert torch.allclose(model.item_embeddings()[1:].norm(dim=1), torch.ones(12))
    assert model.item_embeddings(torch.tensor([[1, 2]])).shape == (1, 2, 8)


def test_initial_weights_are_recboles():
    torch.manual_seed(0)
    model = SASRecModel(SASRecConfig(num_items=500, hidden_size=32))
    layer = model.encoder.layers[0]
    for weight in (model.item_embedding.weight[1:], layer.attention.qkv.weight, layer.feed_forward.dense_1.weight):
        assert weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not layer.attention.qkv.bias.any() and not model.item_embedding.weight[0].any()
    assert (model.embedding_norm.weight == 1).all()


# ---- configuration ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "setting",
    [
        {"num_hidden_layers": 0},
        {"num_attention_heads": 3},
        {"hidden_dropout_prob": 1.0},
        {"attention_probs_dropout_prob": -0.1},
        {"hidden_act": "swish"},
        {"norm_style": "middle"},
        {"padding_side": "both"},
        {"attend_padding": True},
        {"layer_norm_eps": 0.0},
        {"num_items": 0},
        {"similarity": "euclid"},
        {"temperature": 0.0},
        {"loss_type": "ce"},
    ],
    ids=str,
)
def test_bad_settings_are_refused(setting):
    with pytest.raises((ConfigError, StrictDataclassClassValidationError), match=next(iter(setting))):
        SASRecConfig(**setting)


# ---- files --------------------------------------------------------------------------------------------------------


def saved(folder, **settings):
    model = tiny(**settings)
    model.set_catalogue(Catalogue(f"item-{i}" for i in range(1, 13)), torch.arange(13.0))
    model.save_pretrained(folder)
    return model


def test_auto_classes_load_what_was_saved(tmp_path):
    model = saved(tmp_path, temperature=0.5)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert type(loaded) is SASRecModel and not loaded.training
    assert AutoConfig.from_pretrained(tmp_path).to_dict() == loaded.config.to_dict()
    assert loaded.item_ids == model.item_ids
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name
    torch.testing.assert_close(embed(loaded, [1, 2, 3]), embed(model, [1, 2, 3]))


@pytest.mark.slow
def test_a_fresh_process_recommends_the_same(tmp_path):
    model = saved(tmp_path)
    script = (
        "import sys, json, seqkd; from transformers import AutoModel; "
        "found = AutoModel.from_pretrained(sys.argv[1]).recommend([['item-3', 'item-1'], []], k=4); "
        "print(json.dumps([found.item_ids, found.scores]))"
    )
    run = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    items, scores = json.loads(run.stdout.splitlines()[-1])
    expected = model.recommend([["item-3", "item-1"], []], k=4)
    assert items == expected.item_ids
    assert scores[0] == pytest.approx(expected.scores[0], abs=1e-5)


def test_the_padding_item_counts_in_the_softmax_only_when_asked():
    """Four equal logits beside padding's: -log(1/3) masked, -log(1/4) as RecBole does."""
    for masked, classes in ((True, 3), (False, 4)):
        model = SASRecModel(SASRecConfig(num_items=3, hidden_size=4, mask_padding_logit=masked))
        torch.nn.init.zeros_(model.item_embedding.weight)
        queries, targets = torch.ones(2, 4), torch.tensor([1, 3])
        expected = torch.full((2,), math.log(classes))
        torch.testing.assert_close(model.loss(queries, targets), expected)
        torch.testing.assert_close(-model.catalogue_log_probs(queries, targets[:, None]).squeeze(1), expected)
