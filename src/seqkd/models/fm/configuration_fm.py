"""Configuration of the factorisation machine."""

# No `from __future__ import annotations` here: `strict` checks only types that are not strings.

from huggingface_hub.dataclasses import strict

from ...recommenders.field_configuration import FactorisationConfig


@strict
class FMConfig(FactorisationConfig):
    """Factorisation machine (Rendle 2010); every setting is in `FactorisationConfig`."""

    model_type = "seqkd_fm"
