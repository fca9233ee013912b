"""A dataclass from a mapping of settings, as YAML has them: names and types are checked, and refused by name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig

from .errors import ConfigError, SeqKDError

Made = TypeVar("Made")
PLAIN: dict[Any, tuple[type, str]] = {  # types of values that files and the command line have, and what we call them
    int: (Integral, "a whole number"),
    float: (Real, "a number"),
    bool: (bool, "true or false"),
    str: (str, "text"),
    NoneType: (NoneType, "null"),
}
LISTS = (list, tuple, Sequence)


def make(kind: type[Made], values: Mapping[str, Any], where: str, **fixed: Any) -> Made:
    """`kind(**values)`, where a name that is no field is an error with the closest field named.

    Raises:
        ConfigError: an unknown name, or a value that is of the wrong type or that the kind refuses.
    """
    known = {item.name for item in fields(kind)}  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ConfigError(f"{where}: {kind.__name__} has no field {name!r}.{hint}")
    check_types(kind, values, where)
    try:
        return kind(**{**values, **fixed})
    except SeqKDError:
        raise
    except (StrictDataclassError, ValueError) as error:
        raise ConfigError(f"{where}: {' '.join(str(error).split())}") from error


def check_types(kind: type, values: Mapping[str, Any], where: str) -> None:
    """Compare values with the types that a dataclass says: numbers, text, true or false, lists of them, or null.

    Others pass: what they are is for the dataclass to see.

    Raises:
        ConfigError: naming the setting.
    """
    if issubclass(kind, PreTrainedConfig):  # strict: it checks all types itself
        return
    wanted = get_type_hints(kind)
    for name, value in values.items():
        if not _fits(value, wanted[name]):
            raise ConfigError(f"{where}: {name} must be {_called(wanted[name])}, got {value!r}.")


def _fits(value: Any, wanted: Any) -> bool:
    origin, inside = get_origin(wanted), get_args(wanted)
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in inside)
    if origin in LISTS:
        return isinstance(value, (list, tuple)) and all(_fits(one, inside[0]) for one in value)
    if wanted not in PLAIN:
        return True
    return isinstance(value, PLAIN[wanted][0]) and (wanted is bool or not isinstance(value, bool))  # True is an int


def _called(wanted: Any) -> str:
    """A type that `_fits` compares, in words."""
    inside = get_args(wanted)
    if get_origin(wanted) in (Union, UnionType):
        return " or ".join(map(_called, inside))
    return f"a list, each {_called(inside[0])}" if inside else PLAIN[wanted][1]
