"""Distil small sequential recommenders from pre-trained teachers."""

from __future__ import annotations

from .models import sasrec as sasrec
