"""The machine that replays pickles: every protocol gives the plain values back, everything else is a placeholder."""

from __future__ import annotations

import collections
import fractions
import os
import pickle

import pytest

from seqkd.files.inert_pickle import Placeholder, replay

PLAIN = {
    "numbers": [0, 1, -1, 255, 256, 65536, -(2**31), 2**31, 2**70, -(2**2100), 1.5, float("inf"), True, False, None],
    "texts": ["", "a", "é☃𝄞", "x" * 300, "line\nbreak 'quoted'"],
    "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, (4, 5))],
    "nested": {"a": {"b": [{"c": ()}]}, 7: "seven", None: [], 2.5: {}},
    "long": list(range(2000)),
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_come_back(protocol):
    shared = ["same"]
    value = {**PLAIN, "shared": [shared, shared]}
    got = replay(pickle.dumps(value, protocol))
    assert got == value
    assert got["shared"][0] is got["shared"][1]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_objects_and_calls_are_placeholders(protocol, tmp_path):
    marker = tmp_path / "marker"

    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(marker),)

    ordered = collections.OrderedDict(a=1, b=(2,))
    value = [Bomb(), fractions.Fraction(1, 3), ordered, collections.Counter("aab"), len, "end"]
    bomb, fraction, pairs, counter, function, end = replay(pickle.dumps(value, protocol))
    assert not marker.exists()
    assert isinstance(bomb, Placeholder) and bomb.name.endswith("mkdir")
    assert isinstance(fraction, Placeholder) and isinstance(counter, Placeholder)
    assert isinstance(function, Placeholder) and function.name.endswith("len")
    assert end == "end"
    if protocol >= 2:
        assert pairs == {"a": 1, "b": (2,)}


def test_state_is_kept_but_not_set():
    program = b"\x80\x02cposix\nsystem\n)\x81}X\x01\x00\x00\x00aK\x01sb."
    got = replay(program)
    assert isinstance(got, Placeholder) and got.name == "posix system" and got.state == {"a": 1}


@pytest.mark.parametrize(
    "program", [b"", b".", b"\x80\x02e.", b"\x80\x02h\x07.", b"\x80\x02K\x01Q.", b"(lp0\n", b"cos\n"]
)
def test_damaged_programs_raise(program):
    with pytest.raises((ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError)):
        replay(program)
