"""The authors' files become ours whatever their prefix; what is no Recformer is named and refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tests.models.recformer.tiny_recformer import golden_tokens
from torch import Tensor

from seqkd import cli
from seqkd.catalogue import Catalogue
from seqkd.errors import CheckpointError, ConfigError, DataError
from seqkd.models.recformer import RecformerConfig, RecformerForPretraining, RecformerModel, convert
from seqkd.models.recformer.convert_recformer import PREFIX, REPEATED

SETTINGS = {"num_attention_heads": 2, "attention_window": 8, "max_attr_length": 7, "max_token_num": 48}
WORDS = "embeddings.word_embeddings.weight"


@pytest.fixture(scope="module")
def vectors(golden):
    return json.loads((golden / "recformer_tiny.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def seqrec(golden) -> dict[str, Tensor]:
    """As in `recformer_seqrec_ckpt.bin`: prefix `longformer.`, and the head."""
    return load_file(golden / "recformer_tiny.safetensors")


def bare(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As in `recformer_ckpt.bin`."""
    return {name.removeprefix("longformer."): t for name, t in state.items() if name.startswith("longformer.")}


def raw(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As DeepSpeed writes it, without what was frozen."""
    return {f"_forward_module.model.{name}": t for name, t in state.items() if not name.endswith(WORDS)}


def save(folder: Path, content: object) -> Path:
    torch.save(content, folder / "a.bin")
    return folder / "a.bin"


def expected(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in bare(state).items() if name not in REPEATED}


def holds(model: RecformerModel, tensors: dict[str, Tensor]) -> bool:
    ours = model.state_dict()
    named = {name for name, _ in model.named_parameters()}
    return named == tensors.keys() and all(torch.equal(ours[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize("layout", ["bare", "seqrec", "lightning", "deepspeed"])
def test_every_layout_becomes_the_same_model(tmp_path, seqrec, vectors, layout):
    files = {
        "bare": bare(seqrec),
        "seqrec": seqrec,
        "lightning": {"state_dict": {f"model.{name}": tensor for name, tensor in seqrec.items()}, "epoch": 3},
        "deepspeed": {"module": raw(seqrec), "global_steps": 7},
    }
    options = {}
    if layout == "deepspeed":
        options["word_embeddings"] = tmp_path / "longformer.safetensors"
        save_file({f"longformer.{WORDS}": seqrec[f"longformer.{WORDS}"]}, options["word_embeddings"])
    convert(save(tmp_path, files[layout]), tmp_path / "out", **options, **SETTINGS)
    assert sorted(os.listdir(tmp_path / "out")) == ["config.json", "model.safetensors"]
    loaded = RecformerModel.from_pretrained(tmp_path / "out")
    assert type(loaded) is RecformerModel and holds(loaded, expected(seqrec))
    assert loaded.config.num_items == 1 and loaded.config.max_item_embeddings == 5

    domain = loaded.for_domain(Catalogue("abcdef"), golden_tokens(vectors))
    items = domain.item_embeddings()[1:]
    theirs = F.normalize(torch.tensor(vectors["expected"]["item_pooler_output"]), dim=-1)
    torch.testing.assert_close(items, theirs, atol=1e-5, rtol=1e-4)


def test_the_head_is_kept_for_pretraining(tmp_path, seqrec):
    convert(save(tmp_path, seqrec), tmp_path / "out", pretraining=True, **SETTINGS, mask_token_id=262)
    loaded = RecformerForPretraining.from_pretrained(tmp_path / "out")
    heads = {name: t for name, t in seqrec.items() if name.startswith("lm_head.") and name not in REPEATED}
    assert len(heads) == 6 and holds(loaded, expected(seqrec) | heads)
    with pytest.raises(CheckpointError, match=r"no lm_head\.\*"):
        convert(save(tmp_path, bare(seqrec)), tmp_path / "out2", pretraining=True, **SETTINGS)


def test_a_fine_tuned_checkpoint_keeps_its_item_vectors(tmp_path, seqrec, vectors, caplog):
    items, tokens = torch.randn(6, 16), golden_tokens(vectors)
    state = {name: t for name, t in seqrec.items() if name.startswith("longformer.")} | {"item_embedding.weight": items}
    path = save(tmp_path, state)
    convert(path, tmp_path / "out", features=tokens, **SETTINGS)
    loaded = RecformerModel.from_pretrained(tmp_path / "out")
    assert loaded.config.num_items == 6
    torch.testing.assert_close(loaded.item_embeddings()[1:], F.normalize(items, dim=-1))  # theirs begin at 0
    assert not loaded.item_embeddings()[0].any()
    theirs = F.normalize(torch.tensor(vectors["expected"]["item_pooler_output"]), dim=-1)
    alone = loaded.encode_histories(torch.arange(1, 7)[:, None])
    torch.testing.assert_close(alone.detach(), theirs, atol=1e-5, rtol=1e-4)

    with pytest.raises(DataError, match="6 items, but tokens of 5"):
        convert(path, tmp_path / "out", features=tokens.take(slice(5)), **SETTINGS)
    with pytest.raises(ConfigError, match="no item vectors"):
        convert(save(tmp_path, seqrec), tmp_path / "out", features=tokens, **SETTINGS)
    assert convert(save(tmp_path, state), tmp_path / "out", **SETTINGS).config.num_items == 1
    assert "left out" in caplog.text  # vectors of items whose histories nobody could read would answer nonsense


@pytest.mark.parametrize("name", ["RecformerForPretraining", "RecformerModel (bare)", "RecformerForSeqRec"])
def test_the_released_files_have_our_names_and_shapes(golden, name):
    """On the meta device: nobody has the files here, but everybody knows their keys."""
    manifest = json.loads((golden / "recformer_state_dict_manifest.json").read_text(encoding="utf-8"))
    theirs = {PREFIX.sub("", key): tuple(shape) for key, shape, _ in manifest["manifests"][name]}
    kind = RecformerForPretraining if name == "RecformerForPretraining" else RecformerModel
    with torch.device("meta"):
        model = kind(RecformerConfig())  # the defaults are the released model's
    ours = {key: tuple(parameter.shape) for key, parameter in model.named_parameters()}
    assert ours == {key: shape for key, shape in theirs.items() if key not in REPEATED}
    if name == "RecformerForPretraining":
        assert sum(parameter.numel() for parameter in model.parameters()) == manifest["param_count_pretraining"]


def test_word_embeddings_are_asked_for_and_found(tmp_path, seqrec):
    path, source = save(tmp_path, raw(seqrec)), tmp_path / "longformer.bin"
    with pytest.raises(CheckpointError, match="frozen in pre-training"):
        convert(path, tmp_path / "out", **SETTINGS)
    torch.save({f"model.longformer.{WORDS}": seqrec[f"longformer.{WORDS}"]}, source)
    assert holds(convert(path, tmp_path / "out", word_embeddings=source, **SETTINGS), expected(seqrec))
    torch.save({"something": torch.ones(2)}, source)
    with pytest.raises(CheckpointError, match="must hold one tensor named"):
        convert(path, tmp_path / "out", word_embeddings=source, **SETTINGS)
    (tmp_path / "b.safetensors").write_bytes(b"no")
    with pytest.raises(CheckpointError, match="damaged"):
        convert(path, tmp_path / "out", word_embeddings=tmp_path / "b.safetensors", **SETTINGS)
    with pytest.raises(ConfigError, match="of its own"):
        convert(save(tmp_path, seqrec), tmp_path / "out", word_embeddings=source, **SETTINGS)


def changed(state: dict[str, Tensor], **changes: Tensor | None) -> dict[str, Tensor]:
    merged = {**state, **{name.replace("__", "."): tensor for name, tensor in changes.items()}}
    return {name: tensor for name, tensor in merged.items() if tensor is not None}


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda s: {"moe_adaptor.w_gate": torch.ones(2, 2)}, "looks like UniSRec"),
        (lambda s: {n: t for n, t in s.items() if "item_position" not in n}, "looks like a plain Longformer"),
        (lambda s: {f"bert.{WORDS}": torch.ones(3, 2)}, "plain text encoder"),
        (lambda s: {"weight": torch.ones(2)}, r"It holds \['weight'\]"),
        (lambda s: changed(s, longformer__embeddings__LayerNorm__bias=None), "LayerNorm.bias is missing"),
        (lambda s: changed(s, longformer__extra=torch.ones(2)), r"extra is \(2,\), expected no such tensor"),
        (lambda s: changed(s, longformer__embeddings__LayerNorm__bias=torch.ones(9)), r"\(9,\), expected \(16,\)"),
        (lambda s: {**s, **bare(s)}, "two models"),
        (lambda s: changed(s, longformer__embeddings__item_position_embeddings__weight=torch.ones(5)), "no matrix"),
        (lambda s: changed(s, longformer__encoder__layer__7__x=torch.ones(1)), "not numbered"),
        (
            lambda s: changed(
                s, longformer__embeddings__position_embeddings__weight=torch.ones(1, 16).expand(10**8, 16)
            ),
            "bytes of tensors",
        ),
    ],
)
def test_what_is_no_recformer_is_refused(tmp_path, seqrec, build, message):
    with pytest.raises(CheckpointError, match=message):
        convert(save(tmp_path, build(seqrec)), tmp_path / "out", **SETTINGS)
    assert not (tmp_path / "out").exists()


def test_settings_that_do_not_exist_or_do_not_fit_are_refused(tmp_path, seqrec):
    path = save(tmp_path, seqrec)
    for wrong in ({"num_attention_heads": 3}, {"max_token_num": 4000}, {"attention_window": "wide"}):
        with pytest.raises(CheckpointError, match="can be built"):
            convert(path, tmp_path / "out", **{**SETTINGS, **wrong})
    with pytest.raises(ConfigError, match="no field 'max_tokens'"):
        convert(path, tmp_path / "out", max_tokens=48)
    assert not (tmp_path / "out").exists()


def test_nothing_in_a_checkpoint_is_run(tmp_path, seqrec):
    class Bomb:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'marker'}",)

    convert(save(tmp_path, {"state_dict": dict(seqrec), "hyper_parameters": Bomb()}), tmp_path / "out", **SETTINGS)
    assert not (tmp_path / "marker").exists()


def test_the_command_line_converts(tmp_path, capsys):
    """A model as wide as one head of the authors', so that their settings fit."""
    kind = {"num_hidden_layers": 1, "hidden_size": 64, "num_attention_heads": 1, "intermediate_size": 8}
    torch.manual_seed(0)
    model = RecformerForPretraining(RecformerConfig(vocab_size=50265, **kind))
    state = {name: parameter.detach() for name, parameter in model.named_parameters()}
    frozen = state.pop(WORDS)
    path, words = save(tmp_path, {f"_forward_module.model.{n}": t for n, t in state.items()}), tmp_path / "words.bin"
    torch.save({WORDS: frozen}, words)
    command = ["convert", "recformer", str(path), str(tmp_path / "out")]
    assert cli.main(command) == 2 and "word_embeddings=FILE" in capsys.readouterr().err
    assert cli.main([*command, "--pretraining", "--word-embeddings", str(words)]) == 0
    assert "RecformerForPretraining with" in capsys.readouterr().out
    assert holds(RecformerForPretraining.from_pretrained(tmp_path / "out"), state | {WORDS: frozen})
    assert cli.main(["convert", "unisrec", str(path), str(tmp_path / "out"), "--pretraining"]) == 2
    assert "about Recformer" in capsys.readouterr().err
