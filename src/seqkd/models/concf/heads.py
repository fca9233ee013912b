"""The heads of ConCF: six one-class objectives, each with its own small network on the shared tables.

Every score is a dot product of what a head makes of a user and of an item, with a column or two for what stands outside
the product: a bias, or the squared lengths of a distance.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...functional import losses
from .configuration_concf import ConCFConfig


class Head(nn.Module):
    """A network d -> d/2 -> d/4 that users and items share, and what follows from it.

    Attributes:
        width: D_h, of `users` and `items`.
        scale: factor of its scores where it is taught a ranking.
    """

    scale = 1.0

    def __init__(self, config: ConCFConfig) -> None:
        super().__init__()
        d = config.hidden_size
        self.bottom = nn.Sequential(
            nn.Linear(d, d // 2), nn.Dropout(config.dropout_prob), nn.ReLU(), nn.Linear(d // 2, d // 4)
        )
        self.width = d // 4 + 1

    def users(self, rows: Tensor, user_ids: Tensor) -> Tensor:
        """`(..., D_h)` of users, by their rows of the table `(..., d)` and internal ids `(...)`."""
        return beside(self.bottom(rows), 1.0)

    def items(self, rows: Tensor, item_ids: Tensor) -> Tensor:
        """`(..., D_h)` of items, likewise."""
        return beside(self.bottom(rows), 1.0)

    @property
    def item_tables(self) -> list[nn.Module]:
        """Those with a row for each item, where a head has one beside the shared table."""
        return []

    @property
    def user_tables(self) -> list[nn.Module]:
        """Likewise for users."""
        return []


class PairHead(Head):
    """A head whose objective compares a positive and negatives by their scores."""

    def objective(self, positive: Tensor, negatives: Tensor) -> Tensor:
        """The loss of each pair, `(Q,)`, from scores `(Q,)` and `(Q, N)`."""
        raise NotImplementedError


class BPR(PairHead):
    """A: Bayesian personalised ranking of inner products."""

    def __init__(self, config: ConCFConfig) -> None:
        super().__init__(config)
        self.width = config.hidden_size // 4
        self.top = nn.Linear(self.width, self.width)

    def users(self, rows: Tensor, user_ids: Tensor) -> Tensor:
        return self.top(self.bottom(rows))

    def items(self, rows: Tensor, item_ids: Tensor) -> Tensor:
        return self.top(self.bottom(rows))

    def objective(self, positive: Tensor, negatives: Tensor) -> Tensor:
        return losses.bpr(positive, negatives)


class Metric(PairHead):
    """B: metric learning. The score is minus the squared distance within the unit ball, the loss a hinge."""

    scale = 10.0

    def __init__(self, config: ConCFConfig) -> None:
        super().__init__(config)
        self.top = nn.Linear(config.hidden_size // 4, config.hidden_size // 4)
        self.width, self.margin = config.hidden_size // 4 + 2, config.margin

    def users(self, rows: Tensor, user_ids: Tensor) -> Tensor:
        points = self.points(rows)
        return beside(torch.cat([2 * points, -points.square().sum(dim=-1, keepdim=True)], dim=-1), -1.0)

    def items(self, rows: Tensor, item_ids: Tensor) -> Tensor:
        points = self.points(rows)
        return torch.cat([beside(points, 1.0), points.square().sum(dim=-1, keepdim=True)], dim=-1)

    def points(self, rows: Tensor) -> Tensor:
        """Projected to the unit ball: what is inside stays."""
        return F.normalize(self.top(self.bottom(rows)), dim=-1, eps=1.0)

    def objective(self, positive: Tensor, negatives: Tensor) -> Tensor:
        return F.relu(self.margin + negatives - positive[:, None]).mean(dim=1)


class WeightedProduct(PairHead):
    """A linear layer on the elementwise product of user and item: a weighted inner product and a bias."""

    def __init__(self, config: ConCFConfig) -> None:
        super().__init__(config)
        self.top = nn.Linear(config.hidden_size // 4, 1)

    def users(self, rows: Tensor, user_ids: Tensor) -> Tensor:
        return torch.cat([self.bottom(rows) * self.top.weight[0], self.top.bias.expand(*rows.shape[:-1], 1)], dim=-1)


class CrossEntropy(WeightedProduct):
    """C: binary cross-entropy of a positive (1) and negatives (0)."""

    def objective(self, positive: Tensor, negatives: Tensor) -> Tensor:
        return losses.bce(positive, negatives)


class SquaredError(WeightedProduct):
    """D: squared error to 1 for a positive and 0 for negatives."""

    def objective(self, positive: Tensor, negatives: Tensor) -> Tensor:
        return (positive - 1).square() + negatives.square().mean(dim=1)


class Rows(nn.Linear):
    """A linear layer with an output for each id; row 0, padding, is never read."""

    def at(self, ids: Tensor) -> Tensor:
        """Weights and biases of ids `(...)`, `(..., d/4 + 1)`."""
        return torch.cat([F.embedding(ids, self.weight), self.bias[ids][..., None]], dim=-1)


class UserMultinomial(Head):
    """E: a softmax over all items for each user; the items have rows of their own, not the shared table's."""

    def __init__(self, config: ConCFConfig) -> None:
        super().__init__(config)
        self.top = Rows(config.hidden_size // 4, config.num_items + 1)

    def items(self, rows: Tensor, item_ids: Tensor) -> Tensor:
        return self.top.at(item_ids)

    @property
    def item_tables(self) -> list[nn.Module]:
        return [self.top]


class ItemMultinomial(Head):
    """sub: a softmax over all users for each item; the users have rows of their own."""

    def __init__(self, config: ConCFConfig) -> None:
        super().__init__(config)
        self.top = Rows(config.hidden_size // 4, config.num_users + 1)

    def users(self, rows: Tensor, user_ids: Tensor) -> Tensor:
        return self.top.at(user_ids)

    @property
    def user_tables(self) -> list[nn.Module]:
        return [self.top]


def beside(vectors: Tensor, value: float) -> Tensor:
    """With one more column, the same everywhere."""
    return F.pad(vectors, (0, 1), value=value)


def multinomial(queries: Tensor, table: Tensor, chosen: Tensor) -> Tensor:
    """`-sum log softmax(queries @ table.T)` over the chosen of each row: `(n,)`.

    Args:
        queries: `(n, D)`; table: `(C+1, D)`, row 0 padding, which is no part of the softmax.
        chosen: `(n, M)` ids of what each row has, 0 padded.
    """
    return -losses.catalogue_log_probs(queries, table, chosen).sum(dim=1)


CLASSES: dict[str, type[Head]] = {
    "bpr": BPR,
    "metric": Metric,
    "cross_entropy": CrossEntropy,
    "squared_error": SquaredError,
    "user_multinomial": UserMultinomial,
    "item_multinomial": ItemMultinomial,
}
