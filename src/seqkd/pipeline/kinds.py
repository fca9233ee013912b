"""Kinds of models: their classes, and what each reads about the items of a domain."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from transformers import AutoTokenizer

from ..config import ImageConfig, TeacherConfig, TextConfig
from ..data.columns import IMAGE_FEATURES, TEXT_FEATURES
from ..errors import ConfigError
from ..models.cml import CMLConfig, CMLModel
from ..models.deepfm import DeepFMConfig, DeepFMModel
from ..models.fm import FMConfig, FMModel
from ..models.itemae import ItemAEConfig, ItemAEModel
from ..models.lightgcn import LightGCNConfig, LightGCNModel
from ..models.mf import MFConfig, MFModel
from ..models.multvae import MultVAEConfig, MultVAEModel
from ..models.neumf import NeuMFConfig, NeuMFModel
from ..models.recformer import (
    CausalRecformerConfig,
    CausalRecformerForPretraining,
    CausalRecformerModel,
    ItemTokens,
    RecformerConfig,
    RecformerForPretraining,
    RecformerModel,
    RecformerProcessor,
)
from ..models.sasrec import SASRecConfig, SASRecModel
from ..models.unim2rec import UniM2RecConfig, UniM2RecForPretraining, UniM2RecModel
from ..models.unisrec import UniSRecConfig, UniSRecForPretraining, UniSRecModel
from ..recommenders.configuration import RecommenderConfig
from ..settings import make
from .domains import CACHE, Domain, image_features, no_text, rows_of, text_features, text_model


class Reading(NamedTuple):
    """How the items of a domain are read."""

    text: TextConfig
    images: ImageConfig

    def describe(self, domains: Mapping[str, Domain], modalities: Sequence[str] = ("text",)) -> dict[str, str]:
        """One line for each of the modalities `text` and `image`, for the card of a teacher."""
        encoders = {"text": f"{', '.join(self.text.fields)}, read by {self.text.encoder}"}
        encoders["image"] = f"read by {self.images.encoder}"
        columns = {"text": TEXT_FEATURES, "image": IMAGE_FEATURES}
        brought = {
            name: all(columns[name] in domain.items.column_names for domain in domains.values()) for name in modalities
        }
        return {name: "vectors that the data brings" if brought[name] else encoders[name] for name in modalities}


class Kind(NamedTuple):
    """A kind of model: its classes, what it reads about the items of a domain, and what its card says about it."""

    config: type[RecommenderConfig]
    model: type[Any]
    pretraining: type[Any] | None = None
    content: Callable[[Domain, Reading, Mapping[str, Any]], Any] | None = None
    objective: str = ""  # of its pre-training, in words
    paper: str = ""


def vectors_for(domain: Domain, reading: Reading, settings: Mapping[str, Any]) -> np.ndarray:
    """UniSRec reads a text vector per item."""
    return text_features(domain, reading.text)


def modalities_for(domain: Domain, reading: Reading, settings: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """UniM²Rec reads text and image vectors; only those it is configured for, images only where the data has some."""
    wanted = settings.get("modalities", ("text", "image"))
    images = image_features(domain, reading.images) if "image" in wanted else None
    found = {"text": text_features(domain, reading.text)} if "text" in wanted else {}
    return found if images is None else {**found, "image": images}


def tokens_for(domain: Domain, reading: Reading, settings: Mapping[str, Any]) -> ItemTokens:
    """Recformer reads the item's attributes, token by token.

    Raises:
        NoContentError: no item of a domain has a text, so that all would be read alike.
    """
    tokens = processor_for(reading, settings).encode_items(rows_of(domain), cache_dir=CACHE)
    start = 0
    for part in domain.parts or (domain,):
        end = start + len(part.items)
        if not tokens.lengths[start:end].any():
            raise no_text(part, reading.text)
        start = end
    return tokens


def processor_for(reading: Reading, settings: Mapping[str, Any]) -> RecformerProcessor:
    """What turns items into the tokens of the text encoder."""
    names = ("max_attr_num", "max_attr_length", "max_item_length")
    name = text_model(reading.text)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        why = str(error).partition("\n")[0]
        raise ConfigError(
            f"text.encoder: there is no tokenizer in {str(name)!r}, a folder or a Hub name ({why})."
        ) from error
    return RecformerProcessor(
        tokenizer,
        fields=reading.text.fields,
        **{name: settings[name] for name in names if name in settings},
    )


KINDS: dict[str, Kind] = {
    "sasrec": Kind(SASRecConfig, SASRecModel),
    "mf": Kind(MFConfig, MFModel),
    "lightgcn": Kind(LightGCNConfig, LightGCNModel),
    "fm": Kind(FMConfig, FMModel),
    "deepfm": Kind(DeepFMConfig, DeepFMModel),
    "cml": Kind(CMLConfig, CMLModel),
    "neumf": Kind(NeuMFConfig, NeuMFModel),
    "multvae": Kind(MultVAEConfig, MultVAEModel),
    "itemae": Kind(ItemAEConfig, ItemAEModel),
    "unisrec": Kind(
        UniSRecConfig,
        UniSRecModel,
        UniSRecForPretraining,
        vectors_for,
        "sequence-item and sequence-sequence contrast",
        "arXiv:2206.05941",
    ),
    "recformer": Kind(
        RecformerConfig,
        RecformerModel,
        RecformerForPretraining,
        tokens_for,
        "item-item contrast and masked language model",
        "arXiv:2305.13731",
    ),
    "causal_recformer": Kind(
        CausalRecformerConfig,
        CausalRecformerModel,
        CausalRecformerForPretraining,
        tokens_for,
        "item-item contrast",
        "arXiv:2305.13731",
    ),
    "unim2rec": Kind(
        UniM2RecConfig,
        UniM2RecModel,
        UniM2RecForPretraining,
        modalities_for,
        "sequence-item contrast, fused and by modality, alignment of the modalities, sequence-sequence contrast",
        "arXiv:2311.01831",
    ),
}


class ReadingSettings(Protocol):
    """Settings that say how items are read, such as an `Experiment`."""

    text: TextConfig
    images: ImageConfig


def reading_of(settings: ReadingSettings, teacher: TeacherConfig, where: str) -> Reading:
    """The common settings with what a teacher overrides."""
    return Reading(make(TextConfig, {**vars(settings.text), **teacher.text}, f"{where}.text"), settings.images)
