"""Item images: real files of every kind of fault, and tiny random CLIP, SigLIP and ViT models."""

from __future__ import annotations

import logging
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, CLIPConfig, CLIPModel, SiglipConfig, SiglipModel, ViTConfig, ViTModel

from seqkd.data import images
from seqkd.data.images import encode_images, image_paths
from seqkd.errors import CheckpointError, ConfigError, DataError

Image = pytest.importorskip("PIL.Image", reason='pip install "seqkd[images]"')
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil  # noqa: E402
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil  # noqa: E402
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil  # noqa: E402

VISION = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip
TEXT = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 50,
    "max_position_embeddings": 8,
}  # fmt: skip
SQUARE = {"height": 32, "width": 32}


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    """Folders of random models with their image processors."""
    torch.manual_seed(0)
    clip = CLIPConfig(vision_config=VISION, text_config=TEXT, projection_dim=12)
    made = {
        "clip": (CLIPModel(clip), CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=SQUARE)),
        "siglip": (
            SiglipModel(SiglipConfig(vision_config=VISION, text_config=TEXT)),
            SiglipImageProcessorPil(size=SQUARE),
        ),
        "vit": (ViTModel(ViTConfig(**VISION)), ViTImageProcessorPil(size=SQUARE)),
        "vit-without-pooler": (
            ViTModel(ViTConfig(**VISION), add_pooling_layer=False),
            ViTImageProcessorPil(size=SQUARE),
        ),
    }
    folders = {name: tmp_path_factory.mktemp("models") / name for name in made}
    for name, parts in made.items():
        for part in parts:
            part.save_pretrained(folders[name])
    return folders


