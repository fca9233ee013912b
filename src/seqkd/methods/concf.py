"""ConCF: consensus learning from heterogeneous objectives (WWW 2022, arXiv 2202.13140).

There is no teacher. A model with several heads learns several objectives at once; what its heads agree on, weighed by
how steadily they rank it, teaches every head. The objectives are balanced, and one head is kept at the end.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from ..errors import ConfigError
from ..functional.distinct import first_of_each, spread
from ..functional.head_consensus import HeadConsensusConfig, head_consensus
from ..knowledge import Knowledge
from ..method import Epoch, Method
from ..recommenders.multi_head import Candidates, MultiHeadOutput, MultiHeadRecommender
from ..recommenders.recommender import RecommenderModel, RecommenderOutput
from ..teaching.objective_balance import ObjectiveBalance, measure
from ..teaching.ranking_lists import Lists, relaxed_ranking_of

logger = logging.getLogger(__name__)

SHARES = (1.0, 0.5)  # of the gradient of the user and of the item table in G; the authors' a + b / 2
CLIP = (0.5, 2.0)  # of an objective's weight where it weighs the consensus


@dataclass(frozen=True)
class ConCFMethodConfig(HeadConsensusConfig):
    """The defaults are those of the authors' code, but where it is not what the paper says:
    `deviation_scale=100` and `untaught=("item_multinomial",)` are the code.

    The paper's alpha weighs a sum over the distinct users of a batch beside sums over its 1,024 pairs. Here both are
    means, so `alpha` is the paper's, 0.005, times distinct users / pairs: 0.7 on CiteULike, where users have 12 items.
    The balance counts on a weight of 1 for this method and for the labels.
    """

    alpha: float = 0.0035  # of the consensus; 0 leaves it out and only balances
    interesting: int = 50  # N: the first of the consensus, taught in order
    uninteresting: int = 50  # the next, taught to stand below
    start: int = 50  # epoch from which on the consensus is taught
    refresh: int = 10  # p, epochs between two looks at the heads
    window: int = 5  # W, snapshots over which a rank must be steady
    list_length: int = 100  # M, of a head's list in a snapshot; W x heads x M int32 for each user
    untaught: tuple[str, ...] = ()  # heads that vote but are not taught; the authors': ("item_multinomial",)
    balanced: bool = True  # or all objectives weigh 1
    asymmetry: float = 0.15  # tau of the balance: how much objectives that learn slowly are favoured
    balance_learning_rate: float = 0.01  # of the weights; the authors take the model's
    settling: int = 10  # the last loss up to this epoch is L(0), with which later ones are compared

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("interesting", "uninteresting", "refresh", "window"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}.")
        for name in ("alpha", "start", "settling", "asymmetry"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must not be negative, got {getattr(self, name)}.")
        if not self.balance_learning_rate > 0:
            raise ConfigError(f"balance_learning_rate must be above 0, got {self.balance_learning_rate}.")
        if self.list_length < self.top:
            raise ConfigError(f"list_length={self.list_length} is shorter than top={self.top}; make it as long.")

    @property
    def first_look(self) -> int:
        """Epoch of the first snapshot: the window is full when teaching begins."""
        return self.start - self.refresh * (self.window - 1)


class ConCF(Method):
    """`alpha sum_h clip(w_h) L_h` of the relaxed ranking of the consensus, one loss per query; it also sets `w`.

    The objectives themselves, `sum_h w_h L_h`, are the model's own loss, the label term.

    Knowledge: none. Memory: 12 kB for each user with six heads, saved with the run; six backward passes more for the
    balance, or twelve with the consensus, each of one head, with a gradient of both tables.
    """

    config_class = ConCFMethodConfig
    config: ConCFMethodConfig
    paper = "arXiv:2202.13140"
    rankings: Tensor  # (W, h, U+1, M) snapshots of the heads' lists, the newest last
    lists: Tensor  # (U+1, C) the consensus
    prepared: Tensor  # () epoch of the newest snapshot, -1: none
    filled: Tensor  # () snapshots there are
    taught: bool | None  # whether the consensus is, in this epoch; None before any

    def prepare(self, student: RecommenderModel, knowledge: Mapping[str, Knowledge]) -> None:
        several, config = several_heads(student), self.config
        self.answering, self.heads = several.answering, several.head_names
        heads = self.heads
        unknown = set(config.untaught) - set(heads)
        if unknown:
            raise ConfigError(f"untaught names {sorted(unknown)}, but the heads are {list(heads)}.")
        users, length = student.config.num_users + 1, min(config.list_length, student.config.num_items)
        window = config.window if config.alpha else 0
        self.register_buffer("rankings", torch.zeros(window, len(heads), users, length, dtype=torch.int32))
        self.register_buffer("lists", torch.zeros(users, config.interesting + config.uninteresting, dtype=torch.int32))
        self.register_buffer("prepared", torch.tensor(-1))
        self.register_buffer("filled", torch.tensor(0))
        self.balance = ObjectiveBalance(
            len(heads), asymmetry=config.asymmetry, learning_rate=config.balance_learning_rate
        )
        self.settling, self.taught = False, None

    def on_epoch_begin(self, epoch: Epoch) -> None:
        config, number = self.config, epoch.number
        self.settling, self.taught = number <= config.settling, config.alpha > 0 and number >= config.start
        if number == 0 and config.alpha and config.start >= epoch.num_epochs:
            logger.warning(
                "concf teaches its consensus from epoch %d on, but this run has %g epochs: heads only learn side by "
                "side. Train longer, or set start.", config.start, epoch.num_epochs,
            )  # fmt: skip
        due = number >= config.first_look and (number - config.first_look) % config.refresh == 0
        if not config.alpha or not due or self.prepared == number:
            return
        self.rankings[:-1] = self.rankings[1:].clone()
        self.rankings[-1] = self.look(epoch)
        self.filled.add_(1).clamp_(max=config.window)
        self.prepared.fill_(number)
        if self.taught:
            snapshots = self.rankings[-int(self.filled) :].cpu()
            self.lists.copy_(head_consensus(snapshots, self.lists.shape[1], config)[0])

    def look(self, epoch: Epoch) -> Tensor:
        """The best items of every user by each head, `(h, U+1, M)`, without those of training; user 0 has none."""
        owners = torch.from_numpy(epoch.positives.query_user)
        last = torch.full((self.rankings.shape[2],), -1)  # query of each user: the last knows all that he has
        last.scatter_reduce_(0, owners, torch.arange(len(owners)), "amax")
        last[0] = -1
        lists = torch.zeros(self.rankings.shape[1:], dtype=torch.int32)
        for row, head in zip(lists, self.heads, strict=True):
            with self.answering(head):
                row[last >= 0] = epoch.student_topk(row.shape[1])[last[last >= 0]]
        return lists

    def forward(
        self,
        student: RecommenderModel,
        batch: Mapping[str, Tensor],
        output: RecommenderOutput,
        knowledge: Mapping[str, Mapping[str, Tensor]],
    ) -> Tensor:
        several, said = cast(MultiHeadRecommender, student), cast(MultiHeadOutput, output)
        weights = several.head_weights.clone()
        rows = first_of_each(batch["query_ids"])  # (n,)
        consensus = self.consensus_losses(several, batch, said, rows)  # h x (n,)
        if self.training and self.config.balanced and len(batch["targets"]):
            self.rebalance(several, said, [losses.mean() for losses in consensus])
        self.statistics = {
            name: weight.expand(len(batch["targets"])) for name, weight in zip(several.head_names, weights, strict=True)
        }
        taught = (weights.clamp(*CLIP)[:, None] * torch.stack(consensus)).sum(dim=0)
        return spread(self.config.alpha * taught, rows, batch)

    def consensus_losses(
        self, student: MultiHeadRecommender, batch: Mapping[str, Tensor], output: MultiHeadOutput, rows: Tensor
    ) -> list[Tensor]:
        """What it costs each head to rank as the consensus, for the queries `rows (n,)` of the batch: h x `(n,)`; 0
        before the start."""
        if self.taught is None:
            raise ConfigError(
                "no epoch has begun yet. Train with DistillationTrainer, or in a loop of your own call "
                "method.on_epoch_begin(Epoch(...)) when an epoch begins."
            )
        silent = torch.zeros(len(rows), dtype=output.query_embeddings.dtype, device=rows.device)
        if not self.taught:
            return [silent] * len(student.head_names)
        listed = self.lists[batch["user_ids"][rows]].long()
        lists = Lists(*listed.split([self.config.interesting, self.config.uninteresting], dim=1))
        candidates = Candidates.of(listed)
        losses = []
        for head, queries in zip(student.head_names, output.head_queries or (), strict=True):
            if head in self.config.untaught:
                losses.append(silent)
                continue
            scores = student.head_scores(head, queries[rows], candidates)
            losses.append(relaxed_ranking_of(student.ranking_scale(head) * scores, lists))
        return losses

    def rebalance(self, student: MultiHeadRecommender, output: MultiHeadOutput, consensus: list[Tensor]) -> None:
        """Set the weights of the next step: the objective of a head is `w L + alpha clip(w) consensus`."""
        weights, alpha = student.head_weights, self.config.alpha
        inside = (weights > CLIP[0]) & (weights < CLIP[1])
        factors = torch.stack([weights, alpha * weights.clamp(*CLIP)], dim=1)  # (h, 2)
        slopes = torch.stack([torch.ones_like(weights), alpha * inside], dim=1)  # by w
        objectives = zip(cast(tuple[Tensor, ...], output.losses), consensus, strict=True)
        measured = [
            measure(losses, factors[h], slopes[h], student.tables, SHARES) for h, losses in enumerate(objectives)
        ]
        self.balance.step(weights, *torch.stack(measured, dim=1), settling=self.settling)


def several_heads(student: RecommenderModel) -> MultiHeadRecommender:
    """The student, if it has heads to agree.

    Raises:
        ConfigError: it has not, or only one.
    """
    if not isinstance(student, MultiHeadRecommender) or len(student.config.heads) < 2:
        raise ConfigError(
            f"ConCF lets the heads of one model teach each other, but {type(student).__name__} has one way of scoring. "
            "Take ConCFModel with two heads or more; to learn from other models, take hetcomp or rrd."
        )
    return student
