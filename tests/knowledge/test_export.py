from __future__ import annotations

import json
import logging

import datasets
import numpy as np
import pytest
import torch
from torch import nn

from seqkd.batches.collators import Sequence
from seqkd.catalogue import Catalogue
from seqkd.data.split import Split
from seqkd.errors import KnowledgeError
from seqkd.knowledge import Knowledge
from seqkd.knowledge.export import export, revision
from seqkd.knowledge.interview import windows
from seqkd.recommenders.configuration import RecommenderConfig
from seqkd.recommenders.recommender import RecommenderModel, RecommenderOutput

NUM_ITEMS, MAX_LENGTH = 7, 4
LOW16, LOW32 = torch.finfo(torch.float16).min, torch.finfo(torch.float32).min


class BagConfig(RecommenderConfig):
    model_type = "test_bag"


class Bag(RecommenderModel):
    """The query is the mean of the items read so far."""

    config_class = BagConfig
    calls = 0

    def __init__(self, config: BagConfig) -> None:
        super().__init__(config)
        self.items = nn.Embedding(config.num_items + 1, config.hidden_size)
        self.noise = nn.Dropout(0.9)  # shows whether the export runs in eval mode
        self.post_init()

    def forward(self, item_ids, sequence_ids, position_ids, query_index):
        type(self).calls += 1
        width = item_ids.shape[1]
        out = []
        for flat in query_index.tolist():
            row, slot = divmod(flat, width)
            same = (sequence_ids[row] == sequence_ids[row, slot]) & (position_ids[row] <= position_ids[row, slot])
            out.append(self.items(item_ids[row, same]).mean(0))
        return RecommenderOutput(query_embeddings=self.noise(torch.stack(out)))

    def item_embeddings(self, item_ids=None):
        return self.items.weight if item_ids is None else self.items(item_ids)


def teacher(**changes) -> Bag:
    torch.manual_seed(0)
    config = BagConfig(
        num_items=NUM_ITEMS, hidden_size=3, max_position_embeddings=MAX_LENGTH, temperature=0.5, **changes
    )
    model = Bag(config)
    nn.init.normal_(model.items.weight)
    model.set_catalogue(Catalogue("abcdefg"))
    return model.train()


def split_of(rows: list[list[int]], first: list[int] | None = None) -> Split:
    first = first or [1] * len(rows)
    reserved = [len(row) - f + 1 for row, f in zip(rows, first, strict=True)]
    starts = [0, *np.cumsum(reserved).tolist()[:-1]]
    part = datasets.Dataset.from_dict(
        {
            "user_id": [f"u{i}" for i in range(len(rows))],
            "item_ids": rows,
            "first_target": first,
            "query_start": starts,
        },
        features=datasets.Features(
            {
                "user_id": datasets.Value("string"),
                "item_ids": datasets.List(datasets.Value("int32")),
                "first_target": datasets.Value("int32"),
                "query_start": datasets.Value("int64"),
            }
        ),
    )
    return Split(Catalogue("abcdefg"), part, part, part, "loo", "tiny")


ROWS = [[1, 2, 3], [4, 5], [7], [6, 1, 2, 3], [2, 7, 5]]  # 3 + 2 + 1 + 4 + 3 = 13 queries


def slow(model: Bag, history: list[int], seen: bool) -> tuple[list[int], list[float]]:
    table = model.items.weight.detach().double()
    query = sum(table[item] for item in history) / len(history)
    scores = [(float(query @ table[item]) / 0.5, item) for item in range(1, NUM_ITEMS + 1)]
    ranked = sorted(((s, item) for s, item in scores if not seen or item not in history), reverse=True)
    return [item for _, item in ranked], [score for score, _ in ranked]


@pytest.mark.parametrize("seen", [False, True])
@pytest.mark.parametrize("shard_rows", [4, 100])
def test_lists_of_all_queries_with_tails_match_a_slow_loop(seen, shard_rows, tmp_path):
    model, split = teacher(), split_of(ROWS)
    options = {"split": split, "part": "train", "k": 3, "filter_seen": seen, "dtype": torch.float32, "batch_size": 2}
    memory = export(model, split.train, **options, shard_rows=shard_rows)
    stored = export(model, split.train, **options, shard_rows=shard_rows, folder=tmp_path)
    expected = [slow(model, row[:p], seen) for row in ROWS for p in range(1, len(row) + 1)]
    for knowledge in (memory, stored):
        assert knowledge.num_queries == 13 and knowledge.counts.get("unasked", 0) == 0
        assert knowledge.table("query_topk").tolist() == [items[:3] for items, _ in expected]
        torch.testing.assert_close(knowledge.table("query_scores"), torch.tensor([s[:3] for _, s in expected]))
        assert knowledge.table("query_topk").dtype == torch.int32
    assert len(stored.tables["query_topk"].shards) == (3 if shard_rows == 4 else 1)
    assert model.training  # as it was before
    stored.check(split=split, part="train", teacher_revision=revision(model))


