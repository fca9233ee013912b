"""Configuration of DeepFM."""

# No `from __future__ import annotations` here: `strict` checks only types that are not strings.

from huggingface_hub.dataclasses import strict

from ...errors import ConfigError
from ...modules.configuration_factorisation import FactorisationConfig

SOFTMAX = (
    "DeepFM has no softmax over the catalogue: its MLP would run on every pair of a query and an item, in every step. "
    'Train it with loss_type "bce", "bpr" or "sampled_softmax", and distil with candidates="in_batch".'
)


@strict
class DeepFMConfig(FactorisationConfig):
    """DeepFM (arXiv 1703.04247), with RecBole's MLP. The other settings are in `FactorisationConfig`.

    Args:
        mlp_hidden_sizes: H1, H2, ..., widths of the hidden layers.
        dropout_prob: dropout before every hidden layer, so also on the vectors of the fields.
        loss_type: all but `softmax`, which is too dear.
    """

    model_type = "seqkd_deepfm"

    mlp_hidden_sizes: list[int] | tuple[int, ...] = (128, 128, 128)
    dropout_prob: int | float = 0.2

    def check(self) -> None:
        super().check()
        if not self.mlp_hidden_sizes or min(self.mlp_hidden_sizes) < 1:
            raise ConfigError(f"mlp_hidden_sizes must be widths of at least 1, got {self.mlp_hidden_sizes}.")
        if not 0 <= self.dropout_prob < 1:
            raise ConfigError(f"dropout_prob must be at least 0 and below 1, got {self.dropout_prob}.")
        if self.loss_type == "softmax":
            raise ConfigError(f'loss_type="softmax": {SOFTMAX}')
