"""A student that takes over new items from teacher space: the map that ships with it, fitted in closed form."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import ConfigError, DataError
from . import SASRecModel

logger = logging.getLogger(__name__)
RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)


class ProjectionFit(NamedTuple):
    """The penalty chosen, and the share of the item rows' variance that is explained on items left out of the fit.

    At 0 or below, teacher space says nothing about the student's items, and new ones land near the mean.
    """

    ridge: float
    explained: float


@torch.no_grad()
def fit_item_projection(
    student: SASRecModel, teacher_items: Tensor | np.ndarray, *, ridges: Sequence[float] = RIDGES, folds: int = 5
) -> ProjectionFit:
    """Give a trained student its `item_projection`, from teacher space (P) to its item table (D).

    Ridge regression of item rows on teacher vectors (attribute-to-feature mapping, Gantner et al., ICDM 2010). An item
    weighs as much as it was bought in training: a row that nobody bought has nothing to teach. The penalty is the one
    with the least error on folds of items, in the geometry in which the student compares: directions when `similarity`
    is `cosine`, rows with their lengths when it is `dot`. Equal input gives equal weights.

    Args:
        student: with its `item_counts`; changed in place. An older projection is replaced.
        teacher_items: `(I+1, P)` in the order of the student's catalogue, row 0 padding (never read):
            `content_embeddings()` of a teacher, or text vectors as they are. Not vectors with a learned part: a new
            item has none.
        ridges: penalties to choose from, in units of the mean variance of the teacher's coordinates.
        folds: of the cross-validation.

    Raises:
        DataError: another number of rows, a value that is not finite, vectors that are all alike, or fewer bought
            items than folds.
        ConfigError: a penalty is not above 0, or there are fewer than 2 folds.
    """
    if not ridges or min(ridges) <= 0 or folds < 2:
        raise ConfigError(f"ridges must be above 0 and folds at least 2, got {tuple(ridges)} and {folds}.")
    table, counts = (tensor.cpu().double() for tensor in (student.item_embedding.weight, student.item_counts))
    bought = (counts > 0).nonzero().flatten()
    if len(bought) < folds:
        raise DataError(
            f"{len(bought)} items were bought in training by item_counts, too few for {folds} folds. Attach the counts "
            "with set_catalogue(catalogue, count_items(split.train, num_items)), or take fewer folds."
        )
    cosine = student.config.similarity == "cosine"
    x = _checked(teacher_items, len(table)).cpu().double()[bought]  # (N, P)
    y = _comparable(table[bought], cosine)  # (N, D)
    weights, penalties = counts[bought], torch.tensor(ridges, dtype=torch.float64)
    fold = torch.randperm(len(x), generator=torch.Generator().manual_seed(0)) % folds
    errors, spread = torch.zeros_like(penalties), 0.0
    for seen, held_out in ((fold != number, fold == number) for number in range(folds)):
        weight, bias = _ridge(x[seen], y[seen], weights[seen], penalties)
        mean = (weights[seen] @ y[seen]) / weights[seen].sum()  # what is known without the teacher
        errors += _error(x[held_out] @ weight + bias, y[held_out], weights[held_out], cosine)
        spread += _error(mean.expand(1, 1, -1), y[held_out], weights[held_out], cosine).item()
    best = int(errors.argmin())
    fit = ProjectionFit(float(ridges[best]), 1 - errors[best].item() / spread if spread else 0.0)

    weight, bias = _ridge(x, y, weights, penalties[best : best + 1])
    student.set_item_projection(weight[0].T, bias[0, 0])
    told = "item projection of %d items: explains %.3f of their rows when they are left out, ridge %g"
    (logger.info if fit.explained > 0 else logger.warning)(told, len(x), fit.explained, fit.ridge)
    return fit


def _checked(teacher_items: Tensor | np.ndarray, rows: int) -> Tensor:
    items = torch.as_tensor(teacher_items)
    if items.dim() != 2 or len(items) != rows:
        raise DataError(
            f"teacher_items must be ({rows}, P), a row for padding and one for each item of the student's catalogue in "
            f"its order, got {tuple(items.shape)}. Use teacher.content_embeddings() of a teacher with that catalogue."
        )
    wrong = (~torch.isfinite(items[1:]).all(dim=1)).nonzero().flatten()
    if len(wrong):
        raise DataError(f"teacher_items row {int(wrong[0]) + 1} holds NaN or infinite values. Encode that item again.")
    return items


def _ridge(x: Tensor, y: Tensor, weights: Tensor, penalties: Tensor) -> tuple[Tensor, Tensor]:
    """Minimise `sum_i w_i |x_i A + b - y_i|^2 / sum w + penalty * v |A|^2`, v the mean variance of x's coordinates.

    Returns:
        A `(R, P, D)` and b `(R, 1, D)` for R penalties; b is free of penalty.
    """
    shares = (weights / weights.sum())[:, None]
    mean_x, mean_y = (shares * x).sum(dim=0), (shares * y).sum(dim=0)
    x, y = x - mean_x, y - mean_y
    covariance = x.T @ (shares * x)  # (P, P)
    variance = covariance.diagonal().mean()
    if not variance > 0:
        raise DataError("all teacher vectors are the same, so they cannot tell items apart. Give those of a teacher.")
    eye = torch.eye(len(covariance), dtype=x.dtype)
    slope = torch.linalg.solve(covariance + penalties[:, None, None] * variance * eye, x.T @ (shares * y))
    return slope, mean_y - mean_x @ slope[:, None]


def _error(predicted: Tensor, y: Tensor, weights: Tensor, cosine: bool) -> Tensor:
    """Weighted squared error of predictions `(R, N, D)` on rows `(N, D)`: `(R,)`."""
    return ((_comparable(predicted, cosine) - y).square().sum(dim=-1) * weights).sum(dim=-1)


def _comparable(rows: Tensor, cosine: bool) -> Tensor:
    return F.normalize(rows, dim=-1) if cosine else rows
