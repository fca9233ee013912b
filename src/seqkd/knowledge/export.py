"""Asks a teacher everything a part of a split can ask, once, and keeps the answers as knowledge."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Sequence

import datasets
import torch
from torch import Tensor, nn

from ..batches.collators import SequenceDataset
from ..data.split import Split
from ..errors import KnowledgeError
from ..recommenders.recommender import RecommenderModel
from .interview import Interview
from .knowledge import Knowledge, Source, Table
from .store.source import SHARD_ROWS
from .store.writer import write

logger = logging.getLogger(__name__)
TABLES = ("query_topk", "query_seen_topk", "query_embeddings", "item_embeddings", "item_topk")


def export(
    recommender: RecommenderModel,
    rows: datasets.Dataset,
    *,
    split: Split,
    part: str,
    tables: Sequence[str] = ("query_topk",),
    k: int = 100,
    folder: str | os.PathLike | None = None,
    batch_size: int = 256,
    filter_seen: bool = False,
    dtype: torch.dtype = torch.float16,
    shard_rows: int = SHARD_ROWS,
    teacher: str | None = None,
) -> Knowledge:
    """What `recommender` says about every query of `rows`, tails included.

    Args:
        rows: one part of `split` (or some of its rows); `part` is the name of that part.
        tables: of `query_topk` (brings `query_scores`), `query_seen_topk` (the items of the query's own history in the
            teacher's order), `query_embeddings`, `item_embeddings`, `item_topk` (the best users of each item, internal
            ids, without those that have it in `rows`; of a model that knows users).
        k: M, length of the lists; at most I (or U, or the longest history).
        folder: where to write; a killed export continues when called again. In memory without it.
        batch_size: sequences per forward.
        filter_seen: leave the items of a query's own history out of its list, as the masked protocol does.
        dtype: of scores and embeddings.
        teacher: name to remember; default the recommender's own.

    Raises:
        KnowledgeError: the teacher has another catalogue than the split, a query has no finite score, values do not
            fit `dtype`, or `query_embeddings` are asked of a teacher whose score is no dot product.
    """
    unknown = set(tables) - set(TABLES)
    if unknown or not tables or k < 1:
        raise KnowledgeError(f"tables must be some of {TABLES} and k at least 1, got {tuple(tables)} and k={k}.")
    catalogue, config = split.catalogue, recommender.config
    if recommender.catalogue not in (None, catalogue) or config.num_items != len(catalogue):
        theirs = "none" if recommender.catalogue is None else recommender.catalogue.fingerprint[:12]
        raise KnowledgeError(
            f"the teacher has {config.num_items} items (fingerprint {theirs}), the split {len(catalogue)} "
            f"({catalogue.fingerprint[:12]}). Split the data with the teacher's catalogue, or train it on this one."
        )
    if recommender.users is not None and recommender.users != split.users:
        raise KnowledgeError(
            f"the teacher knows {len(recommender.users)} users, numbered otherwise than the {len(split.users)} of the "
            "split. Train it on this split, after model.set_users(split.users)."
        )
    if "query_embeddings" in tables and not recommender.scores_by_dot_product:
        raise KnowledgeError(
            f"{type(recommender).__name__} does not score by a dot product, so its query_embeddings would say "
            "something else than its lists. Export query_topk, and distil with candidates='catalogue'."
        )
    options = {"tables": sorted(tables), "k": k, "filter_seen": filter_seen, "dtype": str(dtype).removeprefix("torch.")}
    source = Source(
        teacher=teacher or _name(recommender),
        teacher_revision=revision(recommender),
        split_fingerprint=split.fingerprint,
        part=part,
        similarity=config.similarity,
        temperature=float(config.temperature),
        options=options,
    )
    sequences = SequenceDataset(rows, config.num_items, recommender.users)
    interview = Interview(recommender, sequences, tables, min(k, len(catalogue)), batch_size, filter_seen, dtype)
    pieces = interview.pieces(shard_rows)
    was_training = recommender.training
    if was_training:
        recommender.eval()
    try:
        if folder is None:
            answers = [interview.answer(piece) for piece in pieces]
        else:
            write(folder, source, catalogue, pieces, interview.answer, resume=True)
    finally:
        if was_training:
            recommender.train()
        interview.progress.close()
    if folder is not None:
        knowledge = Knowledge.from_pretrained(folder)
    else:
        shards: dict[str, list[Tensor]] = {}
        for name, tensor in ((name, tensor) for made, _ in answers for name, tensor in made.items()):
            shards.setdefault(name, []).append(tensor)
        counts: Counter[str] = Counter()
        for _, counted in answers:
            counts.update(counted)
        knowledge = Knowledge(source, catalogue, {name: Table(parts) for name, parts in shards.items()}, counts)
    if any(knowledge.counts.values()):
        logger.warning("knowledge of %s on %s: %s", source.teacher, part, knowledge.counts)
    return knowledge


def revision(model: nn.Module) -> str:
    """sha256 of names, shapes and values of all weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _name(model: RecommenderModel) -> str:
    """Where the model was loaded from, without the path of this machine."""
    name = str(model.config.name_or_path)
    return os.path.basename(os.path.normpath(name)) if os.path.exists(name) else name or type(model).__name__
