"""What a teacher says about one part of one split, as tables: exported once, memory-mapped, checked when used.

The prefix of a table's name tells what its rows are indexed by. Known so far:

    query_topk (N, M) int32          the teacher's best items for each query, best first; 0 is an empty place
    query_scores (N, M)              their logits, the teacher's temperature applied; dtype's minimum at empty places
    query_seen_topk (N, P) int32     the items of the query's own history in the teacher's order; 0 is an empty place
    query_embeddings (N, d)          query side of the teacher's score, divided by its temperature
    item_embeddings (I+1, d)         item side, row 0 padding
    item_topk (I+1, M) int32         the teacher's best users for each item, best first; 0 is an empty place
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ..catalogue import Catalogue
from ..data.split import Split
from ..errors import KnowledgeError
from .alignment import realign, require_same_items, require_same_queries
from .store.hub import fetch, publish
from .store.reader import read
from .store.source import SHARD_ROWS, Piece, Source, pieces_of
from .store.table import Table
from .store.writer import write

logger = logging.getLogger(__name__)


class Knowledge:
    """Tables of one teacher (or an ensemble) about one part of one split.

    Args:
        source: who says it, about what.
        catalogue: the items that lists of a query and `item_*` number.
        tables: all `query_*` with N rows, all `item_*` with I+1 rows.
        counts: what the export noticed, e.g. `unasked` rows and `masked_scores`.

    Raises:
        KnowledgeError: a name is not `query_*` or `item_*`, or row counts contradict each other.
    """

    def __init__(
        self, source: Source, catalogue: Catalogue, tables: Mapping[str, Table], counts: Mapping[str, int] | None = None
    ) -> None:
        self.source, self.catalogue = source, catalogue
        self.tables = dict(tables)
        self.counts = dict(counts or {})
        self._folder: str | None = None
        for name, table in self.tables.items():
            if not name.startswith(("query_", "item_")):
                raise KnowledgeError(f"table {name!r} must be called query_... or item_..., after the ids of its rows.")
            rows = self.num_queries if name.startswith("query_") else len(catalogue) + 1
            if len(table) != rows:
                raise KnowledgeError(
                    f"table {name} has {len(table)} rows, but its neighbours or the items want {rows}."
                )
        shapes = [tables[name].shape for name in ("query_topk", "query_scores") if name in tables]
        if "query_topk" in tables and shapes != shapes[:1] * 2:
            raise KnowledgeError("query_topk needs query_scores of the same shape.")

    @classmethod
    def from_tables(cls, tables: Mapping[str, Tensor], *, source: Source, catalogue: Catalogue) -> Knowledge:
        """Knowledge in memory."""
        return cls(source, catalogue, {name: Table([tensor]) for name, tensor in tables.items()})

    def __repr__(self) -> str:
        tables = ", ".join(f"{name} {table.shape}" for name, table in self.tables.items())
        return f"Knowledge({self.source.teacher} on {self.source.part}: {tables})"

    @property
    def num_queries(self) -> int:
        """N, rows of the `query_*` tables."""
        return next((len(table) for name, table in self.tables.items() if name.startswith("query_")), 0)

    @property
    def coverage(self) -> dict[str, float] | None:
        """After `align(how="intersection")`: shares of the student's `items` and of the teacher's `mass` kept."""
        return self.source.options.get("coverage")

    def table(self, name: str) -> Tensor:
        """The whole table as one tensor; for `item_*` tables, others are better read by `rows`."""
        return self._find(name).all()

    def rows(self, name: str, ids: Tensor) -> Tensor:
        """Rows of a table for `(n,)` query or item ids, `(n, ...)` on the device of `ids`.

        Raises:
            KnowledgeError: the table does not exist, an id is out of range, or a list names an item that does not.
        """
        table, wanted = self._find(name), ids.cpu()
        if len(wanted) and (int(wanted.min()) < 0 or int(wanted.max()) >= len(table)):
            raise KnowledgeError(
                f"{name} of {self.source.teacher} has rows 0..{len(table) - 1}, asked for {int(wanted.min())}.."
                f"{int(wanted.max())}. Export the whole {self.source.part} part of this split."
            )
        values = table[wanted]
        if name in ("query_topk", "query_seen_topk") and values.numel():
            low, high = (int(item) for item in values.aminmax())
            if low < 0 or high > len(self.catalogue):
                raise KnowledgeError(f"{name} names items {low}..{high} of {len(self.catalogue)}; export it again.")
        return values.to(ids.device)

    def _find(self, name: str) -> Table:
        if name not in self.tables:
            raise KnowledgeError(
                f"knowledge of {self.source.teacher} has no table {name!r}, only {sorted(self.tables)}. "
                f"Export it with tables=({name!r}, ...)."
            )
        return self.tables[name]

    # ---- does it belong here? ---------------------------------------------------------------------------------

    def check(
        self,
        *,
        catalogue: Catalogue | None = None,
        split: Split | None = None,
        part: str | None = None,
        teacher_revision: str | None = None,
    ) -> None:
        """Refuse what was said about other items, another split or part, or by another teacher.

        Raises:
            KnowledgeError: naming both values.
        """
        source = self.source
        for other in (catalogue, split.catalogue if split is not None else None):
            if other is not None:
                require_same_items(self.catalogue, other, source.teacher)
        for what, have, want in (
            ("split", source.split_fingerprint, split.fingerprint if split is not None else None),
            ("part", source.part, part),
            ("teacher revision", source.teacher_revision, teacher_revision),
        ):
            if want is not None and have != want:
                raise KnowledgeError(
                    f"{self!r} has {what} {have[:12]}, but {want[:12]} was asked for. Export it again."
                )

    def align(self, catalogue: Catalogue, how: str = "exact", *, split: Split | None = None) -> Knowledge:
        """This knowledge in the rows of another catalogue.

        Args:
            how: `exact` refuses any difference (and returns itself); `intersection` keeps what both know: items the
                student lacks leave the lists (what stays renormalises in the softmax), items the teacher lacks get
                zero rows in `item_*` tables. `coverage` and the log tell how much is left.
            split: the student's, when it asks the same queries in its own numbering; `check(split=...)` then passes.

        Raises:
            KnowledgeError: the catalogues differ (`exact`) or share nothing, or the split asks more or fewer queries.
        """
        if how not in ("exact", "intersection"):
            raise KnowledgeError(f"how must be 'exact' or 'intersection', got {how!r}.")
        if how == "exact" or catalogue == self.catalogue:
            self.check(catalogue=catalogue)
            return self
        tables, coverage = realign(self.tables, self.catalogue, catalogue)
        logger.warning(
            "knowledge of %s covers %.1f %% of the student's %d items; %.1f %% of its probability mass stays.",
            self.source.teacher, 100 * coverage["items"], len(catalogue), 100 * coverage.get("mass", 1.0),
        )  # fmt: skip
        options = {**self.source.options, "coverage": coverage, "aligned_from": self.catalogue.fingerprint}
        source = replace(self.source, options=options)
        if split is not None:
            require_same_items(catalogue, split.catalogue, source.teacher)
            require_same_queries(self.num_queries, split, source.part, source.teacher)
            source = replace(source, split_fingerprint=split.fingerprint)
        return Knowledge(source, catalogue, tables, self.counts)

    # ---- files ------------------------------------------------------------------------------------------------

    def save_pretrained(self, folder: str | os.PathLike, *, shard_rows: int = SHARD_ROWS) -> None:
        """Write all tables to a folder (see `seqkd.knowledge.store`)."""
        rows = {"query": self.num_queries, "item": len(self.catalogue) + 1}
        kinds = {name.split("_")[0] for name in self.tables}
        pieces = [piece for kind in rows if kind in kinds for piece in pieces_of(kind, rows[kind], shard_rows)]

        def cut(piece: Piece) -> tuple[dict[str, Tensor], dict[str, int]]:
            ids = torch.arange(piece.start, piece.stop)
            tables = {name: table[ids] for name, table in self.tables.items() if name.startswith(f"{piece.kind}_")}
            return tables, self.counts if piece == pieces[0] else {}

        write(folder, self.source, self.catalogue, pieces, cut, resume=False)

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        verify: bool = False,
    ) -> Knowledge:
        """Open a folder or a dataset repository, memory-mapped. `verify` also compares the sha256 of all shards.

        Raises:
            KnowledgeError: it cannot be reached, is unfinished or damaged, or leads out of its folder.
        """
        place = fetch(name, revision=revision, token=token, cache_dir=cache_dir)
        contents = read(place.folder, root=place.root, verify=verify)
        tables = {table: Table(shards) for table, shards in contents.tables.items()}
        knowledge = cls(contents.source, contents.catalogue, tables, contents.counts)
        knowledge._folder = str(place.folder)
        return knowledge

    def push_to_hub(
        self, repo_id: str, *, private: bool = True, token: str | bool | None = None, revision: str | None = None
    ) -> str:
        """Upload as a dataset repository with a card; returns the commit's address."""
        if self._folder is not None:
            return publish(self._folder, repo_id, private=private, token=token, revision=revision)
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return publish(folder, repo_id, private=private, token=token, revision=revision)
