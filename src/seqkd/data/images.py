"""Item images to vectors, with any image model of the Hub (MISSRec, arXiv:2308.11175: CLIP ViT-B/32)."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import AutoImageProcessor, AutoModel

from ..errors import CheckpointError, ConfigError, DataError
from ..files.model_folder import config_of
from .encoding_cache import cached, sha256_of_file

if TYPE_CHECKING:
    from PIL import Image
else:
    try:
        from PIL import Image
    except ImportError:  # an extra: the rest of seqkd does without
        Image = None

logger = logging.getLogger(__name__)
ENDINGS = (".jpg", ".jpeg", ".png", ".webp")
FORMATS = ("JPEG", "PNG", "WEBP", "GIF")  # others have decoders that start programs (EPS) or read other files
MOST_PIXELS = 80_000_000  # a larger picture is a decompression bomb, or of no use at 224 x 224
LONGEST = 50  # times as long as wide: the short side becomes 224, so a line of pixels would grow to gigabytes
POOLER = "pooler."  # a pre-training of its own; checkpoints without it would be given random weights
Picture: TypeAlias = "str | os.PathLike | Image.Image | None"


def encode_images(
    images: Sequence[Picture],
    model_name: str | os.PathLike = "openai/clip-vit-base-patch32",
    *,
    batch_size: int = 64,
    device: str | torch.device = "cpu",
    cache_dir: str | os.PathLike | None = None,
    revision: str | None = None,
) -> np.ndarray:
    """One vector per image, `(n, P)` float32 as the model gives it (not normalised).

    An image that is not there (`None`, no such file) or cannot be read (damaged, no image, beyond 80 million pixels,
    50 times as long as wide) gets zeros; both are counted in a logged line.

    Args:
        images: paths or PIL images, see `image_paths`; read as RGB, of an animation the first picture.
        model_name: a folder or a Hub id with safetensors weights; code from the Hub is never run. CLIP and SigLIP give
            their image embedding, others (ViT, DINOv2) their pooled output, or [CLS] where they were trained without.
        cache_dir: keeps the vectors in `image-<key>.safetensors`, the key being model and contents of the images.

    Raises:
        ConfigError: Pillow is not installed, or `batch_size` is below 1.
        DataError: an entry is neither a path nor an image.
        CheckpointError: there is no such model, or its weights do not fill it.
    """
    if Image is None:
        raise ConfigError('reading images needs Pillow. Install it with: pip install "seqkd[images]"')
    if batch_size < 1:
        raise ConfigError(f"{batch_size=} must be at least 1.")
    _check(images)
    return cached(
        cache_dir,
        "image",
        (model_name, revision),
        {},
        (_fingerprint(image) for image in images),
        lambda: _encode(images, str(model_name), revision, batch_size, device),
    )


def image_paths(folder: str | os.PathLike, item_ids: Sequence[str]) -> list[Path | None]:
    """The file `<item id>.jpg`, `.jpeg`, `.png` or `.webp` (the first of them) of each item, None where there is none.

    Only files directly in the folder are found, whatever the ids say.

    Raises:
        DataError: no such folder, or not one item has an image.
    """
    if not Path(folder).is_dir():
        raise DataError(f"{folder} is no folder. Give the folder with the images <item id>.jpg, .jpeg, .png or .webp.")
    files = sorted(
        (file for file in Path(folder).iterdir() if file.suffix.lower() in ENDINGS),
        key=lambda file: (-ENDINGS.index(file.suffix.lower()), file.name),
    )
    by_id = {file.name[: -len(file.suffix)]: file for file in files}  # the last one wins
    paths = [by_id.get(item) for item in item_ids]
    missing = [item for item, path in zip(item_ids, paths, strict=True) if path is None]
    if missing and len(missing) == len(paths):
        expected = [f"{item}.jpg" for item in missing[:3]]
        found = sorted(file.name for file in files)[:3] or "no image"
        raise DataError(
            f"{folder}: not one of {len(paths)} items has an image. Expected names like {expected} (or .jpeg, .png, "
            f".webp), found {found}. Name each image after its item."
        )
    if missing:
        logger.warning(
            "%s: %d of %d items have no image, first %s.", folder, len(missing), len(paths), list(missing[:3])
        )
    return paths


def _check(images: Sequence[Picture]) -> None:
    if isinstance(images, (str, os.PathLike, Image.Image)):
        raise DataError("images must be a list, got one image. Write encode_images([image]).")
    for row, image in enumerate(images):
        if image is not None and not isinstance(image, (str, os.PathLike, Image.Image)):
            raise DataError(f"image {row} is {type(image).__name__}, but must be a path, a PIL image or None.")


def _fingerprint(image: Picture) -> bytes:
    """What tells an image from others: the file, or the pixels; nothing where there is nothing to read."""
    if isinstance(image, Image.Image):
        picture, _ = _read(image)
        return b"" if picture is None else hashlib.sha256(f"{picture.size}".encode() + picture.tobytes()).digest()
    try:
        return b"" if image is None else sha256_of_file(image)
    except OSError:
        return b""


def _read(image: str | os.PathLike | Image.Image) -> tuple[Image.Image | None, str]:
    """The image as RGB, or None and why."""
    try:
        with nullcontext(image) if isinstance(image, Image.Image) else Image.open(image, formats=FORMATS) as opened:
            width, height = opened.size  # of the header: nothing is decoded yet
            if width * height > MOST_PIXELS or max(width, height) > LONGEST * min(width, height):
                return None, f"{width} x {height} pixels"
            return opened.convert("RGB"), ""
    except Exception as error:  # decoders fed with damaged bytes raise whatever comes up
        return None, str(error) or type(error).__name__


@torch.inference_mode()
def _encode(
    images: Sequence[Picture], model_name: str, revision: str | None, batch_size: int, device: str | torch.device
) -> np.ndarray:
    config_of(model_name, revision)  # says kindly where there is no model
    # PIL also where torchvision is installed: the same vectors everywhere
    processor = AutoImageProcessor.from_pretrained(
        model_name, revision=revision, trust_remote_code=False, backend="pil"
    )
    model, told = AutoModel.from_pretrained(
        model_name,
        revision=revision,
        trust_remote_code=False,
        use_safetensors=True,
        dtype=torch.float32,
        output_loading_info=True,
    )
    lacking = sorted(told["missing_keys"])
    if not all(name.startswith(POOLER) for name in lacking):
        raise CheckpointError(
            f"{model_name} lacks the weights {lacking[:3]} ({len(lacking)} in all), so its vectors would be random. "
            "Use a complete image model."
        )
    model = model.to(device).eval()
    embed = getattr(model, "get_image_features", model)  # models of image and text have a tower for each

    def vectors_of(pictures: list[Image.Image]) -> np.ndarray:
        # one by one, so that only pixels of the model's size pile up
        inputs = [processor(picture, return_tensors="pt") for picture in pictures]
        output = embed(**{name: torch.cat([one[name] for one in inputs]).to(device) for name in inputs[0]})
        pooled = output.last_hidden_state[:, 0] if lacking or output.pooler_output is None else output.pooler_output
        return pooled.flatten(1).cpu().numpy()  # (B, P)

    vectors = np.zeros((len(images), vectors_of([Image.new("RGB", (32, 32))]).shape[1]), dtype=np.float32)
    missing, broken = [], []
    for at in tqdm(
        range(0, len(images), batch_size), desc=f"encoding images with {Path(model_name).name}", disable=None
    ):
        rows, pictures = [], []
        for row in range(at, min(at + batch_size, len(images))):
            image = images[row]
            if image is None or (not isinstance(image, Image.Image) and not os.path.exists(image)):
                missing.append(f"image {row}" if image is None else str(image))
                continue
            picture, fault = _read(image)
            if picture is None:
                broken.append(f"{image if isinstance(image, (str, os.PathLike)) else f'image {row}'} ({fault})")
            else:
                rows.append(row)
                pictures.append(picture)
        if rows:
            vectors[rows] = vectors_of(pictures)
    for names, what in ((missing, "are missing"), (broken, "cannot be read")):
        if names:
            logger.warning("%d of %d images %s; their vectors are zero: %s.", len(names), len(images), what, names[:3])
    return vectors
