"""Item vectors that somebody else encoded (text, images), one row per item: read from files, kept in Arrow columns.

A matrix has no ids, so its rows mean nothing once items are filtered or moved. The readers therefore make it a column
of the item table at once (`as_column`), and it becomes a matrix again after all filtering (`from_column`).
"""

from __future__ import annotations

import logging
import os
from difflib import get_close_matches
from pathlib import Path
from tokenize import TokenError

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from safetensors import SafetensorError, safe_open

from ..errors import DataError

logger = logging.getLogger(__name__)
RAW = (".feat1cls", ".feat2cls", ".feat3cls")  # UniSRec: text, text with dropped words, images
NAMED_TENSOR = ".safetensors#"
FLOATS = ("F16", "BF16", "F32", "F64")
USUAL_WIDTHS = (384, 512, 768, 1024)
DAMAGED_HEADER = (ValueError, OSError, OverflowError, SyntaxError, TokenError, TypeError, KeyError, MemoryError)


def read_features(path: str | os.PathLike, num_items: int, *, width: int | None = None) -> np.ndarray:
    """One vector per item, `(I, P)` float32, row i of the file in row i; a row of zeros means missing and is counted.

    float32 on disk is mapped, not copied: leave the file as it is while the array is in use. What is written into the
    array never reaches the file.

    Args:
        path: by its ending: UniSRec's headerless little-endian float32 (`.feat1CLS`, `.feat2CLS`, `.feat3CLS`),
            `.npy`, or `.safetensors` with one tensor or, of several, `vectors.safetensors#name`. Half, bfloat16 and
            double precision are converted.
        num_items: rows that the file must have.
        width: P, where it is known; a headerless file without it is as wide as its size says.

    Raises:
        DataError: no such file, another format or dtype, another number of rows or columns, NaN or infinity.
    """
    if num_items < 1:
        raise DataError(f"{path}: there are {num_items} items, so no vectors to read. Read the item table first.")
    name, tensor = os.fspath(path), ""
    if NAMED_TENSOR in name:
        name, tensor = name.rsplit("#", 1)
    file = Path(name)
    if not file.is_file():
        near = get_close_matches(file.name, _names(file.parent), n=1, cutoff=0.5)
        raise DataError(f"{file} does not exist." + (f" Did you mean {near[0]!r}?" if near else " Check the path."))
    ending = file.suffix.lower()
    if ending in RAW:
        vectors = _raw(file, num_items, width)
    elif ending == ".npy":
        vectors = _npy(file)
    elif ending == ".safetensors":
        vectors = _safetensors(file, tensor)
    else:
        raise DataError(
            f"{file} ends in {ending!r}, but feature files are .feat1CLS, .feat2CLS, .feat3CLS, .npy or .safetensors. "
            "Pickles and archives are never opened: write the matrix with np.save."
        )
    if vectors.ndim != 2 or vectors.shape != (num_items, width or vectors.shape[1]) or not vectors.size:
        raise DataError(
            f"{file} holds an array of shape {vectors.shape}, but there are {num_items} items, so it must be "
            f"({num_items}, {width or 'width'}): one row per item, in the order of the item table, no padding row."
        )
    with np.errstate(over="ignore"):  # a double beyond float32 becomes infinite and is named below
        vectors = np.asarray(vectors, dtype=np.float32, order="C")
    low, high = vectors.min(axis=1), vectors.max(axis=1)  # NaN and infinity come through, without a matrix of booleans
    finite = np.isfinite(low) & np.isfinite(high)
    if not finite.all():
        raise DataError(
            f"{file}: {num_items - int(finite.sum())} of {num_items} rows hold NaN or infinity (as float32), first "
            f"row {int(finite.argmin()) + 1}. Encode those items again, or write zeros where a vector is missing."
        )
    if missing := int(((low == 0) & (high == 0)).sum()):
        logger.warning("%s: %d of %d items have no vector (a row of zeros).", file, missing, num_items)
    return vectors


