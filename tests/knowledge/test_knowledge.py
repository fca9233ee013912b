from __future__ import annotations

import json
import logging
import math
import os
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from seqkd.catalogue import Catalogue
from seqkd.errors import KnowledgeError
from seqkd.knowledge import Knowledge, Source, Table
from seqkd.knowledge.store import hub
from seqkd.knowledge.store.reader import read

LOW16 = torch.finfo(torch.float16).min
SOURCE = Source("wide", "a" * 64, "b" * 64, "train", temperature=0.5, options={"k": 3})
ITEMS = Catalogue(["x", "y", "z", "w"])


def small() -> Knowledge:
    tables = {
        "query_topk": torch.tensor([[1, 2, 3], [4, 1, 0], [2, 0, 0], [0, 0, 0], [3, 4, 1]], dtype=torch.int32),
        "query_scores": torch.tensor(
            [[3, 2, 1], [0, 0, LOW16], [5, LOW16, LOW16], [LOW16] * 3, [2, 1, 0]], dtype=torch.float16
        ),
        "item_embeddings": torch.arange(10, dtype=torch.float32).reshape(5, 2),
    }
    return Knowledge.from_tables(tables, source=SOURCE, catalogue=ITEMS)


@pytest.fixture
def folder(tmp_path):
    small().save_pretrained(tmp_path / "knowledge", shard_rows=2)
    return tmp_path / "knowledge"


def edit_manifest(folder, change) -> None:
    manifest = json.loads((folder / "knowledge.json").read_text())
    change(manifest)
    (folder / "knowledge.json").write_text(json.dumps(manifest))


def test_folder_round_trip(folder):
    files = sorted(path.name for path in folder.iterdir())
    query, item = [f"query-0000{n}.safetensors" for n in range(3)], [f"item-0000{n}.safetensors" for n in range(3)]
    assert files == sorted(["README.md", "item_ids.json", "knowledge.json", *query, *item])
    opened = Knowledge.from_pretrained(folder, verify=True)
    assert opened.source == SOURCE and opened.catalogue == ITEMS and opened.num_queries == 5
    for name, table in small().tables.items():
        assert torch.equal(opened.table(name), table.all()) and opened.tables[name].dtype == table.dtype
        assert opened.tables[name].shape == tuple(table.all().shape)
    manifest = json.loads((folder / "knowledge.json").read_text())
    assert manifest["tables"]["query_topk"] == {"dtype": "int32", "shape": [5, 3]}
    assert [shard["bytes"] for shard in manifest["shards"]["query"]] == [os.path.getsize(folder / f) for f in query]
    assert "weights sha256 `" + "a" * 64 in (folder / "README.md").read_text()


def test_rows_gather_over_shards(folder):
    ids = torch.tensor([4, 0, 3, 1, 0])
    expected = small().table("query_topk")[ids]
    assert torch.equal(Knowledge.from_pretrained(folder).rows("query_topk", ids), expected)
    assert Knowledge.from_pretrained(folder).rows("query_topk", ids[:0]).shape == (0, 3)
    table = Table([torch.tensor([10, 11]), torch.tensor([12]), torch.tensor([13, 14, 15])])
    assert table[torch.tensor([5, 2, 1, 3])].tolist() == [15, 12, 11, 13] and len(table) == 6
    with pytest.raises(KnowledgeError, match=r"rows 0\.\.4, asked for 1\.\.5"):
        small().rows("query_topk", torch.tensor([1, 5]))
    with pytest.raises(KnowledgeError, match="no table 'query_embeddings'"):
        small().rows("query_embeddings", torch.tensor([1]))


