"""LightGCN: embeddings of users and items, smoothed over the graph of who has what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...batches.collators import UNLABELLED
from ...catalogue import PADDING
from ...errors import DataError
from ...recommenders.edge_recommender import EdgeRecommender
from ...recommenders.recommender import RecommenderOutput
from .configuration_lightgcn import LightGCNConfig
from .propagation import Graph, mean_of_layers


@dataclass
class LightGCNOutput(RecommenderOutput):
    """`user_embeddings (Q, D)`: of the same users before propagation, which the regularisation reads."""

    user_embeddings: Tensor | None = None


class LightGCNModel(EdgeRecommender):
    """Light graph convolution (He et al. 2020, arXiv 2002.02126).

    The graph is that of the training part alone, `LightGCNModel(config, edges_of(train))`, and is saved with the model.
    A user who is not in it is folded in from the history: what one propagation gives to a new node with these items.
    A new item (`add_items`) has no edges, so its layers above 0 are zero: it is recommended by its row alone, divided
    by K+1.

    Args:
        edges: `(2, E)` internal ids of users and of their items, see `set_edges`. Without it, the model waits for
            `set_edges` or, with `config.num_edges`, for the tensors of a checkpoint.
    """

    config: LightGCNConfig
    edge_weights: Tensor | None
    config_class = LightGCNConfig
    unknown_users = True
    holds_item_table = True

    def __init__(self, config: LightGCNConfig, edges: Tensor | None = None) -> None:
        super().__init__(config)
        self.user_embedding = nn.Embedding(config.num_users + 1, config.hidden_size, padding_idx=PADDING)
        self.item_embedding = nn.Embedding(config.num_items + 1, config.hidden_size, padding_idx=PADDING)
        weights = torch.ones(config.num_edges) if config.weighted_edges else None
        self.register_buffer("edge_weights", weights)
        self._built: tuple[Tensor, tuple, Graph] | None = None  # the graph of these edges
        self._held: tuple[list, dict[int, tuple[Tensor, Tensor]]] = ([], {})  # by layers: of this step, or for serving
        self.post_init()
        if edges is not None:
            self.set_edges(edges)

    def set_edges(self, edges: Tensor, weights: Tensor | None = None) -> None:
        """Set the graph.

        Args:
            edges: `(2, E)` internal ids of users and of the items each has; repeats count once.
            weights: `(E,)` above 0, what each interaction counts: `A_ui` of `A_hat = D^-1/2 A D^-1/2`; 1 without it.
                Of repeats the largest counts.

        Raises:
            DataError: another shape, no pair at all, an id outside `1..U` or `1..I`, or weights that are not above 0.
        """
        super().set_edges(edges)
        self.edge_weights = None if weights is None else self._weights_of_edges(edges.to(self.edges.device), weights)
        self.config.weighted_edges = weights is not None
        self._forget()

    def _weights_of_edges(self, edges: Tensor, weights: Tensor) -> Tensor:
        """In the order of `self.edges`, which are distinct and sorted."""
        if weights.shape != edges.shape[1:] or not (weights > 0).all() or not torch.isfinite(weights).all():
            raise DataError(f"weights must be ({edges.shape[1]},), above 0 and finite, one for each edge.")
        width = self.config.num_items + 1
        place = torch.searchsorted(*(users.long() * width + items for users, items in (self.edges, edges)))
        return weights.new_zeros(self.edges.shape[1]).scatter_reduce(0, place, weights, "amax")

    # ---- propagation ------------------------------------------------------------------------------------------

    def _graph(self) -> Graph:
        users, items = len(self.user_embedding.weight) - 1, len(self.item_embedding.weight) - 1
        state = (self.edges._version, users, items, self.dtype)
        if self._built is None or self._built[0] is not self.edges or self._built[1] != state:
            self.check_edges()
            self._built = self.edges, state, Graph.of(self.edges, users, items, self.dtype, self.edge_weights)
        return self._built[2]

    def _propagated(self, num_layers: int, *, afresh: bool = False) -> tuple[Tensor, Tensor]:
        """Users `(U+1, D)` and items `(I+1, D)`, the mean of layers 0 to `num_layers`; computed once for a training
        step, and once for serving. A step draws its dropout `afresh`; what follows in the step reads the same tables.

        A training step holds them until their gradient is known. Without gradients they are held until a weight
        changes: its version counter tells, though not of fused optimizers; so `train`, `eval` and any pass with
        gradients forget the tables too.
        """
        tensors = (self.user_embedding.weight, self.item_embedding.weight, self.edges)
        versions: list = [(tensor.data_ptr(), tensor._version) for tensor in tensors]
        with_gradients = torch.is_grad_enabled()
        if afresh or (with_gradients and not self.training) or self._held[0] != versions:
            self._held = (versions, {})
        _, held = self._held
        if num_layers not in held:
            graph = self._graph()
            if self.training and self.config.edge_dropout:
                graph = graph.drop_edges(self.config.edge_dropout)
            tables = mean_of_layers(self.user_embedding.weight, self.item_embedding.weight, graph, num_layers)
            if with_gradients != self.training:
                return tables
            for table in tables:
                if table.requires_grad:
                    table.register_hook(self._forget)
            held[num_layers] = tables
        return held[num_layers]

    def _forget(self, gradient: Tensor | None = None) -> None:
        self._held = ([], {})

    def train(self, mode: bool = True) -> LightGCNModel:
        self._forget()
        return super().train(mode)

    # ---- vectors ----------------------------------------------------------------------------------------------

    def forward(  # type: ignore[override]
        self, user_ids: Tensor, histories: Tensor | None = None
    ) -> LightGCNOutput:
        """Embed users.

        Args:
            user_ids: `(Q,)`, 0 where a user is not in the graph.
            histories: `(Q, n)`, 0 padded; read for users 0 only. Not read in training, where all users are known.

        Returns:
            `query_embeddings (Q, D)`, of unit length when `similarity` is `cosine`.

        Raises:
            ConfigError: there is no graph. DataError: a user is 0, but there are no histories.
        """
        users, _ = self._propagated(self.config.num_layers, afresh=self.training)
        queries = F.embedding(user_ids, users)
        unknown = user_ids == PADDING
        if not self.training and unknown.any():
            if histories is None:
                raise DataError("a user is not in the graph (user id 0), and there are no histories to fold in.")
            queries = queries.index_put((unknown,), self._fold_in(histories[unknown]))
        return LightGCNOutput(query_embeddings=self._comparable(queries), user_embeddings=self.user_embedding(user_ids))

    def _fold_in(self, histories: Tensor) -> Tensor:
        """What propagation gives to new users with these histories `(Q, n)`, the items as they are: `(Q, D)`.

        Layer 0 is zero, as nothing was learned of the user; layer k is `sum_i e_i^(k-1) / sqrt(|N_u| |N_i|)`. An item
        without edges counts as if this user were its only one.
        """
        num_layers = self.config.num_layers
        _, items = self._propagated(num_layers - 1)  # the mean of the layers that are read
        histories = histories.sort(dim=1).values
        distinct = (histories != PADDING) & (histories != F.pad(histories, (1, 0))[:, :-1])
        item_degrees = self._graph().item_degrees[histories].clamp(min=1)
        degrees = distinct.sum(1, keepdim=True).clamp(min=1) * item_degrees
        weights = (distinct / degrees.sqrt()).to(items.dtype)
        bags = F.embedding_bag(histories, items, per_sample_weights=weights, mode="sum")
        return bags * (num_layers / (num_layers + 1))

    def user_embeddings(self, user_ids: Tensor) -> Tensor:
        """`(n, D)` of users of the graph `(n,)`; in a training step from the tables that `forward` made."""
        users, _ = self._propagated(self.config.num_layers)
        return self._comparable(F.embedding(user_ids, users))

    def item_embeddings(self, item_ids: Tensor | None = None) -> Tensor:
        """`(I+1, D)`, row 0 padding; or `(*item_ids.shape, D)`. Of unit length when `similarity` is `cosine`."""
        _, items = self._propagated(self.config.num_layers)
        return self._comparable(items if item_ids is None else F.embedding(item_ids, items))

    def _comparable(self, embeddings: Tensor) -> Tensor:
        return F.normalize(embeddings, dim=-1) if self.config.similarity == "cosine" else embeddings

    # ---- training ---------------------------------------------------------------------------------------------

    def training_loss(
        self,
        output: RecommenderOutput,
        targets: Tensor,
        step_targets: Tensor | None = None,
        negatives: Tensor | None = None,
    ) -> Tensor:
        """The loss of each pair and its regularisation, `(Q,)`; `negatives (Q, N)` of `PairCollator`.

        The regularisation is `reg_weight / 2 (|u|^2 + |i|^2 + mean_n |j_n|^2)` of the embeddings before propagation
        (LightGCN section 3.3, for the user and items of each pair).
        """
        loss = super().training_loss(output, targets, step_targets, negatives)
        if not self.config.reg_weight:
            return loss
        users = cast(Tensor, cast(LightGCNOutput, output).user_embeddings)
        labelled, positives = targets != UNLABELLED, targets.clamp(min=PADDING)[:, None]
        items = positives if negatives is None else torch.cat([positives, negatives], dim=1)  # (Q, 1+N)
        norms = self.item_embedding(items).square().sum(2)
        norms = users.square().sum(1) + norms[:, 0] + norms[:, 1:].sum(1) / max(norms.shape[1] - 1, 1)
        return loss + labelled * norms * (self.config.reg_weight / 2)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.item_embedding

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.item_embedding = cast(nn.Embedding, value)