def picture(seed: int, width: int = 40, height: int = 30) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.fixture
def shop(tmp_path) -> Path:
    """Three images of items, and every way in which a file can be none."""
    folder = tmp_path / "shop"
    folder.mkdir()
    picture(0).save(folder / "a.png")
    picture(1, 64, 64).save(folder / "b.jpg")
    picture(2).save(folder / "c.WEBP", lossless=True)
    (folder / "cut.png").write_bytes((folder / "a.png").read_bytes()[:400])
    (folder / "text.jpg").write_text("<html>404</html>")
    (folder / "empty.png").touch()
    (folder / "program.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    header = b"IHDR" + struct.pack(">IIBBBBB", 9_000, 9_000, 8, 2, 0, 0, 0)  # it would be 243 MB of RGB
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    (folder / "bomb.png").write_bytes(bomb + (folder / "a.png").read_bytes()[33:])
    Image.new("RGB", (1, 51)).save(folder / "line.png")
    return folder


# ---- what the models give ---------------------------------------------------------------------------------------


def by_hand(kind: str, folder: Path, image: Image.Image) -> np.ndarray:
    """(P,): the pixels as the processor's configuration says, without transformers' image code."""
    mean, std = (
        (np.array([0.48145466, 0.4578275, 0.40821073]), np.array([0.26862954, 0.26130258, 0.27577711]))
        if kind == "clip"
        else (np.full(3, 0.5), np.full(3, 0.5))
    )
    pixels = (np.asarray(image, dtype=np.float64) / 255 - mean) / std  # already 32 x 32: no resizing
    model = AutoModel.from_pretrained(folder).eval()
    batch = torch.tensor(pixels.transpose(2, 0, 1)[None], dtype=torch.float32)
    with torch.no_grad():
        if kind == "clip":
            return model.visual_projection(model.vision_model(batch).pooler_output)[0].numpy()
        if kind == "siglip":
            return model.vision_model(batch).pooler_output[0].numpy()
        output = model(batch)
        return (output.pooler_output[0] if kind == "vit" else output.last_hidden_state[0, 0]).numpy()


@pytest.mark.parametrize("kind", ["clip", "siglip", "vit", "vit-without-pooler"])
def test_the_image_tower_embeds(kind, models):
    """A ViT saved without pooler gives [CLS]: its pooler would be new and random at every loading."""
    image = picture(7, 32, 32)
    vectors = encode_images([image], models[kind])
    assert vectors.shape == (1, 12 if kind == "clip" else 16) and vectors.dtype == np.float32
    np.testing.assert_allclose(vectors[0], by_hand(kind, models[kind], image), atol=1e-5)


def test_vectors_do_not_depend_on_batches_and_on_where_the_image_is(models, shop):
    files = [shop / "a.png", str(shop / "b.jpg"), shop / "c.WEBP"]
    vectors = encode_images(files, models["clip"], batch_size=2)
    alone = np.concatenate([encode_images([file], models["clip"]) for file in files])
    np.testing.assert_allclose(vectors, alone, atol=1e-5)
    np.testing.assert_allclose(encode_images([picture(0)], models["clip"])[0], vectors[0], atol=1e-5)  # PNG is exact
    assert np.abs(vectors[0] - vectors[2]).max() > 1e-3


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK", "I;16"])
def test_every_mode_is_read_as_rgb(mode, models, tmp_path):
    image = Image.new(mode, (20, 20))
    assert encode_images([image], models["clip"]).any()


@pytest.mark.parametrize("size", [(1, 1), (3, 1), (1, 3), (3, 3), (50, 1)])
def test_tiny_images_are_not_taken_for_channels(size, models):
    image = Image.new("RGB", size, (200, 30, 90))
    big = Image.new("RGB", (64, 64), (200, 30, 90))  # one colour looks the same at every size
    np.testing.assert_allclose(*encode_images([image, big], models["vit"]), atol=1e-5)


# ---- what is not there or no image ------------------------------------------------------------------------------


def test_missing_and_broken_images_get_zeros_and_are_counted(models, shop, caplog):
    names = ["a.png", "cut.png", "text.jpg", "empty.png", "program.png", "bomb.png", "line.png", "gone.png", "b.jpg"]
    with caplog.at_level(logging.WARNING, logger="seqkd.data.images"):
        vectors = encode_images([*(shop / name for name in names), None], models["clip"], batch_size=4)
    assert vectors.any(axis=1).tolist() == [True, *[False] * 7, True, False]
    missing, broken = (record.getMessage() for record in caplog.records)
    assert missing.startswith("2 of 10 images are missing") and "gone.png" in missing and "image 9" in missing
    assert broken.startswith("6 of 10 images cannot be read") and "cut.png" in broken and "truncated" in broken
    assert "cannot identify" in images._read(shop / "program.png")[1]  # not handed to Ghostscript
    assert images._read(shop / "bomb.png") == (None, "9000 x 9000 pixels")
    assert images._read(shop / "line.png") == (None, "1 x 51 pixels")
    assert images._read(Image.new("RGB", (51, 1))) == (None, "51 x 1 pixels")


def test_only_images_that_are_not_there_have_the_width_of_the_model(models):
    assert encode_images([None, None], models["clip"]).tolist() == np.zeros((2, 12)).tolist()
    assert encode_images([], models["clip"]).shape == (0, 12)


@pytest.mark.parametrize(
    ("given", "message"),
    [("a.png", "must be a list"), (Path("a.png"), "must be a list"), ([None, 3], "image 1 is int")],
)
def test_bad_lists_are_refused_before_the_model_loads(given, message):
    with pytest.raises(DataError, match=message):
        encode_images(given, "no/such-model")


def test_bad_settings_and_missing_pillow(monkeypatch):
    with pytest.raises(ConfigError, match="batch_size=0"):
        encode_images([None], "no/such-model", batch_size=0)
    monkeypatch.setattr(images, "Image", None)
    with pytest.raises(ConfigError, match=r'pip install "seqkd\[images\]"'):
        encode_images([None], "no/such-model")


def test_a_model_that_is_not_there_is_refused_in_a_line(tmp_path):
    with pytest.raises(CheckpointError, match=r"there is no folder 'no/such-model', and no such model of the Hub"):
        encode_images([picture(0)], "no/such-model", cache_dir=tmp_path / "cache")


def test_weights_that_leave_the_model_random_are_refused(models, tmp_path):
    ViTModel(ViTConfig(**VISION | {"num_hidden_layers": 1})).save_pretrained(tmp_path)
    ViTImageProcessorPil(size=SQUARE).save_pretrained(tmp_path)
    ViTConfig(**VISION).save_pretrained(tmp_path)  # promises a second layer
    with pytest.raises(CheckpointError, match=r"lacks the weights .* would be random"):
        encode_images([None], tmp_path)


# ---- cache ------------------------------------------------------------------------------------------------------


def test_the_cache_answers_only_the_same_question(models, shop, tmp_path, monkeypatch):
    calls = []
    encode = images._encode
    monkeypatch.setattr(images, "_encode", lambda *given: calls.append(1) or encode(*given))

    def ask(*given) -> np.ndarray:
        return encode_images(given, models["clip"], cache_dir=tmp_path / "cache")

    vectors = ask(shop / "a.png", None)
    assert np.array_equal(ask(shop / "a.png", None), vectors) and len(calls) == 1
    assert np.array_equal(ask(shop / "a.png", shop / "new.png"), vectors) and len(calls) == 1  # not there: the same
    picture(5).save(shop / "new.png")  # and now it is
    assert ask(shop / "a.png", shop / "new.png").any(axis=1).all() and len(calls) == 2
    ask(None, shop / "a.png")
    ask(picture(0), None)
    red, blue = Image.new("P", (4, 4)), Image.new("P", (4, 4))
    red.putpalette([255, 0, 0])
    blue.putpalette([0, 0, 255])
    assert not np.allclose(ask(red), ask(blue)) and len(calls) == 6
    settings = models["clip"] / "preprocessor_config.json"
    told = settings.read_text()
    settings.write_text(told.replace('"do_normalize": true', '"do_normalize": false'))
    assert not np.allclose(ask(shop / "a.png", None), vectors) and len(calls) == 7  # other pixels reach the model
    settings.write_text(told)


# ---- files of items ---------------------------------------------------------------------------------------------


def test_images_are_found_by_item_id(shop, caplog):
    picture(3).save(shop / "b.png")  # .jpg comes first
    picture(4).save(shop / "v1.2.png")
    with caplog.at_level(logging.WARNING, logger="seqkd.data.images"):
        paths = image_paths(shop, ["c", "b", "x", "v1.2", "a", "v1"])
    assert paths == [shop / "c.WEBP", shop / "b.jpg", None, shop / "v1.2.png", shop / "a.png", None]
    assert "2 of 6 items have no image, first ['x', 'v1']" in caplog.text


def test_item_ids_never_leave_the_folder(shop):
    picture(0).save(shop.parent / "x.png")
    (shop / "inner").mkdir()
    picture(0).save(shop / "inner" / "y.png")
    strange = ["a", "../x", str(shop.parent / "x"), "inner/y", "./a", "..", "", "a\0"]
    assert image_paths(shop, strange) == [shop / "a.png", *[None] * 7]


def test_no_image_at_all_shows_the_expected_names(shop):
    with pytest.raises(DataError, match=r"not one of 2 items .*\['B01\.jpg', 'B02\.jpg'\].*found \['a\.png'"):
        image_paths(shop, ["B01", "B02"])
    with pytest.raises(DataError, match="is no folder"):
        image_paths(shop / "nowhere", ["a"])
    assert image_paths(shop, []) == []
