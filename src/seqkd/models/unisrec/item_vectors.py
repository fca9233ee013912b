"""What an item is to UniSRec: checked feature rows on the way in, vectors to read and to compare on the way out."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...errors import DataError


class ItemVectors(NamedTuple):
    """`read (n, D)`: what the sequence encoder reads. `compared (n, D)`: of unit length, what queries are scored with.

    A model that scores an item by several views of it has `compared (n, K, D)`.
    """

    read: Tensor
    compared: Tensor


def checked_vectors(features: Tensor | np.ndarray, rows: int, width: int, kind: str) -> Tensor:
    """`features` as a tensor `(rows, width)`; `kind` ("text", "image") names them in messages.

    Raises:
        DataError: another shape, or a value that is not finite.
    """
    tensor = torch.as_tensor(features)
    if tuple(tensor.shape) != (rows, width):
        raise DataError(
            f"{kind} vectors must be {(rows, width)} (items, width), got {tuple(tensor.shape)}. Give one per item of "
            f"the catalogue, in its order, none for padding, from the {kind} model this teacher was made for."
        )
    wrong = (~torch.isfinite(tensor).all(dim=1)).nonzero().flatten()
    if len(wrong):
        raise DataError(f"{kind} vector {int(wrong[0])} holds NaN or infinite values. Encode that {kind} again.")
    return tensor
