"""One file per format; `read` finds out which format a source has."""

from __future__ import annotations

import os
from pathlib import Path

from ...errors import DataError
from ..columns import RawMarket
from . import amazon, hub, lcrec, movielens, recbole, recformer, tables, unisrec
from .files import refuse_unsafe

# The first format whose files are there wins: UniSRec files are RecBole files with an index, a table may be any file.
FORMATS = (unisrec, recformer, lcrec, recbole, movielens, amazon, tables)


def read(source: str | os.PathLike) -> RawMarket:
    """Read a folder, a file or a data set on the Hub into raw tables.

    Raises:
        DataError: nothing there, an unsafe file, or no known format; the last lists what was found and what is known.
    """
    path = Path(source)
    if not path.exists():
        if not hub.is_remote(str(source)):
            raise DataError(
                f"{source} does not exist. Give a folder, a file, or a data set on the Hub such as 'owner/name'."
            )
        downloaded = hub.download(str(source))
        if downloaded is None:
            return hub.load(str(source))
        path = downloaded
    files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
    for known in FORMATS:
        if known.matches(files):
            return known.read(files)
    for file in files:
        refuse_unsafe(file)
    found = [file.name for file in files[:10]] or "nothing"
    formats = "\n".join(f"  - {known.FILES}" for known in FORMATS)
    raise DataError(f"{path} is in no known format. Found {found}; known are\n{formats}")
