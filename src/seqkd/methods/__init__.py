"""The distillation methods, one paper a file, and the one registry that names them."""

from __future__ import annotations

from ..method import Method
from .ckd_mdsr import CKDMDSR

METHODS: dict[str, type[Method]] = {"ckd_mdsr": CKDMDSR}

__all__ = ["CKDMDSR", "METHODS"]
