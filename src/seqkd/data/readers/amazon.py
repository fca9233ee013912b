"""Raw Amazon Reviews of 2014/2018 and 2023: reviews and metadata, one JSON object per line, gzip allowed."""

from __future__ import annotations

import logging
from pathlib import Path

import pyarrow as pa

from ...errors import DataError
from ..columns import BRAND, CATEGORIES, DESCRIPTION, ITEM_ID, RATING, TIMESTAMP, TITLE, USER_ID, RawMarket
from .files import first_line, suffix
from .json_files import Row, json_object, read_jsonl
from .lcrec import flat

logger = logging.getLogger(__name__)
FILES = "Amazon Reviews 2018 (reviewerID) or 2023 (parent_asin): D.json[l][.gz], and optionally meta_D.json[l][.gz]"
ENDINGS = {".json", ".jsonl", ".ndjson"}
REVIEW_2018, REVIEW_2023 = {"reviewerID", "asin", "unixReviewTime"}, {"user_id", "parent_asin", "timestamp"}


def matches(files: list[Path]) -> bool:
    return any(_kind(file) == "reviews" for file in files)


def _kind(file: Path) -> str | None:
    """What the first line says that a file holds: `reviews`, `items` or nothing of Amazon."""
    if suffix(file) not in ENDINGS or file.stat().st_size == 0:
        return None
    keys = set(json_object(first_line(file)))
    if keys >= REVIEW_2018 or keys >= REVIEW_2023:
        return "reviews"
    return "items" if TITLE in keys and keys & {"asin", "parent_asin"} else None


def read(files: list[Path]) -> RawMarket:
    """Reviews without exact repetitions (user, item, rating, time), and metadata with the first line of each item.

    In 2023 an item is the `parent_asin` (all sizes and colours together). Times are seconds in 2018, ms in 2023.

    Raises:
        DataError: several files of reviews or metadata; a broken line (with its number).
    """
    reviews, items = ([file for file in files if _kind(file) == kind] for kind in ("reviews", "items"))
    if len(reviews) > 1 or len(items) > 1:
        raise DataError(f"{[file.name for file in reviews + items]} are of several data sets. Keep one per folder.")
    log = read_jsonl(reviews[0], _review)
    unique = log.group_by(log.column_names, use_threads=False).aggregate([])
    logger.info("%s: %d repeated reviews dropped", reviews[0], log.num_rows - unique.num_rows)
    return RawMarket(unique, _items(items[0]) if items else None, str(reviews[0]), str(items[0]) if items else "")


def _review(row: Row) -> Row:
    return {
        USER_ID: row.get("reviewerID", row.get("user_id")),
        ITEM_ID: row.get("parent_asin", row.get("asin")),
        RATING: row.get("overall", row.get("rating")),
        TIMESTAMP: row.get("unixReviewTime", row.get("timestamp")),
    }


def _item(row: Row) -> Row:
    return {
        ITEM_ID: row.get("parent_asin", row.get("asin")),
        TITLE: flat(row.get("title")),
        BRAND: flat(row.get("brand", row.get("store"))),
        CATEGORIES: flat(row.get("category", row.get("categories"))),
        DESCRIPTION: flat(row.get("description")),
    }


def _items(file: Path) -> pa.Table:
    table = read_jsonl(file, _item)
    first = (
        table.append_column("row", pa.array(range(table.num_rows)))
        .group_by(ITEM_ID, use_threads=False)
        .aggregate([("row", "min")])
    )
    logger.info("%s: %d repeated items dropped", file, table.num_rows - first.num_rows)
    return table.take(first["row_min"])
