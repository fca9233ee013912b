"""The model of the golden case: 6 users, 12 items, d = 8; golden ids count from 0, ours from 1."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from seqkd.models.concf import ConCFConfig, ConCFModel

NAMES = dict(
    zip(
        ("A", "B", "C", "D", "E", "sub"),
        ("bpr", "metric", "cross_entropy", "squared_error", "user_multinomial", "item_multinomial"),
        strict=True,
    )
)


def case_of(folder: Path) -> dict:
    return json.loads((folder / "concf_losses.json").read_text())["cases"][0]


def model_of(inputs: dict) -> ConCFModel:
    """In float64, in evaluation mode (no dropout)."""
    users, items = len(inputs["user_emb"]), len(inputs["item_emb"])
    config = ConCFConfig(num_users=users, num_items=items, hidden_size=len(inputs["user_emb"][0]))
    model = ConCFModel(config).double().eval()
    with torch.no_grad():
        model.user_embedding.weight[1:] = tensor(inputs["user_emb"])
        model.item_embedding.weight[1:] = tensor(inputs["item_emb"])
        for letter, name in NAMES.items():
            head, bottom = model.heads[name], inputs["networks"][f"{letter}_bottom_network"]
            put(head.bottom[0], bottom[0])
            put(head.bottom[3], bottom[1])
            put(head.top, inputs["networks"][f"{letter}_network"][0])
    model.observe(tensor(inputs["R"]).nonzero().T + 1)
    return model


def put(layer: torch.nn.Linear, values: dict) -> None:
    """A layer with a row for each id has one more, for padding."""
    weight, bias = tensor(values["weight"]), tensor(values["bias"])
    layer.weight[len(layer.weight) - len(weight) :] = weight
    layer.bias[len(layer.bias) - len(bias) :] = bias


def pairs_of(inputs: dict) -> tuple[Tensor, Tensor, Tensor]:
    """Users and targets `(Q,)`, negatives `(Q, 1)`."""
    users, targets, negatives = (torch.tensor(inputs[name]) + 1 for name in ("user", "p_item", "n_item"))
    return users, targets, negatives[:, None]


def clamped_multinomial(queries: Tensor, table: Tensor, chosen: Tensor) -> Tensor:
    """As the authors have it: `-sum log(softmax + 1e-12)`."""
    log_probs = ((queries @ table[1:].T).softmax(dim=1) + 1e-12).log()
    return -torch.nn.functional.pad(log_probs, (1, 0)).gather(1, chosen).sum(dim=1)


def tensor(values) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def near(actual: Tensor, expected) -> None:
    torch.testing.assert_close(actual.detach(), torch.as_tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-11)
