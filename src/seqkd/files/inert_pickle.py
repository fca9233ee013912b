"""Replay the program in a pickle without running it: lists, dicts and tensors, and a placeholder for all else.

A pickle is a program for a little stack machine; running it may call anything. `pickletools.genops` only takes it
apart, and the machine here moves values about but calls nothing.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass, field
from typing import Any

import torch

STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
REBUILD_TENSOR = "torch._utils _rebuild_tensor_v2"
REBUILD_PARAMETER = "torch._utils _rebuild_parameter"
ORDERED_DICT = "collections OrderedDict"
LITERALS = (
    frozenset({"INT", "LONG", "LONG1", "LONG4", "FLOAT", "STRING", "UNICODE", "BYTEARRAY8", "SHORT_BINSTRING"})
    | {f"BIN{name}" for name in ("INT", "INT1", "INT2", "FLOAT", "STRING", "UNICODE", "UNICODE8", "BYTES", "BYTES8")}
    | {"SHORT_BINUNICODE", "SHORT_BINBYTES"}
)


@dataclass(repr=False)
class Placeholder:
    """A class, function or object the file names: its name and the state it would have been given, never the thing."""

    name: str
    state: Any = None


@dataclass(frozen=True, repr=False)
class StoredTensor:
    """Where a tensor lies in the archive."""

    dtype: torch.dtype
    key: str
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def replay(program: bytes) -> Any:
    """What the program builds, made of plain values, `StoredTensor` and `Placeholder`.

    Raises:
        ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError: the program is damaged.
    """
    return _Machine().replay(program)


def describe(value: Any) -> str:
    return value.name if isinstance(value, Placeholder) else type(value).__name__


@dataclass
class _Machine:
    """The pickle machine with its hands tied: it moves values about and calls nothing."""

    stack: list = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def replay(self, program: bytes) -> Any:
        for opcode, argument, _ in pickletools.genops(program):
            self._step(opcode.name, argument)
        return self.stack.pop()

    def _step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in LITERALS:
            stack.append(argument)
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(self.memo[argument])
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            self.memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name == "MARK":
            self.marks.append(len(stack))
        elif name in ("NONE", "NEWTRUE", "NEWFALSE"):
            stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[name])
        elif name in ("EMPTY_DICT", "EMPTY_LIST", "EMPTY_SET"):
            stack.append({} if name == "EMPTY_DICT" else [])  # a set is kept as a list: its members stay unhashed
        elif name in ("EMPTY_TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"):
            stack.append(tuple(self._take(0 if name == "EMPTY_TUPLE" else int(name[-1]))))
        elif name in ("TUPLE", "LIST", "FROZENSET", "DICT"):
            items = self._since_mark()
            stack.append(_dict(items) if name == "DICT" else items if name == "LIST" else tuple(items))
        elif name in ("APPEND", "APPENDS", "ADDITEMS"):
            items = self._take(1) if name == "APPEND" else self._since_mark()
            if isinstance(stack[-1], list):
                stack[-1].extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = self._take(2) if name == "SETITEM" else self._since_mark()
            if isinstance(stack[-1], dict):
                stack[-1].update(_dict(items))
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            stack.append(Placeholder(argument if name == "GLOBAL" else " ".join(map(str, self._take(2)))))
        elif name in ("REDUCE", "NEWOBJ"):
            stack.append(_rebuild(*self._take(2)))
        elif name == "NEWOBJ_EX":
            stack.append(_rebuild(*self._take(3)[:2]))
        elif name == "INST":
            self._since_mark()
            stack.append(Placeholder(argument))
        elif name == "OBJ":
            stack.append(Placeholder(describe(self._since_mark()[0])))
        elif name == "BUILD":
            state = stack.pop()
            if isinstance(stack[-1], Placeholder):
                stack[-1].state = state
        elif name in ("BINPERSID", "PERSID"):
            stack.append(_storage(stack.pop()))
        elif name == "POP":
            stack.pop()
        elif name == "POP_MARK":
            self._since_mark()
        elif name == "DUP":
            stack.append(stack[-1])
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise ValueError(f"opcode {name} has no place in a checkpoint")

    def _take(self, count: int) -> list:
        if len(self.stack) < count:
            raise IndexError("stack underflow")
        items = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return items

    def _since_mark(self) -> list:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items


def _dict(items: list) -> dict:
    """Pairs with plain keys; others are left out (hashing a deeply nested tuple would overflow the C stack)."""
    pairs = zip(items[::2], items[1::2], strict=True)
    return {key: value for key, value in pairs if isinstance(key, (str, int, float, bytes, type(None)))}


def _storage(identifier: Any) -> Placeholder:
    """`("storage", <class>, key, location, numel)`: which raw numbers a tensor reads."""
    tag, kind, key, *_ = identifier
    if tag != "storage" or not isinstance(kind, Placeholder) or not isinstance(key, str):
        raise ValueError("a persistent id that is no tensor storage")
    return Placeholder(kind.name, key)


def _rebuild(function: Any, arguments: Any) -> Any:
    """Tensors, parameters and ordered dicts are rebuilt; every other call becomes a placeholder that was not called."""
    name = function.name if isinstance(function, Placeholder) else ""
    if name == REBUILD_TENSOR:
        storage, offset, size, stride, *_ = arguments
        module, _, kind = storage.name.partition(" ")
        if module != "torch" or kind not in STORAGES or not isinstance(storage.state, str):
            raise ValueError(f"unknown tensor storage {storage.name}")
        if len(size) != len(stride) or not all(isinstance(n, int) for n in (offset, *size, *stride)):
            raise ValueError("a tensor without a proper shape")
        return StoredTensor(STORAGES[kind], storage.state, offset, tuple(size), tuple(stride))
    if name == REBUILD_PARAMETER:
        return arguments[0]
    if name == ORDERED_DICT:
        return {}
    return Placeholder(name)
