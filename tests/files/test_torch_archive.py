"""Foreign `.pth` files: tensors come out as torch wrote them, and nothing in the file is run."""

from __future__ import annotations

import os
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn

from seqkd.errors import CheckpointError
from seqkd.files.inert_pickle import Placeholder, StoredTensor
from seqkd.files.torch_archive import read_archive


class Bomb:
    """Runs a shell command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def rewrite(source: Path, target: Path, change: dict[str, bytes | None], compress: int = zipfile.ZIP_STORED) -> Path:
    """Copy a zip with some entries (by the end of their name) replaced, or left out when None."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compress) as new:
        for name in old.namelist():
            content = next((value for end, value in change.items() if name.endswith(end)), old.read(name))
            if content is not None:
                new.writestr(name, content)
    return target


def test_tensors_come_out_as_torch_wrote_them(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    state = OrderedDict(
        whole=base,
        transposed=base.T,
        part=base[1:, ::2],
        half=torch.tensor([1.5, -2.0], dtype=torch.float16),
        brain=torch.tensor([3.0], dtype=torch.bfloat16),
        count=torch.tensor(7),
        flags=torch.tensor([True, False]),
        parameter=nn.Parameter(torch.tensor([0.25])),
        none=torch.empty(0, 3),
    )
    torch.save({"state_dict": state, "epoch": 3, 5: [(1, "a"), None]}, tmp_path / "a.pth")
    saved, read = read_archive(tmp_path / "a.pth")
    assert saved["epoch"] == 3 and saved[5] == [(1, "a"), None]
    for name, tensor in state.items():
        assert isinstance(saved["state_dict"][name], StoredTensor)
        got = read(saved["state_dict"][name])
        assert got.dtype == tensor.dtype and torch.equal(got, tensor.detach()), name


def test_nothing_in_the_file_is_run(tmp_path):
    marker = tmp_path / "marker"
    bomb = Bomb(f"touch {marker}")
    torch.save({"config": bomb, "more": [bomb, {"key": bomb}], "state_dict": {"w": torch.ones(2)}}, tmp_path / "a.pth")
    saved, read = read_archive(tmp_path / "a.pth")
    assert not marker.exists()
    assert isinstance(saved["config"], Placeholder) and saved["config"].name.endswith("system")
    assert read(saved["state_dict"]["w"]).tolist() == [1.0, 1.0]
    with pytest.raises(CheckpointError, match="system"):  # the whole file is one call
        torch.save(bomb, tmp_path / "b.pth")
        read_archive(tmp_path / "b.pth")
    assert not marker.exists()


def test_a_deeply_nested_key_is_left_out(tmp_path):
    torch.save({"w": 1}, tmp_path / "a.pth")
    # {nested tuple: 1}: hashing it would overflow the C stack and kill the process
    program = b"\x80\x02}()" + b"\x85" * 200_000 + b"K\x01u."
    saved, _ = read_archive(rewrite(tmp_path / "a.pth", tmp_path / "b.pth", {"data.pkl": program}))
    assert saved == {}


def test_a_cut_file_is_refused(tmp_path):
    torch.save({"state_dict": {"w": torch.arange(100.0)}}, tmp_path / "a.pth")
    content = (tmp_path / "a.pth").read_bytes()
    for length in range(0, len(content), 37):
        (tmp_path / "cut.pth").write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=r"cut\.pth"):
            read_archive(tmp_path / "cut.pth")


def test_a_damaged_program_is_refused_or_read_never_worse(tmp_path):
    torch.save({"state_dict": OrderedDict(w=torch.arange(6.0).reshape(2, 3)), "lr": 0.1}, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth") as archive:
        program = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
    generator = torch.Generator().manual_seed(0)
    refused = 0
    for _ in range(300):
        broken = bytearray(program)
        place, value = (int(torch.randint(n, (1,), generator=generator)) for n in (len(program), 256))
        broken[place] = value
        path = rewrite(tmp_path / "a.pth", tmp_path / "b.pth", {"data.pkl": bytes(broken)})
        try:
            saved, read = read_archive(path)
            state = saved.get("state_dict")
            for tensor in state.values() if isinstance(state, dict) else ():
                assert not isinstance(tensor, StoredTensor) or read(tensor).numel() <= 6
        except CheckpointError:
            refused += 1
    assert refused > 50


@pytest.mark.parametrize(
    ("change", "compress", "message"),
    [
        ({"data/0": None}, zipfile.ZIP_STORED, "missing"),
        ({"data/0": b"\0" * 8}, zipfile.ZIP_STORED, "too few"),
        ({}, zipfile.ZIP_DEFLATED, "compressed"),
        ({"data.pkl": None}, zipfile.ZIP_STORED, "not one of torch.save"),
        ({"byteorder": b"big"}, zipfile.ZIP_STORED, "byte order"),
        ({"data.pkl": b"\x80\x02K\x01."}, zipfile.ZIP_STORED, "expected a dict"),
        ({"data.pkl": b"\x80\x02}\x82\x01."}, zipfile.ZIP_STORED, "EXT1"),
    ],
)
def test_what_torch_would_not_write_is_refused(tmp_path, change, compress, message):
    torch.save({"w": torch.arange(4.0)}, tmp_path / "a.pth")
    path = rewrite(tmp_path / "a.pth", tmp_path / "b.pth", change, compress)
    with pytest.raises(CheckpointError, match=message):
        saved, read = read_archive(path)
        read(saved["w"])


def test_a_huge_declared_shape_is_not_allocated(tmp_path):
    torch.save({"w": torch.ones(1).expand(10**12)}, tmp_path / "a.pth")  # one number, stride 0
    saved, read = read_archive(tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="holds 1 numbers"):
        read(saved["w"])


def test_the_old_format_is_refused(tmp_path):
    torch.save({"w": torch.ones(1)}, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match=r"older than PyTorch 1\.6"):
        read_archive(tmp_path / "a.pth")
