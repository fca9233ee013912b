"""A teacher answers queries piece by piece: every position of every sequence, from as much history as it reads."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as List
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..batches.collators import Sequence, SequenceDataset
from ..catalogue import PADDING
from ..errors import KnowledgeError
from ..recommenders.catalogue_scores import catalogue_scores, pairs_within
from ..recommenders.recommender import RecommenderModel
from ..recommenders.user_recommender import UserRecommender
from .store.source import SHARD_ROWS, Piece, pieces_of
from .store.table import blank

SCORES = 1 << 25  # scores held at a time, 128 MB in float32
LOWEST = torch.finfo(torch.float32).min
LISTS = {"query_topk", "query_seen_topk"}


class Interview:
    """The rows of a part in the order of their query ids, and the teacher that answers them.

    Args:
        tables, k, batch_size, filter_seen, dtype: as in `export`; k at most I.
        quiet: show no progress.

    Raises:
        KnowledgeError: there are no rows, or two rows share query ids.
    """

    def __init__(
        self,
        teacher: RecommenderModel,
        sequences: SequenceDataset,
        tables: List[str],
        k: int,
        batch_size: int,
        filter_seen: bool,
        dtype: torch.dtype,
        quiet: bool = False,
    ) -> None:
        self.teacher, self.tables, self.k, self.dtype = teacher, tables, k, dtype
        self.batch_size, self.filter_seen = batch_size, filter_seen
        self.sequences = sequences
        self.seen_k = min(k, int(np.diff(sequences.offsets).max(initial=1)))
        if not len(self.sequences):
            raise KnowledgeError("there is nothing to ask: this part of the split has no rows.")
        self.order = np.argsort(self.sequences.query_start, kind="stable")
        self.starts = self.sequences.query_start[self.order]
        reserved = (np.diff(self.sequences.offsets) - self.sequences.first_target + 1)[self.order]
        shared = np.flatnonzero(self.starts[:-1] + reserved[:-1] > self.starts[1:])
        if shared.size:
            a, b = self.order[shared[0] : shared[0] + 2]
            raise KnowledgeError(
                f"rows {a} and {b} share query id {self.starts[shared[0] + 1]}. Export one part at a time."
            )
        self.progress = tqdm(total=len(self.order), desc="export", unit=" sequences", disable=quiet or None)

    def pieces(self, shard_rows: int) -> list[Piece]:
        """About `shard_rows` rows each, cut between sequences, so that one sequence is asked for one shard."""
        pieces = []
        if set(self.tables) & {*LISTS, "query_embeddings"}:
            first = np.flatnonzero(np.diff(self.starts // shard_rows, prepend=-1))
            cuts = [0, *self.starts[first][1:].tolist(), self.sequences.num_queries]
            pieces = [Piece("query", at, *cuts[at : at + 2]) for at in range(len(first))]
        if set(self.tables) & {"item_embeddings", "item_topk"}:
            pieces += pieces_of("item", self.teacher.config.num_items + 1, shard_rows)
        return pieces

    @torch.no_grad()
    def answer(self, piece: Piece) -> tuple[dict[str, Tensor], dict[str, int]]:
        """The tables of one piece, and how many rows were `unasked` and scores not finite (`masked_scores`)."""
        if piece.kind == "item":
            return self._items(torch.arange(piece.start, piece.stop, device=self.teacher.device)), {}
        rows = piece.stop - piece.start
        tables = {}
        if "query_topk" in self.tables:
            tables["query_topk"] = blank("query_topk", (rows, self.k), torch.int32)
            tables["query_scores"] = blank("query_scores", (rows, self.k), self.dtype)
        if "query_seen_topk" in self.tables:
            tables["query_seen_topk"] = blank("query_seen_topk", (rows, self.seen_k), torch.int32)
        if "query_embeddings" in self.tables:
            tables["query_embeddings"] = blank("query_embeddings", (rows, self.teacher.embedding_size), self.dtype)
        asked, masked = torch.zeros(rows, dtype=torch.bool), 0
        for batch in self._batches(piece):
            inputs = {name: batch[name].to(self.teacher.device) for name in self.teacher.inputs}
            queries = self.teacher(**inputs).query_embeddings  # (Q, D)
            at = batch["query_ids"] - piece.start
            asked[at] = True
            if "query_embeddings" in tables:
                tables["query_embeddings"][at] = self._fit(queries / self.teacher.config.temperature)
            if LISTS & set(tables):
                lists, bad = self._lists(queries, batch)
                for name, rows_of_batch in lists.items():
                    tables[name][at] = rows_of_batch
                masked += bad
        return tables, {"unasked": int((~asked).sum()), "masked_scores": masked}

    def _items(self, item_ids: Tensor) -> dict[str, Tensor]:
        """The `item_*` tables of the rows `item_ids (n,)`."""
        tables = {}
        if "item_embeddings" in self.tables:
            tables["item_embeddings"] = self._fit(self.teacher.item_embeddings(item_ids))
        if "item_topk" in self.tables:
            step = max(1, SCORES // self.user_embeddings.shape[0])
            tables["item_topk"] = torch.cat([self._users(part) for part in item_ids.split(step)])
        return tables

    @cached_property
    def user_embeddings(self) -> Tensor:
        """`(U+1, D)`, row 0 the unknown user."""
        if not isinstance(self.teacher, UserRecommender) or self.teacher.users is None:
            raise KnowledgeError(
                f"item_topk lists users, and {type(self.teacher).__name__} knows none. Ask MF or LightGCN, with "
                "model.set_users(split.users)."
            )
        return self.teacher.user_embeddings(torch.arange(len(self.teacher.users) + 1, device=self.teacher.device))

    @cached_property
    def _buyers(self) -> tuple[Tensor, Tensor]:
        """Items of all rows in ascending order, and who has each."""
        sequences = self.sequences
        items = torch.from_numpy(sequences.values[sequences.offsets[0] : sequences.offsets[-1]].astype(np.int64))
        users = torch.from_numpy(np.repeat(sequences.user, np.diff(sequences.offsets)))
        order = items.argsort()
        return items[order], users[order]

    def _users(self, item_ids: Tensor) -> Tensor:
        """The best users `(n, M)` of consecutive items `(n,)`, without those that have the item; 0: empty place."""
        scores = self.teacher.score(self.user_embeddings, item_ids).float().T.contiguous()  # (n, U+1)
        items, users = self._buyers
        low, high = torch.searchsorted(items, torch.stack([item_ids[0], item_ids[-1] + 1]).cpu()).tolist()
        scores[items[low:high] - item_ids[0].cpu(), users[low:high]] = LOWEST
        scores[:, PADDING] = LOWEST
        scores[item_ids == PADDING] = LOWEST
        best = scores.topk(min(self.k, scores.shape[1] - 1), dim=1)
        return _entries(best)

    def _batches(self, piece: Piece) -> Iterator[dict[str, Tensor]]:
        collate = self.teacher.collator(tail=True, seen=self.filter_seen or "query_seen_topk" in self.tables)
        low, high = np.searchsorted(self.starts, [piece.start, piece.stop])
        max_length = self.teacher.config.max_position_embeddings
        for begin in range(low, high, self.batch_size):
            rows = self.order[begin : min(begin + self.batch_size, high)]
            batch = collate([window for row in rows for window in windows(self.sequences[row], max_length)])
            if len(batch["query_ids"]):
                yield batch
            self.progress.update(len(rows))

    def _lists(self, queries: Tensor, batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], int]:
        """The tables of lists `(Q, M)`, and how many scores were masked for being no number."""
        parts: list[dict[str, Tensor]] = []
        masked = 0
        for asked, scores in catalogue_scores(self.teacher, queries):
            logits = scores.float()  # (q, I+1)
            if not torch.stack(logits[:, 1:].aminmax()).isfinite().all():  # one pass; NaN shows in both
                masked += self._mask(logits, batch["query_ids"][asked])
            logits[:, PADDING] = LOWEST
            part: dict[str, Tensor] = {}
            if "seen_query" in batch:
                pairs = pairs_within(batch["seen_query"], asked)
                seen = batch["seen_query"][pairs] - asked.start, batch["seen_items"][pairs]
                if "query_seen_topk" in self.tables:
                    had = torch.full_like(logits, LOWEST)
                    had[seen] = logits[seen]
                    part["query_seen_topk"] = _entries(had.topk(self.seen_k, dim=1))
                if self.filter_seen:
                    logits[seen] = LOWEST
            if "query_topk" in self.tables:
                best = logits.topk(self.k, dim=1)
                empty = best.values == LOWEST
                part["query_topk"] = _entries(best)
                kept = self._fit(best.values.masked_fill(empty, 0))
                part["query_scores"] = kept.masked_fill(empty.cpu(), torch.finfo(self.dtype).min)
            parts.append(part)
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}, masked

    def _mask(self, logits: Tensor, query_ids: Tensor) -> int:
        """Put the lowest score where there is no finite one, `logits (q, I+1)`; returns at how many places."""
        bad = ~logits.isfinite()
        bad[:, PADDING] = False
        mute = bad[:, 1:].all(dim=1)
        if mute.any():
            raise KnowledgeError(
                f"the teacher has no finite score for query {int(query_ids[int(mute.nonzero()[0])])}: all are NaN or "
                "infinite. Look at its weights; a checkpoint of a diverged run cannot teach."
            )
        logits.masked_fill_(bad, LOWEST)
        return int(bad.sum())

    def _fit(self, values: Tensor) -> Tensor:
        small = values.to("cpu", self.dtype)
        if not small.isfinite().all():
            raise KnowledgeError(
                f"values up to {float(values.abs().max()):.4g} do not fit {self.dtype}. Use dtype=torch.float32."
            )
        return small


def _entries(best: torch.return_types.topk) -> Tensor:
    """What a top-k found, int32 on the CPU; 0 where there was nothing left."""
    return best.indices.masked_fill(best.values == LOWEST, PADDING).int().cpu()


def windows(sequence: Sequence, max_length: int) -> Iterator[Sequence]:
    """Cut a sequence so that a model that reads `max_length` items is asked every query, the tail too, once.

    One forward over the whole would drop the oldest items, and with them the first queries. A query of a later window
    sees at least half of `max_length` items.
    """
    # without a history only a known user can be asked
    first, size = max(sequence.first_target, int(sequence.user == 0)), len(sequence.item_ids)
    last = min(size, max(first, max_length))
    while True:
        start = sequence.query_start + first - sequence.first_target
        yield Sequence(sequence.item_ids[:last], first, start, sequence.user)
        if last >= size:
            return
        first, last = last + 1, min(size, last + max(1, max_length // 2))


@torch.no_grad()
def best_items(recommender: RecommenderModel, sequences: SequenceDataset, k: int, *, batch_size: int = 256) -> Tensor:
    """The best k items of every query by id, `(N, k)` int32, without what the query's history holds; 0: none is left.

    As the knowledge table `query_topk`, but of a model that is still in training, whose mode it leaves as it was.
    """
    training, k = recommender.training, min(k, recommender.config.num_items)
    interview = Interview(recommender, sequences, ("query_topk",), k, batch_size, True, torch.float32, quiet=True)
    recommender.eval()
    try:
        shards = [interview.answer(piece)[0]["query_topk"] for piece in interview.pieces(SHARD_ROWS)]
    finally:
        recommender.train(training)
    return torch.cat(shards)
