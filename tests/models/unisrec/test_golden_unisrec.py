"""UniSRec against the authors' code: golden vectors `unisrec_*`, every entry of every file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from seqkd.catalogue import Catalogue
from seqkd.files.torch_archive import read_archive
from seqkd.models.unisrec import (
    UniSRecConfig,
    UniSRecForPretraining,
    UniSRecModel,
    UniSRecPretrainingOutput,
    convert,
)
from seqkd.models.unisrec.augmentation import drop_items
from seqkd.models.unisrec.convert_unisrec import from_authors, to_authors
from seqkd.modules.sequence_encoder import causal_mask

CLOSE = {"atol": 1e-5, "rtol": 1e-4}


def files(golden: Path, pattern: str) -> list[Path]:
    found = sorted(golden.glob(pattern))
    assert found, f"no {pattern} in {golden}"
    return found


def batch_of(inputs: dict) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Right-padded sequences, one per row, as a batch that asks for the state after the last item of each."""
    items = torch.tensor(inputs["item_seq"])
    rows, real = torch.arange(len(items)), (items != 0).long()
    last = rows * items.shape[1] + torch.tensor(inputs["item_seq_len"]) - 1
    return items, real * (rows + 1)[:, None], real * torch.arange(items.shape[1]), last


def pretraining_model(case: dict, golden: Path) -> UniSRecForPretraining:
    theirs = case["config"]
    features = torch.tensor(case["inputs"]["plm_embedding (row0=pad)"])
    config = UniSRecConfig(
        num_items=len(features) - 1,
        hidden_size=theirs["hidden_size"],
        max_position_embeddings=theirs["MAX_ITEM_LIST_LENGTH"],
        plm_size=theirs["plm_size"],
        num_hidden_layers=theirs["n_layers"],
        num_attention_heads=theirs["n_heads"],
        intermediate_size=theirs["inner_size"],
        hidden_act=theirs["hidden_act"],
        layer_norm_eps=theirs["layer_norm_eps"],
        num_experts=theirs["n_exps"],
        temperature=theirs["temperature"],
        seq_seq_weight=theirs["lambda"],
    )
    model = UniSRecForPretraining(config)
    missing, unexpected = model.load_state_dict(from_authors(load_file(golden / case["weights_file"])), strict=False)
    assert set(missing) == {"item_counts", "item_features"} and not unexpected
    model.set_item_features(features[1:])
    model.set_augmented_features(torch.tensor(case["inputs"]["plm_embedding_aug"])[1:])
    return model.eval()


def test_golden_forward_layer_by_layer(golden, monkeypatch):
    for file in files(golden, "unisrec_*pretrain.json"):
        case = json.loads(file.read_text())
        expected = {name: value for name, value in case["expected"].items() if name != "augmentation"}
        expected = {name: torch.tensor(value) for name, value in expected.items()}
        model, batch = pretraining_model(case, golden), batch_of(case["inputs"])
        items, sequences, positions, queries = batch
        real = items != 0
        text = model.item_features[items]  # (B, H, P)
        flat = text.flatten(0, 1)

        whitened = model.adaptor.experts(flat)[:, 0].view(*items.shape, -1)
        torch.testing.assert_close(whitened, expected["pw_layer_expert0(plm[item_seq])"], **CLOSE)
        torch.testing.assert_close(model.adaptor.gates(text), expected["gates_eval"], **CLOSE)
        noise = torch.tensor(case["inputs"]["gate_noise_standard_normal"])
        with monkeypatch.context() as patch:
            patch.setattr(torch, "randn_like", lambda _, noise=noise: noise)
            gates = model.adaptor.train().gates(text)
        model.eval()
        torch.testing.assert_close(gates, expected["gates_train_with_noise"], **CLOSE)
        torch.testing.assert_close(model.adaptor(text), expected["moe_adaptor_out"], **CLOSE)
        torch.testing.assert_close(model._vectors(items), expected["moe_adaptor_out"], **CLOSE)

        mask = causal_mask(sequences)  # (B, 1, H, H); what a padding slot reads is not defined
        asked = real[:, None, :, None].expand_as(mask)
        assert torch.equal(mask[asked], (expected["attention_mask_additive"] == 0)[asked])
        states = model.embedding_norm(model._vectors(items) + model.position_embedding(positions))
        torch.testing.assert_close(states[real], expected["encoder_input_after_layernorm"][real], **CLOSE)
        for layer, wanted in zip(model.encoder.layers, expected["encoder_layer_outputs"], strict=True):
            states = layer(states, mask)
            torch.testing.assert_close(states[real], wanted[real], **CLOSE)
        torch.testing.assert_close(states.flatten(0, 1)[queries], expected["seq_output"], **CLOSE)
        output = model(*batch).query_embeddings
        torch.testing.assert_close(output, expected["seq_output_l2norm"], **CLOSE)


def test_golden_augmentations_and_losses(golden):
    for file in files(golden, "unisrec_*pretrain.json"):
        case = json.loads(file.read_text())
        model, batch = pretraining_model(case, golden), batch_of(case["inputs"])
        keep = torch.tensor(case["inputs"]["bernoulli_keep_mask"])
        targets = torch.tensor(case["inputs"]["pos_item_id"])
        queries = model(*batch).query_embeddings
        for name, expected in case["expected"]["augmentation"].items():
            if name == "item_drop":
                dropped = drop_items(*batch, keep)
                items, lengths = dropped.item_ids, dropped.position_ids.flatten()[dropped.query_index] + 1
                augmented, twin = model.without_items(*batch, keep)
            else:
                items, lengths = batch[0], torch.tensor(case["inputs"]["item_seq_len"])
                augmented, twin = model.without_words(*batch, keep), torch.ones(len(targets), dtype=torch.bool)
            assert items.tolist() == expected["item_id_list_aug"]
            assert lengths.tolist() == expected["item_length_aug"]
            assert twin.all()
            same = (targets[:, None] == targets) & ~torch.eye(len(targets), dtype=torch.bool)
            assert same.tolist() == expected["losses"]["same_pos_id_mask"]
            output = UniSRecPretrainingOutput(queries, augmented, twin)
            for loss, wanted in (
                (model.loss(queries, targets), "seq_item"),
                (model.sequence_loss(output, targets), "seq_seq"),
                (model.training_loss(output, targets), "total"),
            ):
                assert loss.mean().item() == pytest.approx(expected["losses"][wanted], rel=1e-4, abs=1e-5)