@pytest.mark.parametrize("seen", [False, True])
def test_what_is_had_is_ranked_apart(seen, monkeypatch, tmp_path):
    """Bought twice, it is listed once; the longest history has five items, so no list needs to be longer."""
    monkeypatch.setattr("seqkd.recommenders.catalogue_scores.CPU_PIECE", 16)  # two queries at a time
    rows = [*ROWS, [3, 5, 3, 1, 3]]
    model, split = teacher(), split_of(rows)
    tables = ("query_topk", "query_seen_topk")
    options = {"split": split, "part": "train", "filter_seen": seen, "dtype": torch.float32, "batch_size": 2}
    both = export(model, split.train, tables=tables, k=7, folder=tmp_path, shard_rows=4, **options)
    histories = [row[:p] for row in rows for p in range(1, len(row) + 1)]
    # a query reads the newest items only, but all it has is ranked
    ranked = [slow(model, history[-MAX_LENGTH:], False)[0] for history in histories]
    had = [[item for item in order if item in history] for order, history in zip(ranked, histories, strict=True)]
    assert both.table("query_seen_topk").tolist() == [(row + [0] * 5)[:5] for row in had]
    assert both.table("query_seen_topk").dtype == torch.int32
    for name in ("query_topk", "query_scores"):
        assert torch.equal(both.table(name), export(model, split.train, k=7, **options).table(name))
    alone = export(model, split.train, tables=("query_seen_topk",), k=2, **options)
    assert alone.table("query_seen_topk").tolist() == [(row + [0] * 2)[:2] for row in had]
    assert list(alone.tables) == ["query_seen_topk"] and alone.num_queries == len(histories)


def test_source_says_what_was_asked():
    model, split = teacher(), split_of(ROWS)
    knowledge = export(model, split.valid, split=split, part="valid", k=100, teacher="bag")
    source = knowledge.source
    assert (source.teacher, source.part, source.similarity, source.temperature) == ("bag", "valid", "dot", 0.5)
    assert source.options == {"tables": ["query_topk"], "k": 100, "filter_seen": False, "dtype": "float16"}
    assert source.split_fingerprint == split.fingerprint and source.teacher_revision == revision(model)
    assert knowledge.tables["query_topk"].shape == (13, NUM_ITEMS)  # a list is no longer than the catalogue
    assert knowledge.tables["query_scores"].dtype == torch.float16
    assert export(model, split.valid, split=split, part="valid").source.teacher == "Bag"
    with torch.no_grad():
        model.items.weight[1, 0] += 1
    assert revision(model) != source.teacher_revision


def test_embedding_tables_give_the_scores(tmp_path):
    model, split = teacher(), split_of(ROWS)
    names = ("query_topk", "query_embeddings", "item_embeddings")
    knowledge = export(
        model, split.train, split=split, part="train", tables=names, dtype=torch.float32, folder=tmp_path, shard_rows=5
    )
    assert knowledge.tables["item_embeddings"].shape == (8, 3) and knowledge.tables["query_embeddings"].shape == (13, 3)
    scores = knowledge.table("query_embeddings") @ knowledge.table("item_embeddings").T  # temperature is in the queries
    best = scores[:, 1:].topk(NUM_ITEMS, dim=1)
    assert torch.equal(knowledge.table("query_topk").long(), best.indices + 1)
    torch.testing.assert_close(knowledge.table("query_scores"), best.values)


def test_rows_of_some_users_leave_the_others_empty():
    model, split = teacher(), split_of(ROWS)
    knowledge = export(model, split.train.select([4, 1]), split=split, part="train", k=2)
    answered = (knowledge.table("query_topk") > 0).all(1).nonzero().squeeze(1).tolist()
    assert answered == [3, 4, 10, 11, 12] and knowledge.counts == {"unasked": 8, "masked_scores": 0}
    assert (knowledge.table("query_scores")[:3] == LOW16).all()


