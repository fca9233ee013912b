"""Modules whose width depends on a teacher: one for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from ..errors import ConfigError
from ..knowledge import Knowledge


def per_teacher(knowledge: Mapping[str, Knowledge], table: str, build: Callable[[int], nn.Module]) -> nn.ModuleDict:
    """`build(width of the teacher's table)` by teacher.

    Raises:
        ConfigError: a teacher's name cannot name a module.
    """
    modules = nn.ModuleDict()
    for teacher, said in knowledge.items():
        try:
            modules[teacher] = build(said.tables[table].shape[1])
        except KeyError as error:
            raise ConfigError(
                f"teacher {teacher!r} cannot name a module: {error}. Call it e.g. 'teacher_1'."
            ) from error
    return modules