def test_opening_maps_and_does_not_read(tmp_path):
    rows = 4_000_000
    tables = {"query_embeddings": torch.zeros(rows, 8)}  # 128 MB
    Knowledge.from_tables(tables, source=SOURCE, catalogue=ITEMS).save_pretrained(tmp_path, shard_rows=rows // 2)
    del tables

    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    if not os.path.exists("/proc/self/statm"):
        pytest.skip("resident memory is read from /proc")
    before = resident()
    opened = Knowledge.from_pretrained(tmp_path)
    opened.rows("query_embeddings", torch.tensor([0, rows - 1]))
    assert resident() - before < 32e6
    shard = opened.tables["query_embeddings"].shards[0]
    with open(tmp_path / "query-00000.safetensors", "r+b") as file:  # a mapped file shows what changes under it
        file.seek(-4, os.SEEK_END)
        file.write(b"\x00\x00\x80\x3f")
    assert float(shard[-1, -1]) == 1.0


def test_an_existing_folder_is_replaced_even_by_its_own_reader(folder):
    opened = Knowledge.from_pretrained(folder)
    opened.save_pretrained(folder, shard_rows=5)
    assert torch.equal(Knowledge.from_pretrained(folder).table("query_topk"), small().table("query_topk"))
    assert len(list(folder.glob("*.safetensors"))) == 2


def test_names_and_row_counts_are_checked():
    with pytest.raises(KnowledgeError, match="user_topk"):
        Knowledge.from_tables({"user_topk": torch.zeros(2, 2)}, source=SOURCE, catalogue=ITEMS)
    with pytest.raises(KnowledgeError, match=r"item_embeddings has 4 rows.*5"):
        Knowledge.from_tables({"item_embeddings": torch.zeros(4, 2)}, source=SOURCE, catalogue=ITEMS)
    with pytest.raises(KnowledgeError, match="query_scores of the same shape"):
        Knowledge.from_tables({"query_topk": torch.zeros(4, 2)}, source=SOURCE, catalogue=ITEMS)
    topk = {"query_topk": torch.tensor([[7]], dtype=torch.int32), "query_scores": torch.zeros(1, 1)}
    with pytest.raises(KnowledgeError, match=r"items 7\.\.7 of 4"):
        Knowledge.from_tables(topk, source=SOURCE, catalogue=ITEMS).rows("query_topk", torch.tensor([0]))


# ---- damage ---------------------------------------------------------------------------------------------------


def test_a_truncated_shard_is_refused_by_its_size(folder):
    path = folder / "query-00001.safetensors"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(KnowledgeError, match=rf"query-00001.safetensors .* has {size - 3} bytes, .* says {size}"):
        Knowledge.from_pretrained(folder)


def test_a_missing_shard_is_named(folder):
    (folder / "item-00000.safetensors").unlink()
    with pytest.raises(KnowledgeError, match=r"item-00000\.safetensors is missing"):
        Knowledge.from_pretrained(folder)


def test_a_flipped_bit_is_found_on_demand(folder):
    path = folder / "query-00000.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    Knowledge.from_pretrained(folder)
    with pytest.raises(KnowledgeError, match=r"query-00000\.safetensors .* has sha256"):
        Knowledge.from_pretrained(folder, verify=True)


@pytest.mark.parametrize(
    "name",
    ["../knowledge/query-00000.safetensors", "/etc/passwd", "C:\\query-00000.safetensors", "query.safetensors", 7],
)
def test_shard_names_that_leave_the_folder_are_refused(folder, name):
    edit_manifest(folder, lambda manifest: manifest["shards"]["query"][0].update(file=name))
    with pytest.raises(KnowledgeError, match="names the shard"):
        Knowledge.from_pretrained(folder)


def test_links_that_leave_the_folder_are_refused(folder, tmp_path):
    path = folder / "query-00000.safetensors"
    path.rename(tmp_path / "elsewhere.safetensors")
    path.symlink_to(tmp_path / "elsewhere.safetensors")
    with pytest.raises(KnowledgeError, match="leads out of its folder"):
        Knowledge.from_pretrained(folder)
    assert read(folder, root=tmp_path).tables["query_topk"][0].shape == (2, 3)  # as the Hub's cache links to blobs


def test_a_header_that_declares_100_gb_is_refused_before_anything_is_allocated(folder):
    header = {"query_topk": {"dtype": "I32", "shape": [25_000_000, 1000], "data_offsets": [0, 100_000_000_000]}}
    text = json.dumps(header).encode()
    (folder / "query-00000.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + b"\0" * 64)
    size = os.path.getsize(folder / "query-00000.safetensors")
    edit_manifest(folder, lambda manifest: manifest["shards"]["query"][0].update(bytes=size))
    with pytest.raises(KnowledgeError, match=r"query-00000\.safetensors .* cannot be read"):
        Knowledge.from_pretrained(folder)


def test_shapes_that_differ_from_the_manifest_are_refused(folder):
    path = folder / "query-00002.safetensors"
    save_file({"query_topk": torch.zeros(1, 4), "query_scores": torch.zeros(1, 4)}, path)
    edit_manifest(folder, lambda manifest: manifest["shards"]["query"][2].update(bytes=path.stat().st_size))
    with pytest.raises(KnowledgeError, match=r"table query_scores is 5 rows of \('float16', 3\)"):
        Knowledge.from_pretrained(folder)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda m: m.update(schema_version=2), "schema 2, but this seqkd reads up to 1"),
        (lambda m: m.pop("source"), "no manifest of knowledge"),
        (lambda m: m["source"].update(extra=1), "no manifest of knowledge"),
        (lambda m: m.update(shards=[]), "no manifest of knowledge"),
        (lambda m: m.update(catalogue_fingerprint="c" * 64), "says cccccccccccc"),
    ],
)
def test_manifests_that_do_not_hold_are_refused(folder, change, message):
    edit_manifest(folder, change)
    with pytest.raises(KnowledgeError, match=message):
        Knowledge.from_pretrained(folder)


