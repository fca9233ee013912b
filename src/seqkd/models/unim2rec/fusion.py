"""The modalities of an item as one vector: an adaptor for each, and weights over those that are there."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...modules.moe_adaptor import MoEAdaptor
from .configuration_unim2rec import UniM2RecConfig


class ModalityFusion(nn.Module):
    """Feature rows `(n, P)`, the modalities side by side, to item vectors `(n, D)`; a modality of zeros is missing.

    A_m is what the adaptor of modality m makes of it, or the learned u_m (`missing`) where it is missing. With
    `moe_gate`, a = softmax_m(w_m . [A_1; ...; A_M]) over the modalities that are there, and the item is sum_m a_m A_m
    (M3SRec, MISSRec; the sparse gate of UniSRec over modalities). Otherwise it is their mean. An item without any is
    the learned `missing_item`. The gate starts at zero: as the mean.

    u_m has weight 0 in the sum. It speaks through the gate where at least two other modalities are there, and through
    the cross expert; with two modalities and no cross expert it has no effect.
    """

    def __init__(self, config: UniM2RecConfig) -> None:
        super().__init__()
        count, width = len(config.modalities), config.hidden_size
        self.sizes, self.hidden = config.sizes, config.modality_dropout
        self.experts = nn.ModuleList(
            MoEAdaptor(
                size,
                width,
                config.num_experts,
                dropout=config.adaptor_dropout_prob,
                noisy=config.noisy_gating,
                noise_epsilon=config.noise_epsilon,
            )
            for size in config.sizes
        )
        learned, gated = config.use_missing_embedding, config.fusion == "moe_gate"
        self.missing = nn.Parameter(torch.zeros(count, width)) if learned else None  # (M, D), u_m
        self.missing_item = nn.Parameter(torch.zeros(width)) if learned else None  # (D,)
        self.gate = nn.Parameter(torch.zeros(count * width, count)) if gated else None  # (M * D, M), columns w_m
        # phi of MISSRec: 0 is the mean of the cosines, large the best of them
        self.sharpness = nn.Parameter(torch.zeros(1)) if config.fusion == "dynamic_shared" else None
        self.cross = (
            nn.Sequential(nn.Linear(count * width, width), nn.GELU(), nn.Linear(width, width))
            if config.cross_expert
            else None
        )

    def available(self, x: Tensor) -> Tensor:
        """Which modalities are there, `(n, M)` bool from `(n, P)`."""
        return torch.stack([part.any(dim=1) for part in x.split(self.sizes, dim=1)], dim=1)

    def hide(self, available: Tensor, probability: float) -> Tensor:
        """`available (n, M)` less one modality, with this probability, of each item that has several."""
        order = torch.rand(available.shape, device=available.device).masked_fill(~available, -1)
        chosen = F.one_hot(order.argmax(dim=1), available.shape[1]).bool()  # (n, M)
        several = available.sum(dim=1) > 1
        lose = several & (torch.rand(len(available), device=available.device) < probability)
        return available & ~(chosen & lose[:, None])

    def modalities(self, x: Tensor, available: Tensor) -> Tensor:
        """A_m of the modalities that are there, `(n, M, D)`; 0 elsewhere. Only those are computed."""
        vectors = []
        for expert, part, there in zip(self.experts, x.split(self.sizes, dim=1), available.unbind(1), strict=True):
            rows = there.nonzero().squeeze(1)
            adapted = expert(part[rows])
            vectors.append(adapted.new_zeros(len(x), adapted.shape[1]).index_copy(0, rows, adapted))
        return torch.stack(vectors, dim=1)

    def weights(self, vectors: Tensor, available: Tensor) -> Tensor:
        """The share of each modality, `(n, M)`: 0 where it is missing, so all 0 for an item without any."""
        logits = torch.zeros_like(vectors[:, :, 0])
        if self.gate is not None:
            logits = self._filled(vectors, available).flatten(1) @ self.gate
        lowest = torch.finfo(logits.dtype).min
        return logits.masked_fill(~available, lowest).softmax(dim=1) * available

    def fuse(self, vectors: Tensor, available: Tensor) -> Tensor:
        """Item vectors `(n, D)` of `vectors (n, M, D)` from `modalities`."""
        fused = (self.weights(vectors, available)[..., None] * vectors).sum(dim=1)
        if self.cross is not None:
            fused = fused + self.cross(self._filled(vectors, available).flatten(1))
        if self.missing_item is None:
            return fused
        return torch.where(available.any(dim=1)[:, None], fused, self.missing_item)

    def forward(self, x: Tensor) -> Tensor:
        """`(n, D)` from `(n, P)`; in training some items lose a modality."""
        vectors, available = self.read(x)
        return self.fuse(vectors, available)

    def read(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """A_m `(n, M, D)` and which modalities are there `(n, M)`; in training some items lose one."""
        available = self.available(x)
        if self.training and self.hidden:
            available = self.hide(available, self.hidden)
        return self.modalities(x, available), available

    def views(self, vectors: Tensor, available: Tensor) -> Tensor:
        """What a query is compared with one by one, `(n, M, D)` of unit length, 0 where there is nothing.

        An item without any modality has one view, `missing_item`.
        """
        if self.missing_item is not None:
            none = ~available.any(dim=1)
            first = torch.where(none[:, None], self.missing_item, vectors[:, 0])
            vectors = torch.cat([first[:, None], vectors[:, 1:]], dim=1)
        return F.normalize(vectors, dim=-1)

    def _filled(self, vectors: Tensor, available: Tensor) -> Tensor:
        """`vectors (n, M, D)` with u_m where a modality is missing, also where it was computed but is hidden."""
        missing = vectors.new_zeros(()) if self.missing is None else self.missing
        return torch.where(available[..., None], vectors, missing)
