"""CML: users and items as points of the unit ball; the nearer an item, the better."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...catalogue import PADDING
from ...functional import losses
from ...recommenders.recommender import RecommenderOutput
from ...recommenders.user_recommender import UserRecommender
from .configuration_cml import CMLConfig


class CMLModel(UserRecommender):
    """Collaborative metric learning (Hsieh et al., WWW 2017).

    A negative squared distance is a dot product of vectors that are two columns wider,

        -|u - v|^2 = <[2 u, -|u|^2, -1], [v, 1, |v|^2]>

    so scores, losses and exported tables are those of every recommender. It answers for the users of training only.
    """

    config: CMLConfig
    config_class = CMLConfig
    holds_item_table = True

    def __init__(self, config: CMLConfig) -> None:
        super().__init__(config)
        self.user_embedding = nn.Embedding(config.num_users + 1, config.hidden_size, padding_idx=PADDING)
        self.item_embedding = nn.Embedding(config.num_items + 1, config.hidden_size, padding_idx=PADDING)
        self.post_init()

    @property
    def embedding_size(self) -> int:
        return self.config.hidden_size + 2

    def forward(self, user_ids: Tensor) -> RecommenderOutput:  # type: ignore[override]
        """`[2 u, -|u|^2, -1] (Q, D+2)` of `user_ids (Q,)`."""
        points = in_unit_ball(self.user_embedding(user_ids))
        squares = points.square().sum(dim=-1, keepdim=True)
        return RecommenderOutput(query_embeddings=torch.cat([2 * points, -squares, -torch.ones_like(squares)], dim=-1))

    def item_embeddings(self, item_ids: Tensor | None = None) -> Tensor:
        """`[v, 1, |v|^2]`: `(I+1, D+2)`, row 0 padding; or `(*item_ids.shape, D+2)`."""
        points = in_unit_ball(self.item_embedding.weight if item_ids is None else self.item_embedding(item_ids))
        squares = points.square().sum(dim=-1, keepdim=True)
        return torch.cat([points, torch.ones_like(squares), squares], dim=-1)

    def loss(self, query_embeddings: Tensor, targets: Tensor, negatives: Tensor | None = None) -> Tensor:
        """The hinge of each pair, weighed by the rank of its positive, `(Q,)` (eq. 1 to 3), a mean over negatives.

        Args:
            targets: `(Q,)` internal ids.
            negatives: `(Q, N)`; drawn uniformly without them.
        """
        config = self.config
        if negatives is None:
            negatives = losses.sample_uniform(targets, config.num_items, config.num_negatives)
        scores = self.score(query_embeddings, torch.cat([targets[:, None], negatives], dim=1))  # (Q, 1+N)
        loss = losses.hinge(scores[:, 0], scores[:, 1:], margin=config.margin)
        if not config.rank_weight:
            return loss
        impostors = (config.margin - scores[:, :1] + scores[:, 1:] > 0).sum(dim=1)
        ranks = impostors * config.num_items // negatives.shape[1]  # floor(I M / N)
        return torch.log1p(ranks.to(loss.dtype)) * loss

    def get_input_embeddings(self) -> nn.Embedding:
        return self.item_embedding

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.item_embedding = cast(nn.Embedding, value)


def in_unit_ball(points: Tensor) -> Tensor:
    """`x / max(|x|, 1)` of `(*, D)`: CML's projection, here part of the model and not of its optimizer."""
    return points / F.relu(points.norm(dim=-1, keepdim=True) - 1).add(1)
