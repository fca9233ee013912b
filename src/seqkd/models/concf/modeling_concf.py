"""ConCF: one table of users, one of items, and heads with unlike objectives on top of them."""

from __future__ import annotations

from collections.abc import Sequence as List
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from ...batches.collators import SequenceDataset
from ...batches.edges import Neighbours, edges_of
from ...catalogue import PADDING
from ...errors import ConfigError
from ...functional.distinct import first_of_each
from ...recommenders.multi_head import MultiHeadOutput, MultiHeadRecommender
from .configuration_concf import ConCFConfig
from .heads import CLASSES, Head, PairHead, UserMultinomial, multinomial


class ConCFModel(MultiHeadRecommender):
    """A model with up to six objectives (Kang et al., WWW 2022, arXiv 2202.13140); the method `concf` makes them agree.

    It answers for the users of training only. `keep_head("metric")` is what is served at the end; a model with one
    head from the start is that objective alone.
    """

    config: ConCFConfig
    config_class = ConCFConfig

    def __init__(self, config: ConCFConfig) -> None:
        super().__init__(config)
        self.user_embedding = nn.Embedding(config.num_users + 1, config.hidden_size, padding_idx=PADDING)
        self.item_embedding = nn.Embedding(config.num_items + 1, config.hidden_size, padding_idx=PADDING)
        self.heads = nn.ModuleDict({name: CLASSES[name](config) for name in config.heads})
        self._observed: tuple[Neighbours, Neighbours] | None = None  # items of users and users of items, in training
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """The heads keep the initialisation that PyTorch gives to linear layers."""
        if not isinstance(module, nn.Linear):
            super()._init_weights(module)

    @property
    def embedding_size(self) -> int:
        """D, of the head that answers."""
        return self._head(self.config.head).width

    @property
    def tables(self) -> tuple[Tensor, Tensor]:
        return self.user_embedding.weight, self.item_embedding.weight

    def _head(self, name: str) -> Head:
        return cast(Head, self.heads[name])

    # ---- vectors ----------------------------------------------------------------------------------------------

    def ranking_scale(self, head: str) -> float:
        return self._head(head).scale

    def forward(self, user_ids: Tensor) -> MultiHeadOutput:  # type: ignore[override]
        """What every head says of `user_ids (Q,)`."""
        rows = self.user_embedding(user_ids)  # (Q, d)
        queries = tuple(self._head(name).users(rows, user_ids) for name in self.head_names)
        return MultiHeadOutput(
            query_embeddings=queries[self.head_names.index(self.config.head)],
            user_ids=user_ids,
            head_queries=queries,
        )

    def head_items(self, head: str, item_ids: Tensor | None = None) -> Tensor:
        if item_ids is None:
            item_ids = torch.arange(self.config.num_items + 1, device=self.item_embedding.weight.device)
        return self._head(head).items(self.item_embedding(item_ids), item_ids)

    # ---- training ---------------------------------------------------------------------------------------------

    def training_rows(self, sequences: SequenceDataset) -> Dataset:
        """Pairs of user and item. Who has what is kept, unsaved, for the heads that predict all of a user's items."""
        self.observe(edges_of(sequences))
        return super().training_rows(sequences)

    def observe(self, edges: Tensor) -> None:
        """Who has what: `edges (2, E)`, internal ids of users and items."""
        users, items = edges
        self._observed = (
            Neighbours.of(users, items, self.config.num_users),
            Neighbours.of(items, users, self.config.num_items),
        )

    def head_losses(self, output: MultiHeadOutput, targets: Tensor, negatives: Tensor) -> tuple[Tensor, ...]:
        """The losses of the paper, sums over a batch, divided by its pairs: h x `()`.

        Pairs are as they come. The multinomial heads predict all that each distinct user of the batch has, and who has
        each of its distinct items, targets and negatives alike.
        """
        items = torch.cat([targets[:, None], negatives], dim=1)  # (Q, 1+N)
        users, heads = cast(Tensor, output.user_ids), zip(self.head_names, output.head_queries or (), strict=True)
        return tuple(self._loss(name, queries, users, items) / max(len(targets), 1) for name, queries in heads)

    def _loss(self, name: str, queries: Tensor, user_ids: Tensor, items: Tensor) -> Tensor:
        """The sum over the pairs `user_ids (Q,)`, `items (Q, 1+N)`, by what the head says of the users `(Q, D_h)`."""
        head = self._head(name)
        if isinstance(head, PairHead):
            scores = (self.head_items(name, items) * queries[:, None]).sum(dim=2)
            return head.objective(scores[:, 0], scores[:, 1:]).sum()
        items_of, users_of = self._training_pairs()
        if isinstance(head, UserMultinomial):
            first = first_of_each(user_ids)
            return multinomial(queries[first], self.head_items(name), observed(items_of, user_ids[first])).sum()
        distinct = items.unique()
        everyone = torch.arange(self.config.num_users + 1, device=items.device)
        table = head.users(self.user_embedding(everyone), everyone)
        return multinomial(self.head_items(name, distinct), table, observed(users_of, distinct)).sum()

    def _training_pairs(self) -> tuple[Neighbours, Neighbours]:
        if self._observed is None:
            raise ConfigError(
                "the multinomial heads predict all that a user has, but this model was not told who has what. Train "
                "with DistillationTrainer, or call model.observe(edges_of(train)) first."
            )
        return self._observed

    # ---- the product ------------------------------------------------------------------------------------------

    @torch.no_grad()
    def keep_head(self, head: str) -> ConCFModel:
        """A model with this head alone, on the same device, with the ids: `config.heads` and `config.head` say which.

        Raises:
            ConfigError: there is no such head.
        """
        self.check_head(head)
        settings = {**self.config.to_dict(), "heads": [head], "head": head}
        kept = ConCFModel(ConCFConfig(**settings))
        cast(nn.Module, kept).to(self.device, self.dtype)
        state = {name: tensor for name, tensor in self.state_dict().items() if name != "head_weights"}
        state = {name: tensor for name, tensor in state.items() if not name.startswith("heads.")} | {
            name: tensor for name, tensor in state.items() if name.startswith(f"heads.{head}.")
        }
        kept.load_state_dict({**state, "head_weights": torch.ones(1)})
        kept.catalogue, kept.users = self.catalogue, self.users
        return kept.train(self.training)

    # ---- what grows -------------------------------------------------------------------------------------------

    @property
    def item_tables(self) -> List[nn.Module]:
        return [self.item_embedding, *(table for name in self.head_names for table in self._head(name).item_tables)]

    @property
    def user_tables(self) -> List[nn.Module]:
        return [self.user_embedding, *(table for name in self.head_names for table in self._head(name).user_tables)]

    def _forget(self) -> None:
        self._observed = None  # who has what is told anew, with the new users and items

    def get_input_embeddings(self) -> nn.Embedding:
        return self.item_embedding

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.item_embedding = cast(nn.Embedding, value)


def observed(lists: Neighbours, ids: Tensor) -> Tensor:
    """What `ids (n,)` are joined to in training, `(n, M)`, on their device."""
    return lists.lists(ids.cpu()).to(ids.device)
