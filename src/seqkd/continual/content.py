"""What a teacher of a stream reads about its items: their texts and images, or vectors of them that the data brings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from datasets import Dataset

from ..config import ModelConfig, TeacherConfig
from ..data.columns import IMAGE_FEATURES, TEXT_FEATURES
from ..data.interactions import table_of
from ..data.stream import Block
from ..errors import DataError, NoContentError
from ..pipeline.domains import Domain
from ..pipeline.kinds import KINDS, reading_of
from ..pipeline.preparation import check_images
from ..pipeline.teachers import check_pretrained, teacher_for
from ..pipeline.training import new_model
from ..processes import this_process
from ..recommenders.recommender import RecommenderModel
from .configuration import ContinualConfig


def new_learner(
    block: Block, blocks: Sequence[Block], model: ModelConfig, config: ContinualConfig, where: str, seed: int
) -> RecommenderModel:
    """An untrained model for a block, or a pre-trained one, that knows what `blocks` tell about the items."""
    if isinstance(model, TeacherConfig) and KINDS[model.type].content is not None:
        with this_process().main_process_first():  # texts are encoded once
            return teacher_for(_domain(block, blocks), model, config, where, seed)
    return new_model(block, model, f"{where}.model", seed)


def content_of(blocks: Sequence[Block], model: ModelConfig, config: ContinualConfig, where: str) -> Any:
    """About the items that are new in any of `blocks`, as `grow` takes it; None for a model that reads nothing.

    Raises:
        DataError: nothing is told about the items, or other things than at first.
    """
    content = KINDS[model.type].content
    if content is None or not isinstance(model, TeacherConfig) or not any(_new_items(block) for block in blocks):
        return None
    domain = _domain(blocks[-1], blocks)
    try:
        with this_process().main_process_first():
            return content(domain, reading_of(config, model, where), model.model)
    except NoContentError as error:  # there, a fault of the settings, here one of the block
        raise DataError(f"block {blocks[-1].number}: {error}") from error


def check_content(blocks: Sequence[Block], config: ContinualConfig) -> None:
    """Refuse the last of `blocks`, before anything is trained, where teachers could not read its new items.

    Raises:
        DataError: nothing is told about new items, or vectors where there were texts or others, or texts where there
            were vectors.
        ConfigError: there are no images, or no pre-trained model, where the configuration says so.
    """
    *learned, block = blocks
    readers = {f"teachers.{name}": teacher for name, teacher in config.teachers.items() if KINDS[teacher.type].content}
    if not readers or not _new_items(block):
        return
    if not len(block.items):
        raise DataError(
            f"block {block.number} tells nothing about its {_new_items(block)} new items, but {list(readers)} read "
            "them. Give a log with an item table (titles), or take teachers that read none, e.g. sasrec."
        )
    first = next(one for one in blocks if _new_items(one))
    brought = [_widths(one) for one in (first, block)]
    if brought[0] != brought[1]:
        raise DataError(
            f"block {block.number} brings the vectors {brought[1]} (column: width) of its items, but block "
            f"{first.number} brought {brought[0]}: they would not lie in one space. Give all blocks the same columns."
        )
    check_images(config.images.folder, {block.domain: _domain(block, [block])})
    for where, teacher in readers.items():
        if teacher.pretrained is not None and not learned:
            check_pretrained(teacher.pretrained, f"{where}.pretrained")
        content_of([block], teacher, config, where)


def _domain(block: Block, blocks: Sequence[Block]) -> Domain:
    tables = [table_of(one.items) for one in blocks if len(one.items)]
    items = Dataset(pa.concat_tables(tables, promote_options="default").combine_chunks()) if tables else block.items
    return Domain(block.domain, block, items)


def _widths(block: Block) -> dict[str, int]:
    """Of the vectors that a block brings, by column."""
    table = table_of(block.items)
    return {name: len(table[name][0]) for name in (TEXT_FEATURES, IMAGE_FEATURES) if name in table.column_names}


def _new_items(block: Block) -> int:
    return len(block.catalogue) - block.known_items
