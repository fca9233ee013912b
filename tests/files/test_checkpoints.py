from __future__ import annotations

import json

import pytest

from seqkd.errors import CheckpointError
from seqkd.files.checkpoints import MANIFEST, checkpoints, last_complete, problem_with, rotate, write_manifest

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # sha256 of b"abc", FIPS 180-2


def made(folder, sealed=True):
    (folder / "sub").mkdir(parents=True)
    (folder / "weights").write_bytes(b"abc")
    (folder / "sub" / "state").write_bytes(b"")
    if sealed:
        write_manifest(folder)
    return folder


def steps(folder, *numbers, unsealed=()):
    for number in numbers:
        made(folder / f"checkpoint-{number}", number not in unsealed)


def names(folder):
    return [path.name for path in checkpoints(folder)]


def test_the_manifest_lists_every_file_with_size_and_hash(tmp_path):
    folder = made(tmp_path / "checkpoint-1")
    manifest = json.loads((folder / MANIFEST).read_text())
    assert manifest["files"]["weights"] == {"bytes": 3, "sha256": ABC}
    assert set(manifest["files"]) == {"weights", "sub/state"}
    assert problem_with(folder) is None
    write_manifest(folder)  # a second time: it does not list itself
    assert json.loads((folder / MANIFEST).read_text()) == manifest
    assert not (folder / f"{MANIFEST}.partial").exists()


def test_a_file_larger_than_one_block_is_hashed_whole(tmp_path):
    folder = made(tmp_path / "checkpoint-1", sealed=False)
    content = bytearray(3 << 20)
    (folder / "weights").write_bytes(content)
    write_manifest(folder)
    content[-1] = 1
    (folder / "weights").write_bytes(content)
    assert problem_with(folder) == "weights was changed after it was saved"


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda folder: (folder / MANIFEST).unlink(), "interrupted"),
        (lambda folder: (folder / "weights").unlink(), "weights is missing"),
        (lambda folder: (folder / "sub" / "state").unlink(), "sub/state is missing"),
        (lambda folder: (folder / "weights").write_bytes(b"ab"), "weights has 2 bytes instead of 3"),
        (lambda folder: (folder / "weights").write_bytes(b"abd"), "weights was changed"),
        (lambda folder: (folder / "sub" / "state").write_bytes(b"x"), "sub/state has 1 bytes instead of 0"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, damage, problem):
    folder = made(tmp_path / "checkpoint-1")
    damage(folder)
    assert problem in problem_with(folder)


@pytest.mark.parametrize(
    "name", ["../secret", "sub/../../secret", "/secret", "..\\secret", "C:\\secret", "\\\\server\\secret"]
)
def test_names_that_leave_the_folder_are_refused(tmp_path, name):
    (tmp_path / "secret").write_bytes(b"abc")
    folder = made(tmp_path / "checkpoint-1")
    (folder / MANIFEST).write_text(json.dumps({"schema": 1, "files": {name: {"bytes": 3, "sha256": ABC}}}))
    assert "outside the checkpoint" in problem_with(folder)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"null", b"[]", b"3", b'"files"', b"{}", b'{"files": []}', b'{"files": 3}',
        b'{"files": {"weights": 3}}', b'{"files": {"weights": null}}', b'{"files": {"weights": {"bytes": 3}}}',
        b"\xff\xfe\x00", b"[" * 100_000,
    ],
)  # fmt: skip
def test_a_damaged_manifest_is_a_problem_and_not_a_crash(tmp_path, content):
    folder = made(tmp_path / "checkpoint-1")
    (folder / MANIFEST).write_bytes(content)
    assert "is damaged" in problem_with(folder)


def test_checkpoints_are_in_the_order_of_their_steps(tmp_path):
    steps(tmp_path, 10, 9, 100)
    (tmp_path / "checkpoint-best").mkdir()
    (tmp_path / "checkpoint-").mkdir()
    assert names(tmp_path) == ["checkpoint-9", "checkpoint-10", "checkpoint-100"]
    assert checkpoints(tmp_path / "nowhere") == []


def test_the_newest_complete_checkpoint_is_taken_and_nothing_deleted(tmp_path, caplog):
    steps(tmp_path, 2, 9, 10, 11, unsealed=(11,))
    (tmp_path / "checkpoint-10" / "weights").write_bytes(b"")
    (tmp_path / "checkpoint-12").mkdir()
    assert last_complete(tmp_path).name == "checkpoint-9"
    assert [record.args[0].name for record in caplog.records] == ["checkpoint-12", "checkpoint-11", "checkpoint-10"]
    assert "weights has 0 bytes instead of 3" in caplog.text
    assert len(names(tmp_path)) == 5


def test_no_complete_checkpoint_is_an_error_that_says_what_to_do(tmp_path):
    with pytest.raises(CheckpointError, match=r"no complete checkpoint .* without resume_from_checkpoint"):
        last_complete(tmp_path)
    steps(tmp_path, 1, unsealed=(1,))
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        last_complete(tmp_path)


@pytest.mark.parametrize(
    ("limit", "keep", "left"),
    [
        (None, None, [1, 2, 10, 11]),
        (0, None, [1, 2, 10, 11]),
        (9, None, [1, 2, 10, 11]),
        (2, None, [10, 11]),
        (1, None, [11]),
        (2, 1, [1, 11]),  # the best one counts
        (1, 1, [1, 11]),  # but is kept beside the newest
        (1, 11, [11]),
        (3, 2, [2, 10, 11]),
    ],
)
def test_rotation_keeps_the_best_and_the_newest(tmp_path, limit, keep, left):
    steps(tmp_path, 1, 2, 10, 11)
    newest = tmp_path / "checkpoint-11"
    rotate(tmp_path, limit, [str(newest), str(tmp_path / f"checkpoint-{keep}") if keep else None])
    assert names(tmp_path) == [f"checkpoint-{number}" for number in left]


def test_rotation_keeps_what_was_just_written_beside_an_earlier_run(tmp_path):
    steps(tmp_path, 10, 500)
    rotate(tmp_path, 1, [str(tmp_path / "checkpoint-10"), None])
    assert names(tmp_path) == ["checkpoint-10"]


def test_rotation_knows_the_best_one_by_a_relative_path_too(tmp_path, monkeypatch):
    steps(tmp_path, 1, 2, 3)
    monkeypatch.chdir(tmp_path)
    rotate(tmp_path, 1, ["checkpoint-3", "checkpoint-1"])
    assert names(tmp_path) == ["checkpoint-1", "checkpoint-3"]