def test_unfinished_and_broken_folders_are_refused(folder):
    (folder / "knowledge.json").write_text("{")
    with pytest.raises(KnowledgeError, match="is damaged"):
        Knowledge.from_pretrained(folder)
    (folder / "knowledge.json").unlink()
    with pytest.raises(KnowledgeError, match="finished shards are kept"):
        Knowledge.from_pretrained(folder)


# ---- does it belong here? -------------------------------------------------------------------------------------


def test_check_names_both_values():
    knowledge = small()
    split = SimpleNamespace(catalogue=ITEMS, fingerprint="b" * 64)
    knowledge.check(catalogue=Catalogue(ITEMS.item_ids), split=split, part="train", teacher_revision="a" * 64)
    other = Catalogue(["x", "z", "y", "w", "v"])
    with pytest.raises(KnowledgeError) as caught:
        knowledge.check(catalogue=other)
    for said in (ITEMS.fingerprint[:12], other.fingerprint[:12], "4 items", "has 5", "row 2 is 'y' there and 'z' here"):
        assert said in str(caught.value)
    with pytest.raises(KnowledgeError, match="the shorter list ends before 'w'"):
        knowledge.check(catalogue=Catalogue(["x", "y", "z"]))
    with pytest.raises(KnowledgeError, match="split bbbbbbbbbbbb, but eeeeeeeeeeee"):
        knowledge.check(split=SimpleNamespace(catalogue=ITEMS, fingerprint="e" * 64))
    with pytest.raises(KnowledgeError, match="part train, but valid"):
        knowledge.check(part="valid")
    with pytest.raises(KnowledgeError, match="teacher revision aaaaaaaaaaaa, but dddddddddddd"):
        knowledge.check(teacher_revision="d" * 64)


def test_align_intersection_by_hand(caplog):
    student = Catalogue(["w", "new", "x"])  # y and z are unknown to the student, new to the teacher
    with caplog.at_level(logging.WARNING):
        aligned = small().align(student, how="intersection")
    # old 1 2 3 4 = x y z w -> new 3 0 0 1
    assert aligned.table("query_topk").tolist() == [[3, 0, 0], [1, 3, 0], [0, 0, 0], [0, 0, 0], [1, 3, 0]]
    assert aligned.table("query_scores").tolist() == [
        [3, LOW16, LOW16], [0, 0, LOW16], [LOW16] * 3, [LOW16] * 3, [1, 0, LOW16],
    ]  # fmt: skip
    assert aligned.table("item_embeddings").tolist() == [[0, 0], [8, 9], [0, 0], [2, 3]]
    e = math.e
    masses = [e**2 / (e**2 + e + 1), 1.0, 0.0, (e + 1) / (e**2 + e + 1)]  # the empty fourth list has no mass to keep
    assert aligned.coverage["items"] == pytest.approx(2 / 3)
    assert aligned.coverage["mass"] == pytest.approx(sum(masses) / 4, abs=1e-6)
    assert "covers 66.7 %" in caplog.text
    aligned.check(catalogue=student)


