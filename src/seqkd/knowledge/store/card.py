"""The dataset card of exported knowledge: which teacher, about which split, which tables, whose licences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from huggingface_hub import DatasetCardData

from ...files.markdown import plain

INDEX = {"query": "query id of the split", "item": "internal item id; row 0 is padding"}


def card(source: Mapping[str, Any], tables: Mapping[str, Mapping[str, Any]], num_items: int) -> str:
    """README.md for the fields of a `Source` and the tables of a manifest."""
    data = DatasetCardData(tags=["seqkd", "recommendation", "knowledge-distillation"])
    rows = "\n".join(
        f"| `{name}` | {entry['dtype']} | {' x '.join(map(str, entry['shape']))} | {INDEX[name.split('_')[0]]} |"
        for name, entry in tables.items()
    )
    options = "\n".join(f"* {plain(name)}: {plain(value)}" for name, value in source["options"].items()) or "* none"
    return f"""---
{data.to_yaml()}
---

# What {plain(source["teacher"])} says about the {plain(source["part"])} part of a split

Teacher knowledge for training a small recommender with seqkd, without the teacher.

* teacher: {plain(source["teacher"])}, weights sha256 `{plain(source["teacher_revision"])}`
* split: fingerprint `{plain(source["split_fingerprint"])}`, part {plain(source["part"])}
* items: {num_items}, external ids in `item_ids.json`
* scores: {plain(source["similarity"])}, temperature {plain(source["temperature"])} already applied

| table | dtype | shape | row |
|---|---|---|---|
{rows}

In a list of items, item 0 with the dtype's lowest score is an empty place.

## Options of the export

{options}

## Use

```python
from seqkd import Knowledge

knowledge = Knowledge.from_pretrained("this/repository", revision="a commit")
knowledge.check(split=split, part="{plain(source["part"])}")
```

## Licence

These tables are derived from the weights of the teacher and from the interactions it was asked about. The licences of
both apply; look them up before you share or use this. Item ids and lists can also tell about single users: publish
knowledge only of data that may be published.
"""
