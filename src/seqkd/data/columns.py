"""The one vocabulary of column names, and the two tables of a market."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

USER_ID, ITEM_ID, TIMESTAMP, DOMAIN = "user_id", "item_id", "timestamp", "domain"
RATING, SPLIT = "rating", "split"
TITLE, BRAND, CATEGORIES, DESCRIPTION = "title", "brand", "categories", "description"
TEXT_FEATURES, IMAGE_FEATURES = "text_features", "image_features"
INTERACTIONS, ITEMS = "interactions", "items"

TEXT_COLUMNS = (TITLE, BRAND, CATEGORIES, DESCRIPTION)
FEATURE_COLUMNS = (TEXT_FEATURES, IMAGE_FEATURES)
INTERACTION_COLUMNS = (USER_ID, ITEM_ID, TIMESTAMP, DOMAIN, RATING, SPLIT)
ITEM_COLUMNS = (ITEM_ID, DOMAIN, *TEXT_COLUMNS, *FEATURE_COLUMNS)
PARTS = ("train", "valid", "test")
PROTOCOLS = ("loo", "temporal", "preset", "ratio")  # how parts are cut: see `splits.split_by`


@dataclass(frozen=True)
class RawMarket:
    """What a reader found, before any check: two Arrow tables and the files to name in messages."""

    interactions: pa.Table
    items: pa.Table | None
    interactions_file: str
    items_file: str = "the item table"
