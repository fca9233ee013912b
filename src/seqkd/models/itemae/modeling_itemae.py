"""The item autoencoder: an item is encoded from the set of its users and decoded to a multinomial over users."""

from __future__ import annotations

from collections.abc import Sequence as List

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...batches.collators import UNLABELLED
from ...catalogue import PADDING
from ...errors import ConfigError
from ...functional.catalogue_log_sum_exp import log_sum_exp_without
from ...functional.losses import catalogue_log_probs
from ...modules.factorisation import xavier_normal
from ...modules.set_encoder import SetEncoder
from ...recommenders.edge_recommender import EdgeRecommender
from ...recommenders.recommender import RecommenderOutput
from .configuration_itemae import ItemAEConfig

ITEMS = 1024  # encoded at a time for serving
LOGITS = 2**22  # made at a time: with rows as wide as a decoder's, a pass over them costs more than the cache saves


class ItemAEModel(EdgeRecommender):
    """Item-based autoencoder (AutoRec's I-AutoRec, Sedhain et al. 2015; the I-AE of HetComp), multinomial, denoising.

    The logit of user u for item i is `<[w_u, b_u], [h_i, 1]>`: a row of the decoder and the code of the item. Its
    softmax over users tells who an item is for; which item is for a user, Bayes' rule tells (see `item_prior`):
    `log p(i | u) = logit - log Z_i + log |N_i| + const`, Z_i being the sum over users. What depends on the item alone
    is one more column, so the score is a dot product as of every recommender, D + 2 wide:
    `<[w_u, b_u, 1], [h_i, 1, log |N_i| - log Z_i]>`. It answers for the users of training only.

    Args:
        edges: `(2, E)` internal ids of users and of their items, `edges_of(train)`.
    """

    config: ItemAEConfig
    config_class = ItemAEConfig
    inputs = ("user_ids",)
    shared_space = False

    def __init__(self, config: ItemAEConfig, edges: Tensor | None = None) -> None:
        super().__init__(config)
        self.encoder = SetEncoder(config.num_users, config.hidden_size, config.dropout_prob)
        self.user_embedding = nn.Embedding(config.num_users + 1, config.hidden_size + 1, padding_idx=PADDING)
        self._held: tuple[list, Tensor] | None = None  # all items, for serving
        self.post_init()
        if edges is not None:
            self.set_edges(edges)

    def _init_weights(self, module: nn.Module) -> None:
        xavier_normal(module)

    @property
    def embedding_size(self) -> int:
        return self.config.hidden_size + 2

    # ---- vectors ----------------------------------------------------------------------------------------------

    def forward(self, user_ids: Tensor) -> RecommenderOutput:  # type: ignore[override]
        """`[w, b, 1] (Q, D+2)` of `user_ids (Q,)`."""
        return RecommenderOutput(query_embeddings=F.pad(self.user_embedding(user_ids), (0, 1), value=1.0))

    def item_embeddings(self, item_ids: Tensor | None = None) -> Tensor:
        """`[h, 1, log |N| - log Z]`: `(I+1, D+2)`, row 0 padding; or `(*item_ids.shape, D+2)`.

        An item of nobody is the empty set, and counts as if half a user had it. Z costs as much as a ranking of all
        users, once for serving.

        Raises:
            ConfigError: the model has no interactions.
        """
        if not self.training and not torch.is_grad_enabled():
            items = self._served()
            return items if item_ids is None else F.embedding(item_ids, items)
        self._forget()  # what has gradients may be about to change
        if item_ids is None:
            return self._with_prior(torch.arange(self.config.num_items + 1, device=self.edges.device))
        distinct, asked = item_ids.unique(return_inverse=True)
        return F.embedding(asked, self._with_prior(distinct))

    def _with_prior(self, item_ids: Tensor) -> Tensor:
        """`(n, D+2)` of items `(n,)`."""
        codes = self._encode(item_ids)
        if not self.config.item_prior:
            return F.pad(codes, (0, 1))
        counts = self.edges[1].long().bincount(minlength=self.config.num_items + 1)[item_ids]
        nobody = item_ids.new_zeros(len(item_ids), 1)
        log_z = log_sum_exp_without(codes / self.config.temperature, self.user_embedding.weight, nobody)
        posterior = counts.to(log_z.dtype).clamp(min=0.5).log() - log_z
        posterior = (posterior * self.config.temperature).masked_fill(item_ids == PADDING, 0.0)
        return torch.cat([codes, posterior[:, None].to(codes.dtype)], dim=1)

    def _encode(self, item_ids: Tensor) -> Tensor:
        """`[h, 1] (n, D+1)` of items `(n,)`."""
        codes = F.pad(self.encoder(self.users_of(item_ids)), (0, 1), value=1.0)
        return codes.masked_fill((item_ids == PADDING)[:, None], 0.0)

    def _served(self) -> Tensor:
        """All items, encoded once until a weight changes: its version tells, though not of fused optimizers; so
        `train`, `eval` and any pass with gradients forget them too."""
        tensors = (self.encoder.table.weight, self.encoder.bias, self.user_embedding.weight, self.edges)
        versions: list = [self.config.num_items, *((tensor.data_ptr(), tensor._version) for tensor in tensors)]
        if self._held is None or self._held[0] != versions:
            ids = torch.arange(self.config.num_items + 1, device=self.edges.device)
            self._held = versions, torch.cat([self._with_prior(part) for part in ids.split(ITEMS)])
        return self._held[1]

    def train(self, mode: bool = True) -> ItemAEModel:
        self._forget()
        return super().train(mode)

    def _forget(self) -> None:
        self._held = None

    # ---- training ---------------------------------------------------------------------------------------------

    def training_loss(
        self,
        output: RecommenderOutput,
        targets: Tensor,
        step_targets: Tensor | None = None,
        negatives: Tensor | None = None,
    ) -> Tensor:
        """The negative log-likelihood of each pair's item, divided by how many users it has, `(Q,)`; 0 if unlabelled.

        The sum over users of an item is `-sum_u log pi_u` (arXiv 1802.05814, eq. 2, with users and items exchanged). An
        item comes once for each of its users, so the mean over the pairs of an epoch is the sum over all items, divided
        by the number of interactions. Each distinct item is encoded once.
        """
        labelled = targets != UNLABELLED
        items, asked = targets[labelled].unique(return_inverse=True)
        users = self.users_of(items)  # (n, M)
        codes = self._encode(items) / self.config.temperature
        log_likelihood = catalogue_log_probs(codes, self.user_embedding.weight, users, chunk_size=LOGITS).sum(dim=1)
        loss = -log_likelihood / (users != PADDING).sum(dim=1).clamp(min=1)
        return torch.zeros(len(targets), dtype=loss.dtype, device=loss.device).masked_scatter(labelled, loss[asked])

    def loss(self, query_embeddings: Tensor, targets: Tensor, negatives: Tensor | None = None) -> Tensor:
        """Refused.

        Raises:
            ConfigError: always: an item's softmax is over users, which queries alone do not tell.
        """
        raise ConfigError("the item autoencoder has no loss by query; ask training_loss, which reads its items' users.")

    # ---- what grows -------------------------------------------------------------------------------------------

    @property
    def item_tables(self) -> List[nn.Module]:
        """None: an item is the set of its users, and a new one the empty set until there are new `edges`."""
        return []

    @property
    def user_tables(self) -> List[nn.Module]:
        """Rows `[w, b]` of the decoder, and those that the encoder reads."""
        return [self.user_embedding, self.encoder.table]
