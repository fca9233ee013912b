"""Mult-VAE: a user is encoded from the set of his items and decoded to a multinomial over the catalogue."""

from __future__ import annotations

from collections.abc import Sequence as List
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...batches.collators import UNLABELLED, Collator
from ...catalogue import PADDING
from ...errors import DataError
from ...functional.distinct import first_of_each
from ...functional.losses import catalogue_log_probs
from ...modules.factorisation import xavier_normal
from ...modules.set_encoder import SetEncoder
from ...recommenders.edge_recommender import EdgeRecommender
from ...recommenders.recommender import RecommenderOutput
from .configuration_multvae import MultVAEConfig

LOGITS = 2**22  # made at a time: with rows as wide as a decoder's, a pass over them costs more than the cache saves


@dataclass
class MultVAEOutput(RecommenderOutput):
    """`user_ids (Q,)` that were asked, and the `divergence (Q,)` of each representation from the prior, in nats."""

    user_ids: Tensor | None = None
    divergence: Tensor | None = None


class MultVAEModel(EdgeRecommender):
    """Variational autoencoder with multinomial likelihood (Liang et al. 2018, arXiv 1802.05814), or Mult-DAE.

    A logit is `<[h, 1], [w_i, b_i]>`, the decoder's last hidden layer and a row of its output layer: a dot product as
    of every recommender, D + 1 wide. A user of training is read from the interactions that the model holds, a new user
    from the history.

    Args:
        edges: `(2, E)` internal ids of users and of their items, `edges_of(train)`.
    """

    config: MultVAEConfig
    config_class = MultVAEConfig
    unknown_users = True
    holds_item_table = True
    shared_space = False

    def __init__(self, config: MultVAEConfig, edges: Tensor | None = None) -> None:
        super().__init__(config)
        self.encoder = SetEncoder(config.num_items, config.hidden_size, config.dropout_prob)
        self.posterior = nn.Linear(config.hidden_size, config.latent_size * (2 if config.variational else 1))
        self.decoder = nn.Linear(config.latent_size, config.hidden_size)
        self.item_embedding = nn.Embedding(config.num_items + 1, config.hidden_size + 1, padding_idx=PADDING)
        self._pairs: Collator | None = None  # of training: the trainer tells it the epoch
        self.post_init()
        if edges is not None:
            self.set_edges(edges)

    def _init_weights(self, module: nn.Module) -> None:
        xavier_normal(module)

    @property
    def embedding_size(self) -> int:
        return self.config.hidden_size + 1

    # ---- vectors ----------------------------------------------------------------------------------------------

    def forward(self, user_ids: Tensor, histories: Tensor | None = None) -> MultVAEOutput:  # type: ignore[override]
        """Embed users; in training each distinct user once, however often a batch asks.

        Args:
            user_ids: `(Q,)`, 0 where a user is not in training.
            histories: `(Q, n)`, 0 padded; read for users 0 only. Not read in training, where all users are known.

        Returns:
            `query_embeddings (Q, D+1)`, the last column 1.

        Raises:
            ConfigError: the model has no interactions. DataError: a user is 0, but there are no histories.
        """
        if self.training:
            users, asked = user_ids.unique(return_inverse=True)
            queries, divergence = self._autoencode(self.items_of(users))
            return MultVAEOutput(query_embeddings=queries[asked], user_ids=user_ids, divergence=divergence[asked])
        queries, divergence = self._autoencode(self._sets(user_ids, histories))
        return MultVAEOutput(query_embeddings=queries, user_ids=user_ids, divergence=divergence)

    def _sets(self, user_ids: Tensor, histories: Tensor | None) -> Tensor:
        """What each user has, `(Q, M)`, every item once, 0 padded."""
        unknown = user_ids == PADDING
        if not unknown.any():
            return self.items_of(user_ids)
        if histories is None:
            raise DataError("a user is not in training (user id 0), and there are no histories to encode.")
        items = histories.sort(dim=1).values
        items = items.masked_fill(items == F.pad(items, (1, 0))[:, :-1], PADDING)
        known = self.items_of(user_ids)
        width = max(items.shape[1], known.shape[1])
        items, known = (F.pad(sets, (0, width - sets.shape[1])) for sets in (items, known))
        return torch.where(unknown[:, None], items, known)

    def _autoencode(self, sets: Tensor) -> tuple[Tensor, Tensor]:
        """`[h, 1] (n, D+1)` of `sets (n, M)`, and `KL(q(z | x) || N(0, 1))`, `(n,)`; 0 of Mult-DAE."""
        latent = self.posterior(self.encoder(sets))
        divergence = latent.new_zeros(len(sets))
        if self.config.variational:
            mean, log_variance = latent.chunk(2, dim=1)
            latent = mean
            if self.training:
                latent = mean + torch.randn_like(mean) * (log_variance / 2).exp()
            divergence = (mean.square() + log_variance.exp() - log_variance - 1).sum(dim=1) / 2
        hidden = torch.tanh(self.decoder(latent))
        return F.pad(hidden, (0, 1), value=1.0), divergence

    def user_embeddings(self, user_ids: Tensor) -> Tensor:
        """`(n, D+1)` of users of training `(n,)`; of user 0 that of the empty set."""
        return self._autoencode(self.items_of(user_ids))[0]

    def item_embeddings(self, item_ids: Tensor | None = None) -> Tensor:
        """`[w, b]`: `(I+1, D+1)`, row 0 padding; or `(*item_ids.shape, D+1)`."""
        return self.item_embedding.weight if item_ids is None else self.item_embedding(item_ids)

    # ---- training ---------------------------------------------------------------------------------------------

    def training_loss(
        self,
        output: RecommenderOutput,
        targets: Tensor,
        step_targets: Tensor | None = None,
        negatives: Tensor | None = None,
    ) -> Tensor:
        """The negative ELBO of each pair's user, divided by how many items he has, `(Q,)`; 0 where unlabelled.

        The paper's objective is the sum over users of `-sum_i log pi_i + beta KL` (eq. 8). A user comes once for each
        of his items, so the mean over the pairs of an epoch is that sum, divided by the number of interactions.
        """
        told = cast(MultVAEOutput, output)
        users, divergence = cast(Tensor, told.user_ids), cast(Tensor, told.divergence)
        distinct, asked = users.unique(return_inverse=True)
        at = first_of_each(users)
        items = self.items_of(distinct)  # (n, M)
        queries = told.query_embeddings[at] / self.config.temperature
        log_likelihood = catalogue_log_probs(queries, self.item_embeddings(), items, chunk_size=LOGITS).sum(dim=1)
        loss = self.beta * divergence[at] - log_likelihood
        loss = loss / (items != PADDING).sum(dim=1).clamp(min=1)
        return loss[asked] * (targets != UNLABELLED)

    @property
    def beta(self) -> float:
        """Weight of the divergence in the epoch that is trained: annealed from 0 to `kl_weight`."""
        last = self.config.anneal_epochs
        epoch = last if self._pairs is None else self._pairs.epoch
        return self.config.kl_weight * (epoch / last if epoch < last else 1.0)

    def loss(self, query_embeddings: Tensor, targets: Tensor, negatives: Tensor | None = None) -> Tensor:
        """`-log pi` of one item for each query, `(Q,)`: the multinomial without what only a user's whole set tells."""
        return -self.catalogue_log_probs(query_embeddings, targets[:, None]).squeeze(1)

    def collator(self, *, tail: bool = False, seen: bool = False, training: bool = False) -> Collator:
        collator = super().collator(tail=tail, seen=seen, training=training)
        if training:
            self._pairs = collator
        return collator

    # ---- what grows -------------------------------------------------------------------------------------------

    @property
    def item_tables(self) -> List[nn.Module]:
        """Rows `[w, b]` of the decoder, and those that the encoder reads."""
        return [self.item_embedding, self.encoder.table]

    @property
    def user_tables(self) -> List[nn.Module]:
        """None: a user is the set of his items, and a new one the empty set until there are new `edges`."""
        return []

    def get_input_embeddings(self) -> nn.Embedding:
        return self.item_embedding

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.item_embedding = cast(nn.Embedding, value)
