"""Personalised imitation weights (arXiv 2305.01204): how closely each user should follow who he was before."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ImitationWeights(nn.Module):
    """Clusters of items, where users stand among them, and a weight that is learned from how far they have moved.

    Args:
        centres: `(J, D)`, where the clusters c_j begin.

    Attributes:
        transforms: W_j `(J, D, D)`, at first the identity.
    """

    def __init__(self, centres: Tensor) -> None:
        super().__init__()
        clusters, width = centres.shape
        self.centres = nn.Parameter(centres.detach().clone())
        self.transforms = nn.Parameter(torch.eye(width).to(centres).repeat(clusters, 1, 1))
        self.mlp = nn.Sequential(nn.Linear(clusters, width), nn.ReLU(), nn.Linear(width, 1), nn.Softplus())
        self.mlp.to(centres)

    def forward(self, old: Tensor, current: Tensor) -> Tensor:
        """Weights `(n,)` of mean 1, from the users' vectors `(n, D)` before and now.

        No gradient reaches the vectors: a user does not become less of a burden by moving.
        """
        state = (self.stand(old.detach()) - self.stand(current.detach())).square()
        weights = self.mlp(state).squeeze(1)
        return weights / weights.mean()

    def stand(self, users: Tensor) -> Tensor:
        """G: shares of the clusters `(n, J)`, a softmax of `x . (c_j W_j)`, for users `(n, D)`."""
        keys = torch.einsum("jd,jde->je", self.centres, self.transforms)
        return (users @ keys.T).softmax(dim=1)

    def clustering(self, items: Tensor) -> Tensor:
        """KL(P || Q) of items `(n, D)`, their mean, `()`: it moves the centres, not the items.

        Q is Student's t with n - 1 degrees of freedom, P the target that sharpens it, `q^2 / sum_i q` by row, a
        constant (DEC, arXiv 1511.06335, eq. 1 to 3).
        """
        items = items.detach()
        squared = items.square().sum(dim=1, keepdim=True) - 2 * items @ self.centres.T
        squared = (squared + self.centres.square().sum(dim=1)).clamp(min=0)  # below 0 by rounding only
        freedom = max(len(items) - 1, 1)
        log_q = (-(freedom + 1) / 2 * (squared / freedom).log1p()).log_softmax(dim=1)  # (n, J)
        log_p = (2 * log_q - log_q.logsumexp(dim=0)).log_softmax(dim=1).detach()
        return (log_p.exp() * (log_p - log_q)).sum(dim=1).mean()
