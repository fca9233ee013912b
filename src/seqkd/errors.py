"""The errors seqkd raises on bad input: each says what, where, why and what to write instead."""

from __future__ import annotations


class SeqKDError(ValueError):
    """Base of every error that seqkd raises on purpose."""


class DataError(SeqKDError):
    """Interactions, item tables or splits that cannot be used as they are."""


class KnowledgeError(SeqKDError):
    """Teacher knowledge that does not belong to this student, split or catalogue, or is damaged."""


class CheckpointError(SeqKDError):
    """A model or training checkpoint that is incomplete, damaged or of another kind."""


class ConfigError(SeqKDError):
    """A setting that does not exist, has the wrong type or contradicts another."""


class NoContentError(ConfigError):
    """Items of which none has the content that a model is set to read.

    A fault of the setting where it names the wrong columns, of the data where there is nothing to name.
    """
