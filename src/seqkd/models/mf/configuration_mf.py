"""Configuration of matrix factorisation."""

# No `from __future__ import annotations` here: `strict` checks only types that are not strings.

from huggingface_hub.dataclasses import strict

from ...recommenders.user_configuration import UserRecommenderConfig


@strict
class MFConfig(UserRecommenderConfig):
    """BPR-MF (arXiv 1205.2618). The paper's L2 regularisation is the optimizer's `weight_decay`.

    Args:
        initializer_range: standard deviation of the first embeddings.
    """

    model_type = "seqkd_mf"

    initializer_range: float = 0.01
