from __future__ import annotations

import json

import pytest
import torch

from seqkd.functional.score_ranks import ranks_by_score


def test_golden(golden):
    """The golden ids count from 0, ours from 1."""
    case = json.loads((golden / "ccd_replay.json").read_text())
    scores = torch.nn.functional.pad(torch.tensor(case["W_scores"], dtype=torch.float64), (1, 0), value=-1e300)
    everything = torch.arange(1, 13).expand(5, -1)
    assert ranks_by_score(scores, everything).tolist() == case["W_rank"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_ranks_are_those_of_a_loop(dtype):
    """Ties share the better rank; padding beats nothing, at scores of any size; the scores stay as they were."""
    draw = torch.Generator().manual_seed(0)
    scores = (torch.randint(-5, 6, (7, 31), generator=draw) * 200).to(dtype)
    scores[:, 0] = torch.finfo(dtype).min
    before, items = scores.clone(), torch.randint(1, 31, (7, 9), generator=draw).int()
    ranks = ranks_by_score(scores, items)
    for row in range(7):
        for place in range(9):
            own = scores[row, items[row, place]].item()
            assert ranks[row, place] == sum(score > own for score in scores[row, 1:].tolist())
    assert torch.equal(scores, before) and ranks.dtype == torch.int64
    assert ranks_by_score(scores, torch.zeros(7, 1, dtype=torch.int64)).tolist() == [[30]] * 7
