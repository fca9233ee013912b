"""Teachers of a stream that read about its items: new ones start from their texts; what cannot be read is refused."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pyarrow as pa
import pytest
import torch
from datasets import Dataset

from seqkd import UniSRecForPretraining
from seqkd.continual.baselines import BASELINES, Chain
from seqkd.continual.configuration import ContinualConfig
from seqkd.continual.content import check_content, content_of, new_learner
from seqkd.continual.evolution import Evolution
from seqkd.data.columns import IMAGE_FEATURES, TEXT_FEATURES
from seqkd.data.interactions import load_interactions
from seqkd.data.stream import Block
from seqkd.data.stream_cut import cut_stream, next_block
from seqkd.errors import ConfigError, DataError

from .small import config, market

WIDTH = 6
SEQUENCES = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "max_position_embeddings": 20}
SEQUENCES |= {"hidden_dropout_prob": 0.1}  # half of 8 dropped, as by default, is all of them too often
TEACHER = {"type": "unisrec", "model": SEQUENCES}


def told(items: list[str]) -> np.ndarray:
    """Three directions, by kind of item, with a little of the item's own."""
    number = np.array([int(item[1:]) for item in items])
    vectors = np.eye(WIDTH)[number % 3]
    return vectors + 0.1 * np.random.default_rng(7).normal(size=(100, WIDTH))[number]


def shop(vectors: bool = True):
    log = market()
    ids = sorted(set(log["interactions"]["item_id"][:]))
    columns = {"item_id": ids, "title": [f"kind {int(item[1:]) % 3}" for item in ids]}
    if vectors:
        columns[TEXT_FEATURES] = told(ids).astype(np.float32).tolist()
    log["items"] = Dataset(pa.table(columns))
    return load_interactions(log, domain="shop")


@cache
def stream(vectors: bool = True) -> tuple[Block, ...]:
    return tuple(cut_stream(shop(vectors), blocks=2, queries="positions", max_length=20))


def settings(**changes) -> ContinualConfig:
    generate = {"methods": {"full_ce": {}}, "weights": {"full_ce": 1.0}, "training": config().base.training}
    given = {"student": {"type": "sasrec", "model": SEQUENCES}, "teachers": {"words": TEACHER}, "generate": generate}
    return config(**{**given, "blocks": {"queries": "positions", "max_length": 20}, **changes})


def test_new_items_of_a_teacher_start_from_what_is_told_about_them(tmp_path):
    run, blocks = Evolution(tmp_path / "run", settings()), stream()
    for block in blocks:
        run.step(block)
    assert blocks[2].known_items < len(blocks[2].catalogue)  # something is new
    teacher = run.model(2, "teachers/words")
    expected = torch.from_numpy(told(list(blocks[2].catalogue.item_ids))).float()
    expected *= WIDTH**0.5 / expected.norm(dim=1, keepdim=True)  # text vectors have a root mean square of 1
    torch.testing.assert_close(teacher.item_features[1:], expected)
    assert run.matrices("recall@5")["teachers/words"].h_mean(2) > 0.2
    again = Evolution(tmp_path / "run").blocks[1].items  # in another process, too
    assert again["item_id"][:] == list(blocks[1].catalogue.item_ids[blocks[1].known_items :])


def test_a_teacher_reads_images_too(tmp_path):
    blocks = [replace(one, items=one.items.add_column(IMAGE_FEATURES, one.items[TEXT_FEATURES])) for one in stream()]
    both = {**SEQUENCES, "modalities": ["text", "image"]}
    run = Evolution(tmp_path, settings(teachers={"both": {"type": "unim2rec", "model": both}}))
    for block in blocks[:2]:
        run.step(block)
    teacher = run.model(1, "teachers/both")
    assert len(teacher.catalogue) == len(blocks[1].catalogue) > blocks[1].known_items
    assert teacher.content_embeddings().shape[0] == len(blocks[1].catalogue) + 1


def test_a_teacher_made_afresh_reads_all_blocks(tmp_path):
    run, blocks = settings(), list(stream())
    how = {"model": run.teachers["words"], "stage": run.update_teacher, "base": run.base}
    for name in ("retrain", "fine-tune, init"):
        chain = Chain(tmp_path / name, BASELINES[name], run, first=tmp_path / "retrain/0/model", **how)
        for k in range(3):
            chain.step(blocks[: k + 1])
        assert len(chain.model(2).item_features) == len(blocks[2].catalogue) + 1


