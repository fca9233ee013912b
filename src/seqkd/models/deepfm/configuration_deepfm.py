"""Configuration of DeepFM."""

# No `from __future__ import annotations` here: `strict` checks only types that are not strings.

from huggingface_hub.dataclasses import strict

from ...recommenders.field_configuration import FactorisationConfig
from ...recommenders.wide_and_deep_configuration import check_mlp


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
        check_mlp("DeepFM", self.mlp_hidden_sizes, self.dropout_prob, self.loss_type)
