"""What a distillation method is: one paper's idea, as a module that answers with a loss or with soft labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

from torch import Generator, Tensor, nn

from .batches.curriculum import Curriculum
from .batches.positives import Positives
from .knowledge import Knowledge
from .recommenders.recommender import RecommenderModel, RecommenderOutput


class SoftLabels(NamedTuple):
    """A target distribution over the catalogue, sparse: `items (Q, M)` and their weights `probs (Q, M)`.

    The loss is `-sum(probs * log q(items))` with q the student's softmax over the whole catalogue. Methods that can
    say what they want in this form should: the distiller lays all soft labels and the hard label into one pass over
    the catalogue, so a further method costs next to nothing.
    """

    items: Tensor
    probs: Tensor


class Epoch(NamedTuple):
    """What is known when an epoch begins, the same however often it is begun (a resumed run begins it again).

    All but `student_topk`: a run that resumes in mid-epoch asks a later student. What is made of its answer belongs
    into persistent buffers, with a mark by which a method that finds it made returns early.
    """

    number: int  # from 0
    num_epochs: float
    generator: Generator  # on the CPU, seeded by the run's seed, the epoch and the method
    positives: Positives  # what users have, so that it is no negative
    student_topk: Callable[[int], Tensor]  # k to the student's best k items of every query, see `best_items`
    num_steps: int = 1  # optimizer steps of one epoch; with 1, what is spread over an epoch is done in every step


class Method(nn.Module):
    """Base of all methods. Parameters and buffers of a subclass are optimised, saved and resumed with the run.

    Class attributes:
        config_class: a frozen dataclass with the paper's defaults.
        paper: arXiv id or DOI; goes to the model card.

    Attributes:
        statistics: numbers of the last forward that are worth logging, `(Q,)` each, without gradient. The trainer logs
            their mean over queries as `<method>/<name>`; what is said about a teacher is called `<teacher>/<name>`.
    """

    config_class: ClassVar[type]
    paper: ClassVar[str]

    def __init__(self, config: Any = None) -> None:
        super().__init__()
        self.config = config if config is not None else self.config_class()
        self.statistics: Mapping[str, Tensor] = {}

    @property
    def requires(self) -> frozenset[str]:
        """Knowledge tables read from every teacher; checked when the distiller is built."""
        return frozenset()

    def prepare(self, student: RecommenderModel, knowledge: Mapping[str, Knowledge]) -> None:
        """Build what depends on widths and sizes; the distiller calls it once, before anything is trained or loaded.

        Raises:
            ConfigError: the method cannot teach this student. KnowledgeError: what a teacher says does not fit.
        """

    def on_epoch_begin(self, epoch: Epoch) -> None:
        """Anneal, draw lists anew, or look at the student; see `Epoch` for what survives a resume."""

    @property
    def reads(self) -> frozenset[str]:
        """Those of the required tables that `forward` is given; the others are read in `prepare` or the hook alone."""
        return self.requires

    def forward(
        self,
        student: RecommenderModel,
        batch: Mapping[str, Tensor],
        output: RecommenderOutput,
        knowledge: Mapping[str, Mapping[str, Tensor]],
    ) -> Tensor | SoftLabels:
        """One loss per query `(Q,)`, a scalar loss `()`, or `SoftLabels`; never reduced over queries.

        Args:
            batch: see `QueryCollator` and `PairCollator`, and `step_targets (C,)`, `step_query_ids (S,)`: labels and
                queries of the whole optimizer step, whatever micro-batches and processes carry it; `progress ()`:
                share of all steps that are done.
            knowledge: for each teacher its tables; `query_*` are rows of this batch's queries, `(Q, ...)`,
                `item_*` are whole tables, `(I+1, ...)`.
        """
        raise NotImplementedError

    def curriculum(self) -> Curriculum | None:
        """The order in which queries are unlocked, if the method has one."""
        return None
