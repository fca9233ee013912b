"""What every recommender can do, teacher or student: embed queries, score items, recommend in external ids, grow."""

from __future__ import annotations

import logging
from collections.abc import Sequence as List
from dataclasses import dataclass
from typing import cast

import datasets
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers.utils import ModelOutput

from ..batches.collators import UNLABELLED, Collator, QueryCollator, Sequence, SequenceDataset, ranges
from ..catalogue import PADDING, Catalogue
from ..errors import ConfigError, DataError
from ..functional import losses
from ..modules.embedding_tables import add_rows
from .checkpointed_model import CheckpointedModel
from .configuration import RecommenderConfig

logger = logging.getLogger(__name__)


@dataclass
class RecommenderOutput(ModelOutput):
    """`query_embeddings (Q, D)`: one per query, comparable with `item_embeddings()` by `score`."""

    query_embeddings: Tensor


@dataclass(frozen=True)
class Recommendations:
    """For every history its items (external ids, best first), their scores, and whether popularity had to answer.

    A list is shorter than k when fewer than k items are left to recommend. `from_popularity` is true for a history
    that is empty or holds no item of the catalogue.
    """

    item_ids: list[list[str]]
    scores: list[list[float]]
    from_popularity: list[bool]


class RecommenderModel(CheckpointedModel):
    """Base of all models. A subclass sets `config_class` and writes `forward` and `item_embeddings`.

    `inputs` names the batch entries that `forward` reads. Knowledge of the world outside (external ids, how often an
    item was bought) lives here: `catalogue` and the buffer `item_counts (I+1,)`.

    Class attributes:
        content_argument: which argument of `add_items` takes the content of new items, where the model reads it.
        shared_space: the first of `user_tables` and of `item_tables` are one space: the items of a user tell where he
            is.
    """

    item_counts: Tensor
    base_model_prefix = "recommender"
    main_input_name = "item_ids"
    inputs: tuple[str, ...] = ("item_ids", "sequence_ids", "position_ids", "query_index")
    content_argument: str | None = None
    shared_space: bool = False

    def __init__(self, config: RecommenderConfig) -> None:
        super().__init__(config)
        self.users: Catalogue | None = None  # only of models that know users, see `user_recommender`
        self.register_buffer("item_counts", torch.zeros(config.num_items + 1))

    # ---- what a subclass writes -------------------------------------------------------------------------------

    def forward(
        self, item_ids: Tensor, sequence_ids: Tensor, position_ids: Tensor, query_index: Tensor
    ) -> RecommenderOutput:
        """Embed the queries of a packed batch (see `QueryCollator`)."""
        raise NotImplementedError

    def item_embeddings(self, item_ids: Tensor | None = None) -> Tensor:
        """`(I+1, D)`, row 0 padding; or `(*item_ids.shape, D)`."""
        raise NotImplementedError

    def content_embeddings(self, item_ids: Tensor | None = None) -> Tensor:
        """What the content of items says about them, without learned vectors: `(I+1, D)` or `(*item_ids.shape, D)`.

        The teacher space from which a student takes over new items, see `seqkd.fit_item_projection`.

        Raises:
            ConfigError: the model reads no content.
        """
        raise ConfigError(
            f"{type(self).__name__} reads no content of items. Take the teacher space of a model that does (UniSRec), "
            "or text vectors themselves."
        )

    @property
    def embedding_size(self) -> int:
        """D, width of query and item embeddings."""
        return self.config.hidden_size

    @property
    def item_tables(self) -> List[nn.Module]:
        """The tables with a learned row for each item, 0 padding; `add_items` takes rows of the first."""
        return [self.get_input_embeddings()]

    @property
    def user_tables(self) -> List[nn.Module]:
        """The tables with a learned row for each user, 0 unknown, of models that know users."""
        return []

    # ---- scores and losses ------------------------------------------------------------------------------------

    @property
    def scores_by_dot_product(self) -> bool:
        """`score` is `query_embeddings @ item_embeddings().T / temperature`, so that the two tables are knowledge."""
        return True

    def score(self, query_embeddings: Tensor, item_ids: Tensor | None = None) -> Tensor:
        """Logits `(Q, I+1)` over the catalogue, the padding item at the dtype's minimum, or `(Q, C)` for candidates.

        Args:
            query_embeddings: `(Q, D)` from `forward`.
            item_ids: `(C,)` candidates shared by all queries, or `(Q, C)` candidates of each.
        """
        items = self.item_embeddings(item_ids)  # (I+1, D), (C, D) or (Q, C, D)
        queries = query_embeddings / self.config.temperature  # not the logits: there are many more of them
        # the product and sum: twice as fast on a CPU as the batched matmul of a vector that an einsum makes of it
        logits = queries @ items.T if items.dim() == 2 else (items * queries[:, None]).sum(dim=2)
        if item_ids is None:
            logits[:, PADDING] = torch.finfo(logits.dtype).min
        return logits

    def catalogue_log_probs(self, query_embeddings: Tensor, item_ids: Tensor) -> Tensor:
        """Log-softmax over the whole catalogue at `item_ids (Q, M)`, `(Q, M)`; 0 at padding."""
        queries = query_embeddings / self.config.temperature
        return losses.catalogue_log_probs(queries, self.item_embeddings(), item_ids)

    def loss(self, query_embeddings: Tensor, targets: Tensor) -> Tensor:
        """The configured recommendation loss of each labelled query, `(Q,)` without reduction.

        Args:
            query_embeddings: `(Q, D)`.
            targets: `(Q,)` internal ids, none unlabelled.
        """
        config = self.config
        if config.loss_type == "softmax":
            return -self.catalogue_log_probs(query_embeddings, targets[:, None]).squeeze(1)
        if config.loss_type == "sampled_softmax":
            negatives, log_q = losses.sample_by_count(self.item_counts, config.num_negatives)  # (N,), (I+1,)
            logits = self.score(query_embeddings, negatives)  # (Q, N)
            positive = self.score(query_embeddings, targets[:, None]).squeeze(1)  # (Q,)
            return losses.sampled_softmax(positive, logits, targets, negatives, log_q)
        negatives = losses.sample_uniform(targets, config.num_items, config.num_negatives)  # (Q, N)
        logits = self.score(query_embeddings, torch.cat([targets[:, None], negatives], dim=1))  # (Q, 1+N)
        if config.loss_type == "bpr":
            return losses.bpr(logits[:, 0], logits[:, 1:])
        if config.loss_type == "gbce":
            return losses.gbce(logits[:, 0], logits[:, 1:], num_items=config.num_items, t=config.gbce_t)
        return losses.bce(logits[:, 0], logits[:, 1:])

    def training_loss(self, output: RecommenderOutput, targets: Tensor, step_targets: Tensor | None = None) -> Tensor:
        """The loss that trains this model without a teacher, `(Q,)`, 0 where a query is unlabelled.

        Args:
            targets: `(Q,)` internal ids or `UNLABELLED`.
            step_targets: `(C,)` labels of the whole optimizer step, for losses that contrast within it.
        """
        labelled = targets != UNLABELLED
        loss = self.loss(output.query_embeddings[labelled], targets[labelled])
        return torch.zeros(len(targets), dtype=loss.dtype, device=loss.device).masked_scatter(labelled, loss)

    # ---- external ids -----------------------------------------------------------------------------------------

    @property
    def item_ids(self) -> tuple[str, ...]:
        """External ids in the order of the item table, row 1 first."""
        return self._known_catalogue().item_ids

    def set_catalogue(self, catalogue: Catalogue, item_counts: Tensor | None = None) -> None:
        """Attach the external ids, and how often each was bought in training (`(I+1,)`; for popularity and logQ)."""
        if len(catalogue) != self.config.num_items:
            raise ConfigError(
                f"the catalogue holds {len(catalogue)} items, but the model was configured with num_items="
                f"{self.config.num_items}. Build the model with num_items={len(catalogue)}, or grow it with add_items."
            )
        self.catalogue = catalogue
        if item_counts is not None and item_counts.shape != self.item_counts.shape:
            raise ConfigError(
                f"item_counts must be {tuple(self.item_counts.shape)} (padding and every item), got "
                f"{tuple(item_counts.shape)}. Use count_items(split.train, num_items)."
            )
        if item_counts is not None:
            self.item_counts.copy_(item_counts)

    @torch.no_grad()
    def recommend(
        self, histories: List[List[str]], k: int = 10, *, filter_seen: bool = True, batch_size: int = 1024
    ) -> Recommendations:
        """The k best items for each history, in external ids; a history need not occur in training.

        Args:
            histories: external item ids, oldest first. Unknown ids are skipped (and counted in a warning); only the
                newest `max_position_embeddings` items are read, but all are filtered.
            filter_seen: leave out what the history already holds.

        Raises:
            DataError: `k` is below 1, or a history is a bare string.
        """
        return self._answer(self._sequences(histories), k, filter_seen, batch_size)

    def _sequences(self, histories: List[List[str]], users: np.ndarray | None = None) -> list[Sequence]:
        """Histories as rows that ask for what comes next; `users (n,)` internal ids, 0 where unknown."""
        catalogue = self._known_catalogue()
        if isinstance(histories, str) or any(isinstance(history, str) for history in histories):
            raise DataError("histories must be a list of lists of item ids, e.g. recommend([['B001', 'B007']]).")
        encoded = [catalogue.encode(history) for history in histories]
        unknown = sum(int((rows == PADDING).sum()) for rows in encoded)
        if unknown:
            logger.warning(
                "%d of %d history items are not in the catalogue and are skipped.", unknown, sum(map(len, encoded))
            )
        encoded = [rows[rows != PADDING] for rows in encoded]
        numbers = [0] * len(encoded) if users is None else users.tolist()
        return [Sequence(rows, len(rows), 0, user) for rows, user in zip(encoded, numbers, strict=True)]

    def _can_answer(self, sequence: Sequence) -> bool:
        """False where only popularity is left."""
        return len(sequence.item_ids) > 0

    def _answer(self, sequences: List[Sequence], k: int, filter_seen: bool, batch_size: int) -> Recommendations:
        catalogue = self._known_catalogue()
        if k < 1:
            raise DataError(f"k must be at least 1, got {k}.")
        if k > len(catalogue):
            logger.warning("k=%d is more than the catalogue's %d items; each list ends earlier.", k, len(catalogue))
        items, scores = [], []
        # a batch of scores over the whole catalogue is held at a time: no more than 2^26 of them
        batch_size = max(1, min(batch_size, 2**26 // (len(catalogue) + 1)))
        was_training = self.training
        if was_training:
            self.eval()
        for at in range(0, len(sequences), batch_size):
            part_items, part_scores = self._recommend_rows(
                sequences[at : at + batch_size], min(k, len(catalogue)), filter_seen
            )
            items += [catalogue.decode(row) for row in part_items]
            scores += part_scores
        if was_training:
            self.train()
        return Recommendations(items, scores, [not self._can_answer(sequence) for sequence in sequences])

    def _recommend_rows(
        self, sequences: List[Sequence], k: int, filter_seen: bool
    ) -> tuple[list[list[int]], list[list[float]]]:
        popularity = torch.log1p(self.item_counts) - torch.log1p(self.item_counts.sum())  # (I+1,)
        scores = popularity.repeat(len(sequences), 1)  # (B, I+1)
        known = [row for row, sequence in enumerate(sequences) if self._can_answer(sequence)]
        if known:
            batch = self.collator(tail=True)([sequences[row] for row in known])
            inputs = {name: batch[name].to(self.device) for name in self.inputs}
            scores[known] = self.score(self(**inputs).query_embeddings).to(scores.dtype)
        blocked = torch.finfo(scores.dtype).min
        scores[:, PADDING] = blocked
        if filter_seen:
            for row, sequence in enumerate(sequences):
                scores[row, torch.from_numpy(sequence.item_ids).to(scores.device)] = blocked
        best = scores.topk(k)
        keep = best.values > blocked
        return (
            [row[kept].tolist() for row, kept in zip(best.indices, keep, strict=True)],
            [row[kept].tolist() for row, kept in zip(best.values, keep, strict=True)],
        )

    def collator(self, *, tail: bool = False, seen: bool = False, training: bool = False) -> Collator:
        """What lays batches out the way this model reads them.

        Args:
            tail: also ask the unlabelled query after the last item.
            seen: add the pairs `seen_query`, `seen_items`.
            training: the batches are for training: a model that cannot answer all queries of a row at once then draws
                one of them.
        """
        return QueryCollator(self.config.max_position_embeddings, tail=tail, seen=seen)

    def training_rows(self, sequences: SequenceDataset) -> Dataset:
        """What this model is trained on: the rows of a split as they are, or in pieces (see `seqkd.batches.pairs`)."""
        return sequences

    @torch.no_grad()
    def add_items(self, item_ids: List[str], embeddings: Tensor | None = None) -> None:
        """Grow the catalogue. Old rows stay bit-equal; what is not given of a new item is the mean of the old ones.

        An optimizer made before holds the tables as they were: make a new one.

        Args:
            embeddings: `(n, D)` rows of the first of `item_tables`.

        Raises:
            DataError: an id is already in the catalogue, or `embeddings` has another shape or is not finite.
            ConfigError: `embeddings` are given, but the model has no row for an item.
        """
        self._check_rows("item", embeddings, len(item_ids), self.item_tables)
        self._extend_catalogue(item_ids)  # first: it refuses known and repeated ids
        add_rows(self.item_tables, len(item_ids), embeddings)

    def _extend_catalogue(self, item_ids: List[str]) -> None:
        """The external side of `add_items`: ids, counts, the number of items."""
        self.catalogue = extended(self._known_catalogue(), item_ids, "already in the catalogue", "item")
        self.item_counts = torch.cat([self.item_counts, self.item_counts.new_zeros(len(item_ids))])
        self.config.num_items += len(item_ids)
        self._forget()

    def _check_rows(self, kind: str, embeddings: Tensor | None, count: int, tables: List[nn.Module]) -> None:
        """Refuse rows of new users or items that are not rows of the first table."""
        if embeddings is None:
            return
        if not tables:
            raise ConfigError(
                f"{type(self).__name__} has no {kind} table, no row for each {kind}: leave embeddings out."
            )
        expected = (count, cast(Tensor, tables[0].weight).shape[1])
        if tuple(embeddings.shape) != expected:
            raise DataError(f"embeddings must be {expected} (new {kind}s, width), got {tuple(embeddings.shape)}.")
        if not torch.isfinite(embeddings).all():
            raise DataError("embeddings hold NaN or infinite values, which every list of recommendations would feel.")

    def _forget(self) -> None:
        """Drop what was made of the tables as they were: they have grown. For models that hold such a thing."""

    def _known_catalogue(self) -> Catalogue:
        if self.catalogue is None:
            raise ConfigError("this model knows no external ids yet. Call model.set_catalogue(split.catalogue) first.")
        return self.catalogue


def extended(known: Catalogue, new: List[str], refusal: str, kind: str) -> Catalogue:
    """The ids of users or items with new ones behind them, none of which may be known."""
    if isinstance(new, str):
        raise DataError(f"new {kind}s must be a list of ids, e.g. [{new!r}], not a bare string.")
    twice = [name for name in new if name in known]
    if twice:
        raise DataError(f"{refusal}: {twice[:5]}. Add each {kind} once.")
    return known.extend(new)


def count_items(rows: datasets.Dataset, num_items: int) -> Tensor:
    """How often each item occurs in a part of a split, `(I+1,)` float32; what rows of one history share counts once.

    Raises:
        DataError: an item id lies outside `1..num_items`.
    """
    part = SequenceDataset(rows, num_items)
    told = np.diff(part.offsets) - part.new_from
    items = part.values[np.repeat(part.offsets[:-1] + part.new_from, told) + ranges(told)]
    return torch.from_numpy(np.bincount(items, minlength=num_items + 1).astype(np.float32))


__all__ = ["UNLABELLED", "Recommendations", "RecommenderModel", "RecommenderOutput", "count_items"]