def test_lists_of_what_is_had_are_renamed_and_checked():
    seen = torch.tensor([[2, 1], [3, 0], [4, 1], [0, 0], [1, 4]], dtype=torch.int32)
    knowledge = Knowledge.from_tables({"query_seen_topk": seen}, source=SOURCE, catalogue=ITEMS)
    aligned = knowledge.align(Catalogue(["w", "new", "x"]), how="intersection")  # old 1 2 3 4 -> new 3 0 0 1
    assert aligned.table("query_seen_topk").tolist() == [[3, 0], [0, 0], [1, 3], [0, 0], [3, 1]]
    assert aligned.table("query_seen_topk").dtype == torch.int32
    wrong = Knowledge.from_tables({"query_seen_topk": seen + 1}, source=SOURCE, catalogue=ITEMS)
    with pytest.raises(KnowledgeError, match=r"query_seen_topk names items 2\.\.5 of 4"):
        wrong.rows("query_seen_topk", torch.tensor([0, 2]))


def test_align_exact_and_nothing_in_common():
    knowledge = small()
    assert knowledge.align(Catalogue(ITEMS.item_ids)) is knowledge and knowledge.coverage is None
    with pytest.raises(KnowledgeError, match="is about 4 items"):
        knowledge.align(Catalogue(["w", "x"]))
    with pytest.raises(KnowledgeError, match="no item in common"):
        knowledge.align(Catalogue(["1", "2"]), how="intersection")
    with pytest.raises(KnowledgeError, match="'union'"):
        knowledge.align(ITEMS, how="union")


# ---- the Hub --------------------------------------------------------------------------------------------------


class FakeApi:
    uploads: list[dict] = []  # noqa: RUF012 - shared on purpose

    def __init__(self, token=None) -> None:
        self.token = token

    def create_repo(self, repo_id, **options) -> None:
        assert options == {"repo_type": "dataset", "private": True, "exist_ok": True}

    def upload_folder(self, **options):
        files = {path.name: path.read_bytes() for path in __import__("pathlib").Path(options["folder_path"]).iterdir()}
        self.uploads.append({**options, "files": files})
        return SimpleNamespace(commit_url="https://example.invalid/commit/1")


def test_push_uploads_the_files_of_knowledge_and_no_token(folder, monkeypatch):
    monkeypatch.setattr(hub, "HfApi", FakeApi)
    FakeApi.uploads.clear()
    (folder / "private.txt").write_text("not to be shared")
    small().push_to_hub("me/knowledge", private=True, token="hf_secret")
    Knowledge.from_pretrained(folder).push_to_hub("me/knowledge", private=True, token="hf_secret")
    memory, opened = FakeApi.uploads
    assert set(memory["files"]) == {
        "README.md", "knowledge.json", "item_ids.json", "query-00000.safetensors", "item-00000.safetensors",
    }  # fmt: skip
    assert not any(b"hf_secret" in content for content in memory["files"].values())
    assert opened["folder_path"] == str(folder) and "*" not in opened["allow_patterns"]
    assert not any(pattern.endswith(".txt") for pattern in opened["allow_patterns"])


def test_offline_a_repository_comes_from_the_cache_or_is_refused_once(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(KnowledgeError, match="neither a folder nor a dataset repository"):
        Knowledge.from_pretrained("me/knowledge", cache_dir=tmp_path / "cache")
    with pytest.raises(KnowledgeError, match="neither a folder nor a dataset repository"):
        Knowledge.from_pretrained("../no/such/folder", cache_dir=tmp_path / "cache")
    commit, repository = "f" * 40, tmp_path / "cache" / "datasets--me--knowledge"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "blobs").mkdir()
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    for number, path in enumerate(sorted(folder.iterdir())):
        path.rename(repository / "blobs" / str(number))
        (snapshot / path.name).symlink_to(repository / "blobs" / str(number))
    cached = Knowledge.from_pretrained("me/knowledge", cache_dir=tmp_path / "cache")
    assert torch.equal(cached.table("query_topk"), small().table("query_topk"))


def test_the_card_shows_names_as_text(tmp_path):
    source = Source("<script>|a|\n# b", "r", "s", "train", options={"note": "[x](y)"})
    Knowledge.from_tables({"item_x": torch.zeros(5, 1)}, source=source, catalogue=ITEMS).save_pretrained(tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert "<script>" not in text and "\n# b" not in text and "\\[x\\](y)" in text
