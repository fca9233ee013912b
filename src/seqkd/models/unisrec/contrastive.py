"""The two contrastive losses of UniSRec (arXiv:2206.05941, eq. 7 and 8): the negatives are the batch's own targets."""

from __future__ import annotations

import torch
from torch import Tensor


def sequence_item_contrast(
    positive: Tensor, logits: Tensor, targets: Tensor, candidates: Tensor, counts: Tensor, *, legacy: bool
) -> Tensor:
    """`-log(exp(positive) / sum of exp over the targets of the batch)`, `(Q,)`.

    Args:
        positive: `(Q,)` logits of the own targets.
        logits: `(Q, C)` logits of the candidates.
        targets: `(Q,)` internal ids.
        candidates: `(C,)` distinct internal ids: all targets of the batch.
        counts: `(C,)` how many queries have each as their target.
        legacy: other queries with the same target add `exp(0) = 1` each (the authors' code); else they add nothing.
    """
    own = targets[:, None] == candidates  # (Q, C)
    logits = logits.float() + counts.log()
    same = (counts - 1).log() if legacy else torch.full_like(counts, -torch.inf)  # log of the others with this target
    terms = torch.where(own, same, logits)  # (Q, C); -inf where the own target occurs once
    positive = positive.float()
    return torch.logsumexp(torch.cat([positive[:, None], terms], dim=1), dim=1) - positive


def sequence_sequence_contrast(logits: Tensor, targets: Tensor, *, legacy: bool) -> Tensor:
    """The same between sequences: query i against its augmented twin (column i) and those of the others, `(Q,)`.

    Args:
        logits: `(Q, Q)`.
        targets: `(Q,)` internal ids; queries with equal targets are no negatives of each other.
        legacy: see `sequence_item_contrast`.
    """
    same = targets[:, None] == targets
    same.fill_diagonal_(False)
    logits = logits.float().masked_fill(same, 0.0 if legacy else -torch.inf)
    return torch.logsumexp(logits, dim=1) - logits.diagonal()