def test_golden_fine_tuned_models(golden, tmp_path):
    for file in files(golden, "unisrec_*finetune.json"):
        case = json.loads(file.read_text())
        pretrained = convert(golden / case["fake_checkpoint"], tmp_path / file.stem)
        in_checkpoint = read_archive(golden / case["fake_checkpoint"])[0]["state_dict"].keys()
        batch = batch_of(case["inputs"])
        targets = torch.tensor(case["inputs"]["pos_item_id"])
        for stage, expected in case["expected"].items():
            weights = load_file(golden / case["weights_files"][stage])
            model = pretrained.for_domain(
                Catalogue(map(str, range(1, len(weights["plm_embedding.weight"])))),
                weights["plm_embedding.weight"][1:],
                use_item_embedding="item_embedding.weight" in weights,
                freeze_encoder=True,
            ).eval()
            theirs = to_authors(model.state_dict())
            assert sorted(theirs.keys() - in_checkpoint) == sorted(expected["missing_keys_when_loading_pretrained"])
            assert sorted(in_checkpoint - theirs.keys()) == expected["unexpected_keys"]
            for name in in_checkpoint:  # strict=False started from the pre-trained weights
                torch.testing.assert_close(theirs[name], weights[name], rtol=0, atol=0)
            missing, unexpected = model.load_state_dict(from_authors(weights), strict=False)
            assert missing == ["item_counts"] and not unexpected

            cosine = model(*batch).query_embeddings @ model.item_embeddings().T
            wanted = torch.tensor(expected["full_sort_cosine_scores [B,n_items incl pad col 0]"])
            torch.testing.assert_close(cosine, wanted, **CLOSE)
            scores = model.score(model(*batch).query_embeddings)
            torch.testing.assert_close(scores[:, 1:], wanted[:, 1:] / 0.07, **CLOSE)
            loss = F.cross_entropy(cosine / 0.07, targets).item()
            assert loss == pytest.approx(expected["ce_loss"], rel=1e-4, abs=1e-5)

            frozen = {name: value for name, value in model.named_parameters() if not value.requires_grad}
            learned = {name: value for name, value in model.named_parameters() if value.requires_grad}
            names = {name: torch.full(value.shape, float(name in frozen)) for name, value in (frozen | learned).items()}
            marked = [name for name, value in to_authors(names).items() if value.all()]
            assert sorted(marked) == sorted(expected["frozen_when_fix_enc"])


def test_golden_manifest_round_trip(golden):
    for file in files(golden, "unisrec_*manifest.json"):
        case = json.loads(file.read_text())
        theirs = case["config"]
        for stage, entries in case["manifests"].items():
            shapes = {name: tuple(shape) for name, shape, _ in entries}
            assert {dtype for *_, dtype in entries} == {"float32"}
            rows = shapes.get("plm_embedding.weight", (2,))[0]
            config = UniSRecConfig(num_items=rows - 1, use_item_embedding="item_embedding.weight" in shapes)
            assert (config.hidden_size, config.plm_size) == (theirs["hidden_size"], theirs["plm_size"])
            model = UniSRecModel(config)
            ours = {name: value for name, value in model.state_dict().items() if name != "item_counts"}
            if "plm_embedding.weight" not in shapes:
                del ours["item_features"]
                assert sum(value.numel() for value in ours.values()) == case["pretrain_param_count"], stage
            mapped = to_authors(ours)
            assert {name: tuple(value.shape) for name, value in mapped.items()} == shapes, stage
            back = from_authors(mapped)
            assert back.keys() == ours.keys()
            assert all(torch.equal(back[name], ours[name]) for name in ours)


def test_golden_defaults_are_the_authors(golden):
    for file in files(golden, "unisrec_*manifest.json"):
        theirs, ours = json.loads(file.read_text())["config"], UniSRecConfig()
        assert ours.max_position_embeddings == theirs["MAX_ITEM_LIST_LENGTH"]
        assert ours.num_hidden_layers == theirs["n_layers"]
        assert ours.num_attention_heads == theirs["n_heads"]
        assert ours.intermediate_size == theirs["inner_size"]
        assert ours.hidden_dropout_prob == theirs["hidden_dropout_prob"]
        assert ours.attention_probs_dropout_prob == theirs["attn_dropout_prob"]
        assert ours.adaptor_dropout_prob == theirs["adaptor_dropout_prob"]
        assert ours.hidden_act == theirs["hidden_act"]
        assert ours.layer_norm_eps == theirs["layer_norm_eps"]
        assert ours.initializer_range == theirs["initializer_range"]
        assert ours.temperature == theirs["temperature"]
        assert ours.num_experts == theirs["n_exps"]
        assert ours.seq_seq_weight == theirs["lambda"]
        assert ours.item_drop_ratio == theirs["item_drop_ratio"]
        assert ours.item_drop_probability == theirs["item_drop_coefficient"]
