"""Configuration of UniM²Rec, the sequence teacher that reads items as text and image."""

# No `from __future__ import annotations` here: `strict` checks only types that are not strings.

from dataclasses import field
from typing import Any

from huggingface_hub.dataclasses import strict

from ...errors import ConfigError
from ..unisrec.configuration_unisrec import UniSRecConfig

FUSIONS = ("moe_gate", "mean", "dynamic_shared")


@strict
class UniM2RecConfig(UniSRecConfig):
    """UniM²Rec (arXiv:2311.01831), reconstructed: see docs/papers.md. The rest is as in `UniSRecConfig`.

    Args:
        modalities: M kinds of content, in the order in which they are stored.
        modality_sizes: width of an item's vector in each modality.
        plm_size: P, follows from `modality_sizes`; leave it out.
        fusion: of an item's modalities. `moe_gate`: weights learned from all of them; `mean`; `dynamic_shared`: a query
            is compared with each modality on its own, and the better matches count more (MISSRec).
        use_missing_embedding: learned vectors stand in for missing modalities; else zeros.
        cross_expert: add an MLP over all modalities of an item to the fused vector.
        modality_dropout: probability that an item with several modalities loses one of them in training.
        per_modality_weight: lambda_1, of the contrasts between sequences and single modalities in pre-training.
        align_weight: lambda_2, of the contrast between the modalities of an item in pre-training.
    """

    model_type = "seqkd_unim2rec"

    modalities: list[str] = field(default_factory=lambda: ["text", "image"])
    modality_sizes: dict[str, int] = field(default_factory=lambda: {"text": 768, "image": 512})
    plm_size: int = 0
    fusion: str = "moe_gate"
    use_missing_embedding: bool = True
    cross_expert: bool = False
    modality_dropout: int | float = 0.2
    per_modality_weight: int | float = 0.1
    align_weight: int | float = 1e-3

    def __post_init__(self, **kwargs: Any) -> None:
        if not self.plm_size:
            self.plm_size = sum(self.modality_sizes.values())
        super().__post_init__(**kwargs)

    @property
    def sizes(self) -> list[int]:
        """The width of each modality, in the order of `modalities`."""
        return [self.modality_sizes[name] for name in self.modalities]

    def check(self) -> None:
        if not self.modalities or len(set(self.modalities)) != len(self.modalities):
            raise ConfigError(f"modalities must be distinct and at least one, got {self.modalities}.")
        if set(self.modalities) != set(self.modality_sizes):
            raise ConfigError(
                f"modality_sizes must give one width for each of {self.modalities}, got {self.modality_sizes}."
            )
        if min(self.modality_sizes.values()) < 1:
            raise ConfigError(f"modality_sizes must be at least 1, got {self.modality_sizes}.")
        if self.plm_size != sum(self.modality_sizes.values()):
            raise ConfigError(
                f"plm_size={self.plm_size} contradicts modality_sizes={self.modality_sizes}. UniM²Rec reads several "
                "modalities: give modality_sizes and leave plm_size out."
            )
        super().check()
        if self.fusion not in FUSIONS:
            raise ConfigError(f"fusion must be one of {FUSIONS}, got {self.fusion!r}.")
        if self.cross_expert and self.fusion == "dynamic_shared":
            raise ConfigError("dynamic_shared compares modalities one by one: cross_expert needs another fusion.")
        if not 0 <= self.modality_dropout < 1:
            raise ConfigError(f"modality_dropout must be at least 0 and below 1, got {self.modality_dropout}.")
        for name in ("per_modality_weight", "align_weight"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must be at least 0, got {getattr(self, name)}.")