def test_a_history_that_holds_all_items_gets_an_empty_list():
    model, split = teacher(), split_of([[1, 2, 3, 4, 5, 6, 7]])
    knowledge = export(model, split.train, split=split, part="train", k=2, filter_seen=True)
    assert knowledge.table("query_topk")[6].tolist() == [0, 0]
    assert knowledge.table("query_scores")[6].tolist() == [LOW16, LOW16]
    assert sorted(knowledge.table("query_topk")[4].tolist()) == [6, 7]
    assert knowledge.table("query_topk")[5].tolist() == [7, 0]


# ---- long sequences -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size, first", [(0, 0), (1, 1), (3, 0), (4, 1), (5, 1), (5, 4), (9, 1), (12, 3), (9, 7), (4, 4)]
)
def test_windows_ask_every_query_once_with_history_left(size, first):
    asked = {}
    for window in windows(Sequence(np.arange(1, size + 1), first, 20), MAX_LENGTH):
        last = len(window.item_ids)
        for p in range(window.first_target, last + 1):
            query = window.query_start + p - window.first_target
            assert query not in asked
            asked[query] = p - max(0, last - MAX_LENGTH)
    assert sorted(asked) == [20 + p - first for p in range(max(first, 1), size + 1)]
    for query, read in asked.items():
        assert read >= min(MAX_LENGTH // 2, query - 20 + first)


def test_rows_longer_than_the_teacher_reads_are_asked_completely():
    rows = [[1, 2, 3, 4, 5], [7, 6, 5, 4, 3, 2, 1, 2, 3]]
    model, split = teacher(), split_of(rows)
    knowledge = export(model, split.train, split=split, part="train", k=2, dtype=torch.float32)
    assert knowledge.counts.get("unasked", 0) == 0
    topk = knowledge.table("query_topk").tolist()
    assert topk[0] == slow(model, [1], False)[0][:2]  # the first query of a full row with its tail
    assert topk[4] == slow(model, [2, 3, 4, 5], False)[0][:2]  # the tail reads the newest four
    assert topk[5 + 8] == slow(model, [2, 1, 2, 3], False)[0][:2]
    assert topk[5 + 4] == slow(model, [5, 4, 3], False)[0][:2] or topk[5 + 4] == slow(model, [6, 5, 4, 3], False)[0][:2]


# ---- teachers that go wrong -----------------------------------------------------------------------------------


class Broken(Bag):
    nothing = False
    scores_by_dot_product = False

    def score(self, query_embeddings, item_ids=None):
        logits = super().score(query_embeddings, item_ids)
        logits[:, 2], logits[:, 3], logits[0, 4] = float("nan"), float("-inf"), float("inf")
        if self.nothing:
            logits[-1] = float("nan")
        return logits


def broken() -> Broken:
    model = Broken(teacher().config)
    model.load_state_dict(teacher().state_dict())
    return model


def test_scores_that_are_no_numbers_are_masked_and_counted(caplog):
    split = split_of(ROWS)
    with caplog.at_level(logging.WARNING):
        knowledge = export(broken(), split.train, split=split, part="train", dtype=torch.float32)
    assert knowledge.counts == {"unasked": 0, "masked_scores": 13 * 2 + 1}
    assert "masked_scores" in caplog.text
    topk, scores = knowledge.table("query_topk"), knowledge.table("query_scores")
    assert not ((topk == 2) | (topk == 3)).any() and int((topk == 4).sum()) == 12
    assert scores.isfinite().all() and (scores[topk == 0] == LOW32).all()
    assert scores.softmax(1)[topk == 0].sum() == 0


def test_a_query_without_a_finite_score_is_an_error():
    split, model = split_of(ROWS), broken()
    model.nothing = True
    with pytest.raises(KnowledgeError, match="no finite score for query 12"):
        export(model, split.train, split=split, part="train")


def test_scores_too_large_for_float16_are_refused():
    split, model = split_of(ROWS), teacher()
    with torch.no_grad():
        model.items.weight *= 1000
    with pytest.raises(KnowledgeError, match=r"do not fit torch\.float16"):
        export(model, split.train, split=split, part="train")
    assert (
        export(model, split.train, split=split, part="train", dtype=torch.float32)
        .table("query_scores")
        .isfinite()
        .all()
    )


def test_a_teacher_of_other_items_is_refused():
    split, model = split_of(ROWS), teacher()
    model.set_catalogue(Catalogue("gfedcba"))
    theirs, ours = Catalogue("gfedcba").fingerprint[:12], split.catalogue.fingerprint[:12]
    with pytest.raises(KnowledgeError, match=rf"{theirs}.*\s*.*{ours}"):
        export(model, split.train, split=split, part="train")
    with pytest.raises(KnowledgeError, match="query_tops"):
        export(teacher(), split.train, split=split, part="train", tables=("query_tops",))
    with pytest.raises(KnowledgeError, match="share query id"):
        export(teacher(), split.train.select([1, 1]), split=split, part="train")
    with pytest.raises(KnowledgeError, match="nothing to ask"):
        export(teacher(), split.train.select([]), split=split, part="train")


def test_knowledge_of_a_wider_catalogue_serves_a_student_of_some_items():
    """A teacher of items a..g, a student of c, a, b: the same queries in two numberings."""
    knowledge = export(
        teacher(), split_of([[1, 2, 3], [3, 1]]).train, split=split_of([[1, 2, 3], [3, 1]]), part="train"
    )
    part = split_of([[2, 3, 1], [1, 2]]).train
    student = Split(Catalogue("cab"), part, part, part, "loo", "tiny")
    aligned = knowledge.align(student.catalogue, "intersection", split=student)
    aligned.check(split=student, part="train")
    wide = [[item for item in row if item <= 3] for row in knowledge.table("query_topk").tolist()]
    assert aligned.table("query_topk")[:, :3].tolist() == [[{1: 2, 2: 3, 3: 1}[item] for item in row] for row in wide]
    assert aligned.coverage["items"] == 1 and 0 < aligned.coverage["mass"] < 1
    longer = split_of([[2, 3, 1, 2], [1, 2]]).train
    with pytest.raises(KnowledgeError, match="answers 5 queries of train, but this split asks 6"):
        other = Split(Catalogue("cab"), longer, longer, longer, "loo", "tiny")
        knowledge.align(student.catalogue, "intersection", split=other)


# ---- killed and continued -------------------------------------------------------------------------------------


def run(model, split, folder, **options) -> tuple[Knowledge, int]:
    before = Bag.calls
    knowledge = export(model, split.train, split=split, part="train", k=3, folder=folder, shard_rows=4, **options)
    return knowledge, Bag.calls - before


@pytest.fixture
def counted(monkeypatch):
    monkeypatch.setattr(Bag, "calls", 0)


def test_a_killed_export_continues(tmp_path, counted):
    model, split = teacher(), split_of(ROWS)
    whole, calls = run(model, split, tmp_path)
    assert calls == 3
    manifest = json.loads((tmp_path / "knowledge.json").read_text())
    first = (tmp_path / "query-00000.safetensors").stat().st_mtime_ns
    whole_topk = whole.table("query_topk").clone()
    (tmp_path / "knowledge.json").unlink()
    (tmp_path / "query-00002.safetensors").rename(tmp_path / "query-00002.safetensors.part")
    (tmp_path / "query-00001.safetensors").write_bytes(b"half")
    with pytest.raises(KnowledgeError, match="interrupted"):
        Knowledge.from_pretrained(tmp_path)
    again, calls = run(model, split, tmp_path)
    assert calls == 2  # the last shard and the broken one
    assert (tmp_path / "query-00000.safetensors").stat().st_mtime_ns == first
    assert torch.equal(again.table("query_topk"), whole_topk)
    assert json.loads((tmp_path / "knowledge.json").read_text()) == manifest
    assert run(model, split, tmp_path)[1] == 0


def test_shards_of_another_teacher_or_question_are_not_kept(tmp_path, counted):
    model, split = teacher(), split_of(ROWS)
    run(model, split, tmp_path)
    assert run(model, split, tmp_path, filter_seen=True)[1] == 3
    with torch.no_grad():
        model.items.weight[1:] += 1
    knowledge, calls = run(model, split, tmp_path, filter_seen=True)
    assert calls == 3
    knowledge.check(teacher_revision=revision(model))
    with pytest.raises(KnowledgeError, match="teacher revision"):
        knowledge.check(teacher_revision=revision(teacher()))
