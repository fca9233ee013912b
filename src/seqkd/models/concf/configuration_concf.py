"""Configuration of ConCF."""

# No `from __future__ import annotations` here: `strict` checks only types that are not strings.

from huggingface_hub.dataclasses import strict

from ...errors import ConfigError
from ...recommenders.multi_head_configuration import MultiHeadConfig

HEADS = ("bpr", "metric", "cross_entropy", "squared_error", "user_multinomial", "item_multinomial")


@strict
class ConCFConfig(MultiHeadConfig):
    """ConCF (WWW 2022, arXiv 2202.13140); the defaults are those of the authors' code.

    Args:
        heads: some of `HEADS`; the paper calls the first five CF-A to CF-E, the authors' code the last sub.
        hidden_size: d, width of the two tables; a head narrows it to d/2 and to d/4, and adds a column or two that
            make its score a dot product.
        dropout_prob: dropout within the heads.
        margin: of the metric head's hinge.
        loss_type: stays `bpr`. It tells that training pairs bring negatives; the heads have losses of their own.
        initializer_range: standard deviation of the first vectors of the two tables.
    """

    model_type = "seqkd_concf"

    heads: list[str] | tuple[str, ...] = HEADS
    dropout_prob: int | float = 0.1
    margin: int | float = 1.0
    initializer_range: float = 0.01

    def check(self) -> None:
        super().check()
        if not set(self.heads) <= set(HEADS):
            raise ConfigError(f"heads must be some of {HEADS}, got {list(self.heads)}.")
        if self.hidden_size < 4:
            raise ConfigError(f"hidden_size must be at least 4, for the heads are d/4 wide; got {self.hidden_size}.")
        if not 0 <= self.dropout_prob < 1:
            raise ConfigError(f"dropout_prob must be at least 0 and below 1, got {self.dropout_prob}.")
        if self.loss_type != "bpr" or self.similarity != "dot" or self.temperature != 1:
            raise ConfigError(
                "the heads have objectives and scores of their own: leave loss_type='bpr', similarity='dot' and "
                f"temperature=1 (got {self.loss_type!r}, {self.similarity!r}, {self.temperature})."
            )