def scale_rows(vectors: np.ndarray) -> np.ndarray:
    """Each row `(I, P)` scaled to a root mean square of 1; rows of zeros (missing) stay zeros."""
    square = np.einsum("ip,ip->i", vectors, vectors, dtype=np.float64) / max(vectors.shape[1], 1)
    scale = np.sqrt(np.where(square > 0, square, 1.0))
    return (vectors / scale[:, None].astype(np.float32)).astype(np.float32, copy=False)


def as_column(vectors: np.ndarray) -> pa.Array:
    """A matrix `(I, P)` as the list<float32> column of an item table; a copy, so that a mapped file may change."""
    offsets = pa.array(np.arange(len(vectors) + 1) * vectors.shape[1], pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.array(np.array(vectors, dtype=np.float32).reshape(-1)))


def from_column(column: pa.ChunkedArray) -> np.ndarray:
    """The vectors of a column of lists, `(I, P)` float32.

    Raises:
        DataError: a vector is missing, or they are not of one width.
    """
    widths = pc.unique(pc.list_value_length(column)).to_pylist()
    if len(widths) != 1 or None in widths:
        raise DataError(f"feature vectors must all be of one width, but these are {widths[:5]} wide (None: missing).")
    return pc.list_flatten(column).to_numpy().astype(np.float32, copy=False).reshape(len(column), widths[0])


def _names(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir()] if folder.is_dir() else []


def _raw(file: Path, rows: int, width: int | None) -> np.ndarray:
    size = file.stat().st_size
    if size == 0 or size % (4 * rows) or size != 4 * rows * (width or size // (4 * rows)):
        found = width and size % (4 * width) == 0 and f"{size // (4 * width)} items x {width}"
        usual = [f"{size // (4 * wide)} items x {wide}" for wide in USUAL_WIDTHS if size % (4 * wide) == 0]
        fits = f" (it would fit {found or ' or '.join(usual)})" if size and (found or usual) else ""
        raise DataError(
            f"{file} has {size} bytes, which is not {rows} items x {width or 'width'} x 4 bytes{fits}, so it is cut "
            "off or belongs to another item list. Encode the items again."
        )
    return np.memmap(file, dtype="<f4", mode="c", shape=(rows, size // (4 * rows)))


def _npy(file: Path) -> np.ndarray:
    """The array of a `.npy` file, mapped: arrays of objects, which are pickles, cannot be."""
    try:
        vectors = np.lib.format.open_memmap(file, mode="c")
    except DAMAGED_HEADER as error:
        raise DataError(
            f"{file} is no readable matrix of numbers ({error}). It is cut off, damaged, or an array of objects, "
            "which is a pickle and never opened. Write it with np.save(file, vectors.astype(np.float32))."
        ) from error
    if vectors.dtype.kind != "f":
        raise DataError(f"{file} holds {vectors.dtype}, but vectors are floats. Write vectors.astype(np.float32).")
    return vectors


def _safetensors(file: Path, name: str) -> np.ndarray:
    try:
        with safe_open(file, framework="pt") as tensors:
            names = list(tensors.keys())
            if not name and len(names) == 1:
                name = names[0]
            if name not in names:
                wrong = f"has no tensor {name!r}, but" if name else "holds several tensors or none:"
                raise DataError(f"{file} {wrong} {names[:10]}. Write '{file}#{names[0] if names else 'name'}'.")
            dtype = tensors.get_slice(name).get_dtype()
            if dtype not in FLOATS:
                raise DataError(f"{file}: tensor {name!r} is {dtype}, but vectors are floats ({', '.join(FLOATS)}).")
            return tensors.get_tensor(name).to(torch.float32).numpy()
    except (SafetensorError, OSError) as error:
        raise DataError(f"{file} is no readable safetensors file ({error}). Copy it again.") from error
