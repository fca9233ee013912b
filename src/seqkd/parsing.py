"""A dataclass of settings from YAML and the command line; what cannot be read is one line with the closest setting."""

from __future__ import annotations

import difflib
import os
import re
import sys
from argparse import ArgumentError
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, get_args, get_type_hints

from jsonargparse import ArgumentParser, Namespace

Made = TypeVar("Made")
# how jsonargparse tells of a name that it does not know, and below which other one
UNKNOWN = re.compile(r"(?:[Oo]ption '|[Kk]ey '|recognized arguments: --)(?P<name>[\w.-]+)")
BELOW = re.compile(r"(?:Parser key \"|Group ')(?P<name>[\w.-]+)")


def parse(
    kind: type[Made],
    description: str,
    arguments: Sequence[str] | None = None,
    default: str | os.PathLike | None = None,
) -> Made:
    """A dataclass of settings from `--config file.yaml` and `--name value` overrides.

    What cannot be read ends the program with exit code 2 and one line, which names the closest setting.

    Args:
        kind: the dataclass.
        description: for `--help`.
        arguments: those of the command line by default.
        default: the YAML file that holds when the command line names none.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if default is not None and not any(argument.split("=")[0] == "--config" for argument in arguments):
        arguments = ["--config", str(default), *arguments]
    parser = ArgumentParser(description=description, exit_on_error=False)  # it would print its whole usage first
    parser.add_argument("--config", action="config", help="YAML file with any of the settings below.")
    parser.add_class_arguments(kind, nested_key=None)
    groups = dict(_groups(kind))
    try:
        parsed = parser.parse_args(arguments)
    except ArgumentError as error:
        parser.exit(2, f"error: {_in_a_line(str(error), groups)}\n")
    usual = parser.get_defaults()
    for name, names in groups.items():  # jsonargparse lets pass what is no group, or nothing
        if isinstance(usual.get(name), Namespace) and not isinstance(parsed.get(name), Namespace):
            parser.exit(2, f"error: {name} holds settings, {', '.join(names)}, but is {parsed.get(name)!r} here.\n")
    values = vars(parser.instantiate_classes(parsed))
    return kind(**{item.name: values[item.name] for item in fields(kind)})  # type: ignore[arg-type]


def _groups(kind: Any, name: str = "") -> Iterator[tuple[str, list[str]]]:
    """The settings of a dataclass, and of those inside it by their dotted names."""
    yield name, [item.name for item in fields(kind)]
    for item, wanted in get_type_hints(kind).items():
        for inner in (wanted, *get_args(wanted)):  # also by name, as teachers, or optional
            if is_dataclass(inner):
                yield from _groups(inner, f"{name}.{item}".lstrip("."))


def _in_a_line(message: str, groups: Mapping[str, Sequence[str]]) -> str:
    """What jsonargparse says in one line; of a name that is no setting the closest one."""
    unknown, below = UNKNOWN.search(message), BELOW.search(message)
    if unknown is None:
        return " ".join(message.split())
    group, _, name = ".".join(found["name"] for found in (below, unknown) if found).rpartition(".")
    while group not in groups:  # what is below a misspelt name
        group, _, name = group.rpartition(".")
    where = f" in {group}" if group else ""
    close = difflib.get_close_matches(name, groups[group], n=1)
    if not close:
        places = {each: f"{other}.{each}" for other, names in groups.items() if other for each in names}
        close = [places[each] for each in difflib.get_close_matches(name, places, n=1)]
    hint = f"Did you mean {close[0]!r}?" if close else f"There are {list(groups[group])}."
    return f"there is no setting {name!r}{where}. {hint}"
