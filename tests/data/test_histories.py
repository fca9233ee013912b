from __future__ import annotations

import numpy as np
import pytest

from seqkd.data.histories import Windows


def cut(length: int, first: int, max_length: int, stride: int) -> list[tuple[int, int, int]]:
    windows = Windows.cut(np.array([length]), np.array([first]), max_length, stride)
    return list(zip(windows.start.tolist(), windows.end.tolist(), windows.first.tolist(), strict=True))


def test_windows_by_hand():
    assert cut(5, 1, max_length=4, stride=2) == [(0, 5, 1)]  # fits
    assert cut(8, 1, max_length=4, stride=2) == [(0, 5, 1), (2, 7, 5), (3, 8, 7)]
    assert cut(8, 7, max_length=4, stride=1) == [(3, 8, 7)]  # one target, the last 4 items before it
    assert cut(8, 6, max_length=4, stride=1) == [(2, 7, 6), (3, 8, 7)]
    assert cut(1, 1, max_length=4, stride=2) == [(0, 1, 1)]  # only the unlabelled tail
    assert cut(3, 1, max_length=1, stride=1) == [(0, 2, 1), (1, 3, 2)]


@pytest.mark.parametrize("max_length", [1, 2, 5, 8])
def test_every_target_is_labelled_once_with_enough_history(max_length):
    for stride in {1, max(1, max_length // 2)}:
        for length in range(1, 30):
            for first in range(1, length + 1):
                targets = []
                for start, end, label in cut(length, first, max_length, stride):
                    assert 0 <= start < end <= length and end - start <= max_length + 1
                    for target in range(label, end):
                        enough = max_length if stride == 1 or target == first else max_length + 1 - stride
                        assert target - start >= min(target, enough) or start == 0
                        targets.append(target)
                assert targets == list(range(first, length))


def test_windows_of_many_rows_at_once():
    windows = Windows.cut(np.array([8, 1, 8]), np.array([1, 1, 7]), 4, 2)
    assert windows.row.tolist() == [0, 0, 0, 1, 2]
    assert windows.first.tolist() == [1, 5, 7, 1, 7]
