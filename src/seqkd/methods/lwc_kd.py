"""LWC-KD with personalised imitation weights, as CCD (arXiv 2405.19046) has it: what keeps a model that is trained on
the next block of a stream near to what it was before.

Layer-wise contrastive distillation (Wang et al., CIKM 2021) and imitation weights (Wang et al., arXiv 2305.01204).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..knowledge import Knowledge
from ..method import Epoch, Method
from ..models.lightgcn import LightGCNModel
from ..models.mf import MFModel
from ..recommenders.recommender import RecommenderModel, RecommenderOutput
from ..teaching.lwc_block import check_grown, graph_of, neighbours_in
from ..teaching.lwc_contrast import NeighbourContrast, Side
from ..teaching.lwc_imitation import ImitationWeights

Layered = LightGCNModel | MFModel


@dataclass(frozen=True)
class LWCKDConfig:
    """The coefficients of CCD's release, of means over the entities of a batch.

    The release adds them to a BPR loss that is a sum over 2,048 pairs, beside which they do nothing (measured: the same
    metrics to four digits). Here that loss is a mean as well; the release is this method at a weight of 1/2048.
    """

    contrast: float = 0.01  # of each of the four contrasts
    cluster: float = 1.0  # of the clustering, which teaches the clusters alone
    temperature: float = 5.0  # tau of the contrasts
    clusters: int = 10  # J
    degree: float = 10.0  # neighbours of a user among users, of an item among items; on average, 0.6 more or fewer
    # To be quick: at most so many users and so many items of a batch, drawn from those that have neighbours, which
    # leaves the loss as it is on average; and so many drawn entities for all who are no neighbours, see `estimate`.
    max_entities: int | None = None
    candidates: int | None = None
    release: bool = False  # all weights 1, to which the release's product of (B, 1) and (B,) amounts

    def __post_init__(self) -> None:
        for name in ("temperature", "degree"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be above 0, got {getattr(self, name)}.")
        for name in ("contrast", "cluster"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} must be at least 0, got {getattr(self, name)}.")
        for name in ("clusters", "max_entities", "candidates"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}.")


class LWCKD(Method):
    """`contrast (UI + IU + UU + II) + cluster KL`, one loss for the batch; each contrast is a mean over its entities.

    Old vectors, at layers 0 and 1 of LightGCN or in the one layer of MF, are contrasted with the current vectors of all
    who were known: neighbours are what a user had in the block before and who had an item (UI, IU), and whose sets are
    alike (UU, II). A user's imitation weight multiplies UI and UU. No teacher is needed.

    Memory: the old vectors, L (U + I) D floats, are saved with the run. A step of the exact loss costs some
    4 L (n_U + n_I) (U + I) D multiplications: on the first blocks of Yelp, at width 128 with batches of 2,048, 2.6 s
    of one thread; with `candidates=1024` 0.3 s, and with `max_entities=256` beside it 0.1 s.

    Args:
        before: the model after the block before; by default the student as it is handed over. Ids mean the same in
            both, and the student may have more of them.
        edges: `(2, E)` users and items of the block before; by default that model's own graph.
    """

    config_class = LWCKDConfig
    config: LWCKDConfig
    paper = "doi:10.1145/3459637.3482117"
    old_users: Tensor  # (L, U+1, D)
    old_items: Tensor  # (L, I+1, D)
    imitation: ImitationWeights
    block_items: Tensor  # (n,) the items of this block

    def __init__(
        self, config: LWCKDConfig | None = None, before: RecommenderModel | None = None, edges: Tensor | None = None
    ) -> None:
        super().__init__(config)
        self._before = (before, edges)  # in a tuple, lest the old model be trained and saved with the method

    def prepare(self, student: RecommenderModel, knowledge: Mapping[str, Knowledge]) -> None:
        given, edges = self._before
        before, student = with_layers(student if given is None else given), with_layers(student)
        check_grown(before, student)
        edges = graph_of(before) if edges is None else edges
        for name, layers in zip(("old_users", "old_items"), layers_of_old(before), strict=True):
            self.register_buffer(name, layers)

        config = self.config
        how = config.temperature, config.max_entities, config.candidates
        graphs = neighbours_in(edges, before.config.num_users, before.config.num_items, config.degree)
        self.contrasts = nn.ModuleDict({name: NeighbourContrast(graph, *how) for name, graph in graphs.items()})

        bought = edges[1].cpu().unique()
        if len(bought) < config.clusters:
            raise ConfigError(f"{len(bought)} items make no {config.clusters} clusters. Set clusters to fewer.")
        begin = bought[torch.randperm(len(bought))[: config.clusters]].to(self.old_items.device)
        self.imitation = ImitationWeights(self.old_items[:, begin].mean(dim=0))

    def on_epoch_begin(self, epoch: Epoch) -> None:
        self.block_items = torch.from_numpy(epoch.positives.keys % (epoch.positives.num_items + 1)).unique()

    def forward(
        self,
        student: RecommenderModel,
        batch: Mapping[str, Tensor],
        output: RecommenderOutput,
        knowledge: Mapping[str, Mapping[str, Tensor]],
    ) -> Tensor:
        users, items = layers_of(cast(Layered, student))
        with torch.autocast(student.device.type, enabled=False):
            terms, cluster = self.terms(batch, users, items)
        told = {**terms, "cluster": cluster}
        self.statistics = {name: term.detach().expand(len(batch["query_ids"])) for name, term in told.items()}
        return self.config.contrast * torch.stack([*terms.values()]).sum() + self.config.cluster * cluster

    def terms(
        self, batch: Mapping[str, Tensor], users: list[Tensor], items: list[Tensor]
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The four contrasts, by whose old vectors face whose current ones, and the clustering, `()` each."""
        sides = {"u": Side.of(batch["user_ids"], self.old_users, users)}
        sides["i"] = Side.of(batch["targets"], self.old_items, items)
        if not self.config.release:
            sides["u"] = sides["u"]._replace(weights=self.imitation(*sides["u"].before_and_now()))
        contrasts = {name: term(sides[name[0]], sides[name[1]]) for name, term in self.contrasts.items()}
        block_items = self.block_items.to(self.old_items.device)
        cluster = self.imitation.clustering(torch.stack([layer[block_items] for layer in items]).mean(dim=0))
        return contrasts, cluster


def with_layers(model: RecommenderModel) -> Layered:
    """Raises:
    ConfigError: it has no vectors of users and items that can be compared with each other and among themselves.
    """
    if isinstance(model, (LightGCNModel, MFModel)):
        return model
    raise ConfigError(
        f"LWC-KD compares users and items layer by layer with what they were, which {type(model).__name__} does not "
        "offer. Take MF or LightGCN."
    )


def layers_of(model: Layered) -> tuple[list[Tensor], list[Tensor]]:
    """Users `(U+1, D)` and items `(I+1, D)` at layers 0 and 1 of LightGCN, or in the one layer of MF."""
    own = [model.user_embedding.weight], [model.item_embedding.weight]
    if isinstance(model, LightGCNModel):
        for layers, mean in zip(own, model._propagated(1), strict=True):
            layers.append(2 * mean - layers[0])
    return own


@torch.no_grad()
def layers_of_old(model: Layered) -> tuple[Tensor, Tensor]:
    """Copies, without dropout: users `(L, U+1, D)` and items `(L, I+1, D)`."""
    was_training = model.training
    users, items = layers_of(model.eval())
    model.train(was_training)
    return torch.stack(users), torch.stack(items)
