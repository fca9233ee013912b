"""What the configurations of recommenders with an MLP over query and item check: DeepFM and NeuMF."""

# No `from __future__ import annotations` here: as in all configurations.

from ..errors import ConfigError

SOFTMAX = (
    "{} has no softmax over the catalogue: its MLP would run on every pair of a query and an item, in every step. "
    'Train it with loss_type "bce", "bpr" or "sampled_softmax", and distil with candidates="in_batch".'
)


def check_mlp(name: str, mlp_hidden_sizes: list[int] | tuple[int, ...], dropout_prob: float, loss_type: str) -> None:
    """Raises:
    ConfigError: a width is below 1 or there is none, dropout is no share, or the loss is over the catalogue.
    """
    if not mlp_hidden_sizes or min(mlp_hidden_sizes) < 1:
        raise ConfigError(f"mlp_hidden_sizes must be widths of at least 1, got {mlp_hidden_sizes}.")
    if not 0 <= dropout_prob < 1:
        raise ConfigError(f"dropout_prob must be at least 0 and below 1, got {dropout_prob}.")
    if loss_type == "softmax":
        raise ConfigError(f'loss_type="softmax": {SOFTMAX.format(name)}')
