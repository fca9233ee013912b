"""Images for Amazon Scientific: the image vectors of UniSRec's own Scientific sample, matched to our items by title.

`../shared/data/unisrec_scientific` has CLIP vectors for 1,585 items under Amazon's ids, `amazon_scientific` the same
shop under other ids. A text of the sample begins with the title, so the longest title of ours that it begins with
names the item. What finds no partner has no image: about two thirds of the catalogue, as in real shops.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from seqkd.pipeline import Domain

SAMPLE = Path("../shared/data/unisrec_scientific")
SHORTEST = 10  # letters and digits; a shorter title names nothing


def plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def with_images(domain: Domain) -> Domain:
    """The domain with the column `image_features`, zeros where no image is known."""
    lines = (SAMPLE / "Scientific.text").read_text(encoding="utf-8").splitlines()[1:]
    index = dict(line.split("\t") for line in (SAMPLE / "Scientific.item2index").read_text().splitlines())
    vectors = np.fromfile(SAMPLE / "Scientific.feat3CLS", dtype=np.float32).reshape(len(index), -1)
    rows: dict[str, list[int]] = {}
    for row, title in enumerate(domain.items["title"][:]):
        if len(plain(title)) >= SHORTEST:
            rows.setdefault(plain(title), []).append(row)
    found = np.zeros((domain.num_items, vectors.shape[1]), dtype=np.float32)
    for line in lines:
        item, text = line.split("\t", 1)
        begins = [title for title in rows if plain(text).startswith(title)]
        for row in rows[max(begins, key=len)] if begins else []:
            found[row] = vectors[int(index[item])]
    print(f"{domain.name}: images for {int(found.any(axis=1).sum())} of {domain.num_items} items")
    return replace(domain, items=domain.items.add_column("image_features", found.tolist()))
