"""Tensors and banks of experts out of the golden files of DE and HTD."""

from __future__ import annotations

import torch
from torch import Tensor

from seqkd.modules.experts import Experts
from seqkd.teaching.batch_entities import Taught


def tensor(values) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def stacked(banks: list, layer: int, name: str) -> Tensor:
    found = torch.stack([tensor(expert[layer][name]) for expert in banks])
    return found.transpose(1, 2) if name == "weight" else found


def bank(experts: list, selector: dict, temperature: float) -> Experts:
    weight = stacked(experts, 1, "weight")
    module = Experts(len(experts[0][0]["weight"][0]), weight.shape[2], len(experts)).double()
    state = {
        "selector.weight": tensor(selector["weight"]),
        "selector.bias": tensor(selector["bias"]),
        "hidden_weight": stacked(experts, 0, "weight"),
        "hidden_bias": stacked(experts, 0, "bias"),
        "weight": weight,
        "bias": stacked(experts, 1, "bias"),
    }
    module.load_state_dict(state)
    module.temperature = temperature
    return module


def taught(student: Tensor, teacher: Tensor, ids: list[int], share: float = 1.0) -> Taught:
    rows = torch.tensor(ids)
    return Taught(rows, student[rows], teacher[rows], torch.full((len(ids),), share, dtype=torch.float64))


def near(actual: Tensor, expected) -> None:
    torch.testing.assert_close(actual.detach(), tensor(expected), rtol=1e-9, atol=1e-11)
