"""FM: user, history, item and its attributes as fields; their pairwise interactions are one dot product."""

from __future__ import annotations

from torch import Tensor

from ...modules.factorisation import item_columns, query_columns
from ...recommenders.field_recommender import FieldRecommender
from ...recommenders.recommender import RecommenderOutput
from .configuration_fm import FMConfig


class FMModel(FieldRecommender):
    """Factorisation machine (Rendle, ICDM 2010, eq. 1) of a user, a history and an item.

    Embeddings are D + 2 wide: two columns carry what a query and an item say on their own, so that scores, losses and
    exported tables hold the whole model, see `seqkd.modules.factorisation`.
    """

    config: FMConfig
    config_class = FMConfig

    def __init__(self, config: FMConfig) -> None:
        super().__init__(config)
        self.post_init()

    @property
    def embedding_size(self) -> int:
        return self.config.hidden_size + 2

    def forward(self, user_ids: Tensor, histories: Tensor) -> RecommenderOutput:  # type: ignore[override]
        """`query_embeddings (Q, D+2)` of `user_ids (Q,)` and `histories (Q, n)`, 0 padded."""
        return RecommenderOutput(query_embeddings=query_columns(self.fields.query_side(user_ids, histories)))

    def item_embeddings(self, item_ids: Tensor | None = None) -> Tensor:
        """`(I+1, D+2)`, row 0 padding; or `(*item_ids.shape, D+2)`."""
        return item_columns(self.fields.item_side(item_ids))