def test_a_pretrained_teacher_begins_with_its_encoder(tmp_path):
    block = stream()[0]
    untrained = new_learner(block, [block], settings().teachers["words"], settings(), "teachers.words", 3)
    pretrained = UniSRecForPretraining(untrained.config)
    pretrained.set_item_features(untrained.item_features[1:])
    pretrained.set_catalogue(block.catalogue)
    pretrained.save_pretrained(tmp_path / "shared")
    chosen = settings(teachers={"words": {**TEACHER, "pretrained": str(tmp_path / "shared")}})
    model = new_learner(block, [block], chosen.teachers["words"], chosen, "teachers.words", 0)
    theirs = dict(pretrained.named_parameters())
    shared = [name for name, _ in model.named_parameters() if "layers" in name]
    assert shared and all(torch.equal(model.get_parameter(name), theirs[name]) for name in shared)


def test_what_nobody_reads_is_not_asked_for():
    block, run = stream()[1], settings(teachers={"wide": {"type": "sasrec", "model": SEQUENCES}})
    assert content_of([block], run.teachers["wide"], run, "teachers.wide") is None
    nothing_new = replace(block, known_items=len(block.catalogue))
    assert content_of([nothing_new], settings().teachers["words"], settings(), "teachers.words") is None
    check_content([replace(block, items=Dataset.from_dict({}))], run)


def test_a_block_that_tells_nothing_is_refused_before_anything_moves(tmp_path):
    run, (base, block, _) = Evolution(tmp_path, settings()), stream()
    with pytest.raises(DataError, match=r"tells nothing about its \d+ new items, but \['teachers.words'\] read them"):
        run.step(replace(base, items=Dataset.from_dict({})))
    assert not (tmp_path / "0").exists()
    run.step(base)
    with pytest.raises(DataError, match=r"block 1 brings the vectors \{\} .* but block 0 brought \{'text_f"):
        run.step(replace(block, items=block.items.remove_columns(TEXT_FEATURES)))
    assert not (tmp_path / "1").exists() and not (tmp_path / "1.refused").exists()


def test_vectors_of_another_width_are_refused(tmp_path):
    run, (base, block, _) = Evolution(tmp_path, settings()), stream()
    run.step(base)
    wide = block.items.map(lambda row: {TEXT_FEATURES: [*row[TEXT_FEATURES], 0.0]})
    with pytest.raises(DataError, match=r"brings the vectors \{'text_features': 7\} .* brought \{'text_features': 6\}"):
        run.step(replace(block, items=wide))
    assert not (tmp_path / "1").exists()


def test_a_block_that_is_given_again_with_other_texts_is_another(tmp_path):
    run, base = Evolution(tmp_path, settings()), stream()[0]
    run.ledger(0).run("block", base.save)  # begun
    other = base.items.map(lambda row: {"title": "another"})
    with pytest.raises(DataError, match="block 0 was begun with other interactions or items"):
        run.step(replace(base, items=other))
    assert run.begun.fingerprint == base.fingerprint


def test_a_folder_of_images_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"images\.folder"):
        check_content(stream()[:1], settings(images={"folder": str(tmp_path / "nowhere")}))


def test_a_pretrained_model_that_is_not_there_is_refused_before_anything_is_trained(tmp_path):
    run = Evolution(tmp_path, settings(teachers={"words": {**TEACHER, "pretrained": str(tmp_path / "nowhere")}}))
    with pytest.raises(
        ConfigError, match=r"teachers\.words\.pretrained: .*nowhere.* To begin from scratch, leave it out"
    ):
        run.step(stream()[0])
    assert not (tmp_path / "0").exists()


def test_items_without_a_text_are_the_blocks_fault():
    log = market()
    block = next_block([], log, queries="positions")
    with pytest.raises(DataError, match="block 0: shop: no item has a text"):
        check_content([block], settings())


@pytest.mark.parametrize(
    ("teacher", "says"),
    [
        ({"type": "unisrec", "members": 3}, "teachers.words.members does nothing on a stream"),
        ({"type": "unisrec", "training": {"learning_rate": 1.0}}, "teachers.words.training does nothing"),
        ({"type": "sasrec", "pretrained": "somewhere"}, "a sasrec knows items by their ids"),
        ({"type": "word2vec"}, "teachers.words.type must be one of"),
        ({"type": "recformer"}, "teachers.words.type must be one of"),  # which has two stages
        ({"type": "unisrec", "model": {"hiden_size": 3}}, r"teachers\.words\.model.*hidden_size"),
        ({"type": "lightgcn"}, r"blocks.queries is 'positions', which does not suit \['teachers.words'\]"),
    ],
)
def test_settings_that_would_do_nothing_are_refused(teacher, says):
    with pytest.raises(ConfigError, match=says):
        settings(teachers={"words": teacher})


def test_a_student_reads_nothing():
    with pytest.raises(ConfigError, match=r"student\.type must be one of"):
        settings(student=TEACHER)
