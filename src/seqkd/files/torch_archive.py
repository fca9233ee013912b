"""Read the tensors of a foreign `.pth` file, a zip of raw numbers and a pickle, without running what is in it."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import CheckpointError
from .inert_pickle import StoredTensor, describe, replay


def read_archive(path: str | os.PathLike) -> tuple[dict, Callable[[StoredTensor], Tensor]]:
    """The dict saved in a `.pth` file, tensors as `StoredTensor`, and the function that reads one of them.

    Raises:
        CheckpointError: the file is no zip of `torch.save`, is cut or damaged, or declares more than it holds.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
            programs = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
            if len(programs) != 1:
                raise CheckpointError(f"{path} is a zip, but not one of torch.save: it holds no NAME/data.pkl.")
            root = programs[0].removesuffix("data.pkl")
            program = _read(archive, entries, programs[0], path)
            order = _read(archive, entries, f"{root}byteorder", path) if f"{root}byteorder" in entries else b"little"
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise CheckpointError(
            f"{path} cannot be read as a torch.save file ({error}). It is cut or older than PyTorch 1.6."
        ) from error
    if order != b"little":
        raise CheckpointError(f"{path} was written with byte order {order!r}; only little-endian files are read.")
    try:
        saved = replay(program)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise CheckpointError(f"{path}: data.pkl is damaged ({type(error).__name__}: {error}).") from error
    if not isinstance(saved, dict):
        raise CheckpointError(f"{path} holds {describe(saved)}, expected a dict with a 'state_dict'.")

    def read_tensor(stored: StoredTensor) -> Tensor:
        with zipfile.ZipFile(path) as again:
            try:
                raw = _read(again, entries, f"{root}data/{stored.key}", path)
            except (zipfile.BadZipFile, OSError, EOFError) as error:
                raise CheckpointError(f"{path}: tensor data {stored.key} is damaged ({error}).") from error
        return _view(stored, raw, path)

    return saved, read_tensor


def _read(archive: zipfile.ZipFile, entries: dict[str, zipfile.ZipInfo], name: str, path: str | os.PathLike) -> bytes:
    """The bytes of an entry. torch never compresses, so an entry cannot be larger than the file (no zip bombs)."""
    entry = entries.get(name)
    if entry is None:
        raise CheckpointError(f"{path}: the entry {name} is missing. The file is cut; fetch it again.")
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > os.path.getsize(path):
        raise CheckpointError(f"{path}: the entry {name} is compressed or larger than the file, unlike torch.save.")
    return archive.read(entry)


def _view(stored: StoredTensor, raw: bytes, path: str | os.PathLike) -> Tensor:
    """A strided copy of the raw numbers, never larger than they are."""
    width = torch.empty((), dtype=stored.dtype).element_size()
    held, wanted = len(raw) // width, 1
    last = stored.offset
    for size, stride in zip(stored.size, stored.stride, strict=True):
        wanted *= size
        last += (size - 1) * stride
    negative = min((stored.offset, *stored.size, *stored.stride)) < 0
    if negative or wanted > held or (wanted and last >= held):
        raise CheckpointError(
            f"{path}: tensor data {stored.key} holds {held} numbers, too few for shape {stored.size} with strides "
            f"{stored.stride} from {stored.offset}. The file is damaged."
        )
    if not wanted:
        return torch.empty(stored.size, dtype=stored.dtype)
    flat = torch.frombuffer(bytearray(raw[: held * width]), dtype=stored.dtype)
    return flat.as_strided(stored.size, stored.stride, stored.offset).clone()
