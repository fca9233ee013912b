"""A bank of experts that regress a teacher's vectors, and the selector that chooses one for each entity.

DE (arXiv 2012.04357, section 3.1), whose bank HTD (arXiv 2106.08700) shares.
"""

from __future__ import annotations

from math import log

import torch
from torch import Tensor, nn

LOG_EPSILON = log(1e-10)  # the authors take the log of alpha + 1e-10; without it their values are met to 1e-7 only
NEGLIGIBLE = 1e-6  # an expert of a smaller weight is not asked: teacher tables are float16, good to 5e-4


class Experts(nn.Module):
    """`sum_m z_m E_m(s)` with E_m two layers, D -> (D + d) // 2 -> d, and z the selector's choice for the teacher's t.

    The mixture is linear, so all second layers are one product of the weighted hidden units `(n, M * hidden)`. Once
    the temperature is low, few experts have a weight; on the CPU only those are asked then. Memory is
    `n * M * hidden` floats, or `n * hidden * experts with a weight`; three times that in training.

    Args:
        student_size: D.
        teacher_size: d; hidden units are D // 2 where it equals D.
        num_experts: M; one has no choice to make.

    Attributes:
        temperature: tau of the selector; whoever trains sets it every epoch.
    """

    def __init__(self, student_size: int, teacher_size: int, num_experts: int = 30) -> None:
        super().__init__()
        own = student_size if student_size == teacher_size else student_size + teacher_size
        hidden = max(own // 2, 1)
        self.temperature = 1.0
        self.selector = nn.Linear(teacher_size, num_experts)
        self.hidden_weight = nn.Parameter(_uniform(student_size, num_experts, student_size, hidden))  # (M, D, hidden)
        self.hidden_bias = nn.Parameter(_uniform(student_size, num_experts, hidden))
        self.weight = nn.Parameter(_uniform(hidden, num_experts, hidden, teacher_size))  # (M, hidden, d)
        self.bias = nn.Parameter(_uniform(hidden, num_experts, teacher_size))

    def forward(self, student: Tensor, teacher: Tensor, noise: Tensor | None = None) -> Tensor:
        """What the chosen experts make of `student (n, D)`, `(n, d)`; they are chosen by `teacher (n, d)`."""
        weights = self.choose(teacher, noise)  # (n, M)
        if weights.device.type == "cpu":  # elsewhere, counting who is asked would cost more than asking everybody
            asked = weights.T > NEGLIGIBLE  # (M, n)
            if asked.sum() < asked.numel() / 3:
                return self._few(student, weights, asked)
        first = self.hidden_weight.transpose(0, 1).flatten(1)  # (D, M * hidden)
        hidden = torch.addmm(self.hidden_bias.flatten(), student, first).relu_().unflatten(1, self.hidden_bias.shape)
        mixed = (hidden * weights[:, :, None]).flatten(1)  # (n, M * hidden)
        return mixed @ self.weight.flatten(0, 1) + weights @ self.bias

    def _few(self, student: Tensor, weights: Tensor, asked: Tensor) -> Tensor:
        """The same, of the pairs of expert and entity that are `asked (M, n)`."""
        entity = asked.nonzero()[:, 1]  # (P,), ascending in experts
        counts = asked.sum(dim=1).tolist()
        parts = student.index_select(0, entity).split(counts)
        layers = zip(parts, self.hidden_weight.unbind(), self.hidden_bias.unbind(), strict=True)
        hidden = torch.cat([torch.addmm(bias, part, weight) for part, weight, bias in layers]).relu_()
        parts = (hidden * weights.T.masked_select(asked)[:, None]).split(counts)
        mixed = torch.cat([part @ weight for part, weight in zip(parts, self.weight.unbind(), strict=True)])  # (P, d)
        return (weights @ self.bias).index_add(0, entity, mixed)

    def choose(self, teacher: Tensor, noise: Tensor | None = None) -> Tensor:
        """z `(n, M)`: a softmax over experts that nears a one-hot draw from the selector as the temperature falls.

        Args:
            noise: `(n, M)` of a Gumbel distribution; drawn where it is not given, in training only.
        """
        scores = self.selector(teacher).log_softmax(dim=1)
        scores = scores.logaddexp(scores.new_full((), LOG_EPSILON))
        if noise is None and self.training:
            noise = -torch.empty_like(scores).exponential_().log()
        return ((scores if noise is None else scores + noise) / self.temperature).softmax(dim=1)

    @torch.no_grad()
    def group(self, teacher: Tensor) -> Tensor:
        """The expert that is most likely chosen, `(n,)`."""
        return self.selector(teacher).argmax(dim=1)

    def errors(self, student: Tensor, teacher: Tensor, noise: Tensor | None = None) -> Tensor:
        """`||t - sum_m z_m E_m(s)||^2`, `(n,)`."""
        return (self(student, teacher, noise) - teacher).square().sum(dim=1)


def annealed(epoch: int, num_epochs: int, end: float = 1e-10) -> float:
    """The temperature of an epoch: from 1 to `end`, geometrically over `num_epochs`; epochs 0 and 1 both have 1."""
    return max(end ** (max(epoch - 1, 0) / num_epochs), end)


def _uniform(fan_in: int, *shape: int) -> Tensor:
    """As `nn.Linear` begins."""
    return torch.empty(shape).uniform_(-(fan_in**-0.5), fan_in**-0.5)
