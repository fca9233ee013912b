"""Matrices of item vectors: every format gives the same numbers, every fault is named, no row loses its item."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_tensors

from seqkd.data.features import as_column, from_column, read_features, scale_rows
from seqkd.data.interactions import load_interactions, table_of
from seqkd.data.kcore import k_core
from seqkd.data.splits import leave_one_out
from seqkd.errors import DataError

VECTORS = np.array([[1.0, 2.0], [0.5, -4.0], [3.0, 0.25]], dtype=np.float32)  # all exact in half precision


def refused(message: str, path: Path | str, num_items: int = 3, width: int | None = None) -> None:
    with pytest.raises(DataError, match=message):
        read_features(path, num_items, width=width)


@pytest.mark.parametrize("ending", ["feat1CLS", "feat2CLS", "feat3CLS"])
def test_headerless_files_are_rows_of_little_endian_floats(ending, tmp_path):
    file = tmp_path / f"D.{ending}"
    VECTORS.astype("<f4").tofile(file)
    vectors = read_features(file, 3)
    assert vectors.dtype == np.float32 and np.array_equal(vectors, VECTORS)
    assert np.array_equal(read_features(file, 3, width=2), VECTORS)
    assert read_features(file, 2).shape == (2, 3)  # nothing in such a file says otherwise, so give the width
    refused(r"24 bytes, which is not 2 items x 2 x 4 bytes \(it would fit 3 items x 2\)", file, 2, 2)
    refused(r"24 bytes, which is not 4 items x width x 4 bytes, so", file, 4)


def test_a_wrong_size_says_what_it_would_fit(tmp_path):
    file = tmp_path / "D.feat1CLS"
    np.ones((11, 768), dtype="<f4").tofile(file)
    refused(r"not 10 items x width x 4 bytes \(it would fit 22 items x 384 or 11 items x 768\)", file, 10)
    file.write_bytes(b"\0" * 26)
    refused("26 bytes, which is not 3 items x width x 4 bytes, so it is cut off", file)
    file.write_bytes(b"")
    refused("0 bytes, which is not 3 items x width x 4 bytes, so", file)


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f4", ">f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_of_any_float_and_order(dtype, order, tmp_path):
    np.save(tmp_path / "v.npy", np.asarray(VECTORS.astype(dtype), order=order))
    vectors = read_features(tmp_path / "v.npy", 3)
    assert vectors.dtype == np.float32 and vectors.flags.c_contiguous and np.array_equal(vectors, VECTORS)


def test_safetensors_of_one_tensor_or_a_named_one(tmp_path):
    file = tmp_path / "v.safetensors"
    save_file({"text": VECTORS}, file)
    assert np.array_equal(read_features(file, 3), VECTORS)
    save_tensors({"text": torch.zeros(3, 2), "half": torch.tensor(VECTORS).bfloat16(), "ids": torch.arange(6)}, file)
    vectors = read_features(f"{file}#half", 3)
    assert vectors.dtype == np.float32 and np.array_equal(vectors, VECTORS)
    refused(r"several tensors or none: \['half', 'ids', 'text'\]\. Write '.*#half'", file)
    refused("has no tensor 'hlaf', but", f"{file}#hlaf")
    refused("'ids' is I64, but vectors are floats", f"{file}#ids")
    file.write_bytes(file.read_bytes()[:-8])
    refused("no readable safetensors", f"{file}#half")


def test_a_float32_file_is_mapped_and_never_written(tmp_path):
    np.save(tmp_path / "v.npy", VECTORS)
    VECTORS.tofile(tmp_path / "v.feat1CLS")
    for name in ("v.npy", "v.feat1CLS"):
        vectors = read_features(tmp_path / name, 3)
        assert isinstance(vectors, np.memmap) or isinstance(vectors.base, np.memmap)
        torch.from_numpy(vectors)[0] = 9.0  # writable, for torch complains of what is not
        assert np.array_equal(read_features(tmp_path / name, 3), VECTORS)


def test_an_array_of_objects_is_a_pickle_and_not_opened(tmp_path, monkeypatch):
    class Payload:
        def __reduce__(self):
            return open, ("owned", "w")

    monkeypatch.chdir(tmp_path)
    np.save("v.npy", np.array([Payload()]), allow_pickle=True)
    refused("an array of objects, which is a pickle and never opened", "v.npy", 1)
    assert not Path("owned").exists()
    for name in ("v.pkl", "v.npz", "v.pt"):
        Path(name).write_bytes(Path("v.npy").read_bytes())
        refused("Pickles and archives are never opened", name, 1)


def test_faults_of_npy_files(tmp_path):
    file = tmp_path / "v.npy"
    np.save(file, VECTORS)
    whole = file.read_bytes()
    for damaged in (b"", whole[:4], whole[:60], whole[:-4], b"PK" + whole[2:], whole.replace(b"(3, 2)", b"(3, -)")):
        file.write_bytes(damaged)
        refused(r"v\.npy is no readable matrix of numbers", file)
    for wrong in (VECTORS.astype(np.int64), VECTORS.astype(str), VECTORS.astype(complex)):
        np.save(file, wrong)
        refused("but vectors are floats", file)
    np.save(file, VECTORS)
    refused(r"shape \(3, 2\), but there are 2 items, so it must be \(2, width\)", file, 2)
    refused(r"shape \(3, 2\), but there are 3 items, so it must be \(3, 4\)", file, 3, 4)
    refused("there are 0 items", file, 0)
    for shape in ((3,), (3, 1, 2), (3, 0)):
        np.save(file, np.ones(shape, np.float32))
        refused("so it must be", file)


def test_what_is_not_finite_is_found_after_conversion(tmp_path):
    for bad in (np.nan, np.inf, -np.inf, 1e39):  # the last is finite as a double only
        vectors = VECTORS.astype(np.float64)
        vectors[1:, 1] = bad
        np.save(tmp_path / "v.npy", vectors)
        refused(r"2 of 3 rows hold NaN or infinity \(as float32\), first row 2", tmp_path / "v.npy")


def test_rows_of_zeros_are_missing_and_counted(tmp_path, caplog):
    np.save(tmp_path / "v.npy", VECTORS)
    with caplog.at_level(logging.WARNING, logger="seqkd.data.features"):
        read_features(tmp_path / "v.npy", 3)
    assert not caplog.text
    np.save(tmp_path / "v.npy", VECTORS * [[1], [0], [0]])
    with caplog.at_level(logging.WARNING, logger="seqkd.data.features"):
        assert read_features(tmp_path / "v.npy", 3).any(axis=1).tolist() == [True, False, False]
    assert "2 of 3 items have no vector" in caplog.text


def test_a_missing_file_names_the_closest(tmp_path):
    np.save(tmp_path / "text_features.npy", VECTORS)
    refused(r"does not exist\. Did you mean 'text_features\.npy'\?", tmp_path / "text_feature.npy")
    refused(r"does not exist\. Check the path", tmp_path / "nowhere" / "x.npy")
    refused("ends in '.csv'", _touch(tmp_path / "v.csv"))


def _touch(file: Path) -> Path:
    file.touch()
    return file


def test_scale_rows_by_hand():
    scaled = scale_rows(np.array([[3.0, 4.0], [0.0, 0.0], [-1e30, 1e30], [1e-30, 0.0]], dtype=np.float32))
    root = np.sqrt(12.5)
    expected = [[3 / root, 4 / root], [0, 0], [-1, 1], [np.sqrt(2), 0]]
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled, expected, rtol=1e-6)
    assert scale_rows(np.zeros((2, 0), np.float32)).shape == (2, 0)


def test_columns_give_back_their_matrix():
    column = pa.chunked_array([as_column(VECTORS[:1]), as_column(VECTORS[1:])])
    assert np.array_equal(from_column(column), VECTORS)
    assert np.array_equal(from_column(column.take(pa.array([2, 0]))), VECTORS[[2, 0]])
    assert np.array_equal(from_column(column.slice(1)), VECTORS[1:])
    assert from_column(pa.chunked_array([pa.array([[1.5, 2.0]], pa.list_(pa.float64()))])).dtype == np.float32
    for bad in ([[1.0], None], [[1.0], [1.0, 2.0]]):
        with pytest.raises(DataError, match="must all be of one width"):
            from_column(pa.chunked_array([pa.array(bad, pa.list_(pa.float32()))]))


def test_every_item_keeps_its_own_vector_through_filters_and_reordering(tmp_path):
    """Items leave in a 2-core from the middle of the table; the catalogue, the table and the vectors stay together."""
    ids = [f"i{number}" for number in range(6)]
    told = {item: [float(number), -float(number) - 1] for number, item in enumerate(ids)}
    log = [("u", "i5"), ("u", "i1"), ("u", "i3"), ("v", "i3"), ("v", "i1"), ("v", "i5"), ("v", "i0"), ("w", "i4")]
    lines = [f"{user},{item},{time}" for time, (user, item) in enumerate(log)]
    (tmp_path / "interactions.csv").write_text("\n".join(["user_id,item_id,timestamp", *lines]))
    for order in (ids, ids[::-1]):
        (tmp_path / "items.csv").write_text("\n".join(["item_id", *order]))
        np.save(tmp_path / "image_features.npy", np.array([told[item] for item in order], dtype=np.float32))
        core = k_core(load_interactions(tmp_path), 2)
        kept = [item for item in order if item in ("i1", "i3", "i5")]
        assert list(leave_one_out(core).catalogue.item_ids) == kept
        assert from_column(table_of(core["items"])["image_features"]).tolist() == [told[item] for item in kept]
        shuffled = core["items"].select([2, 0])
        assert from_column(table_of(shuffled)["image_features"]).tolist() == [told[kept[2]], told[kept[0]]]
