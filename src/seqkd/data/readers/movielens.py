"""MovieLens folders: 100K (`u.data`), 1M and 10M (`ratings.dat`), 20M and newer (`ratings.csv`)."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from ...errors import DataError
from ..columns import CATEGORIES, ITEM_ID, RATING, TIMESTAMP, TITLE, USER_ID, RawMarket
from .files import read_csv

FILES = "MovieLens: u.data and u.item, or ratings.dat and movies.dat, or ratings.csv and movies.csv"
LOG_COLUMNS = [USER_ID, ITEM_ID, RATING, TIMESTAMP]
ITEMS_OF = {"u.data": "u.item", "ratings.dat": "movies.dat", "ratings.csv": "movies.csv"}
# The 19 flags of u.item, in order.
GENRES = (
    *(
        "unknown",
        "Action",
        "Adventure",
        "Animation",
        "Children's",
        "Comedy",
        "Crime",
        "Documentary",
        "Drama",
        "Fantasy",
    ),
    *("Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)


def matches(files: list[Path]) -> bool:
    return any(file.name in ITEMS_OF for file in files)


def read(files: list[Path]) -> RawMarket:
    """Ratings with their times in seconds; titles keep the year, genres are joined by ", "."""
    log_file = next(file for file in files if file.name in ITEMS_OF)
    item_file = next((file for file in files if file.name == ITEMS_OF[log_file.name]), None)
    if log_file.suffix == ".csv":
        table = read_csv(log_file)
        names = {"userId": USER_ID, "movieId": ITEM_ID}
        log = table.rename_columns([names.get(name, name) for name in table.column_names])
    else:
        log = read_csv(log_file, "\t" if log_file.name == "u.data" else "::", names=LOG_COLUMNS, quoted=False)
    return RawMarket(log, _items(item_file) if item_file else None, str(log_file), str(item_file or ""))


def _items(file: Path) -> pa.Table:
    if file.name == "u.item":
        names = [ITEM_ID, TITLE, "release", "video", "url", *GENRES]
        table = read_csv(file, "|", names=names, quoted=False, encoding="latin-1")
        flags = zip(*(table[genre].to_pylist() for genre in GENRES), strict=True)
        categories = pa.array(
            [", ".join(genre for genre, flag in zip(GENRES, row, strict=True) if flag == "1") for row in flags],
            pa.string(),
        )
    elif file.name == "movies.dat":
        table = read_csv(file, "::", names=[ITEM_ID, TITLE, "genres"], quoted=False, encoding="latin-1")
        categories = pc.replace_substring(table["genres"], "|", ", ")
    else:
        table = read_csv(file, ",")
        if table.column_names != ["movieId", TITLE, "genres"]:
            raise DataError(f"{file} has the columns {table.column_names}, but needs movieId, title, genres.")
        table = table.rename_columns([ITEM_ID, TITLE, "genres"])
        categories = pc.replace_substring(table["genres"], "|", ", ")
    return pa.table({ITEM_ID: table[ITEM_ID], TITLE: table[TITLE], CATEGORIES: categories})
