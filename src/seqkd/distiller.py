"""The distiller: a student, the methods that teach it and the knowledge they read. It is the model that is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from .batches.collators import UNLABELLED
from .errors import ConfigError, KnowledgeError
from .knowledge import Knowledge
from .method import Method, SoftLabels
from .recommenders.recommender import RecommenderModel


class Distiller(nn.Module):
    """Runs the student once, then every method on its output. Without methods it trains the student alone.

    Args:
        student: the product; `distiller.student.save_pretrained(...)` is all that is served.
        methods: by name, e.g. `{"ckd_mdsr": CKDMDSR()}`.
        weights: loss weight (lambda) of each method; 1 where not given.
        knowledge: by teacher, e.g. `{"unisrec": Knowledge.from_pretrained(...)}`; all about the same training part.
        label_weight: weight of the recommendation loss itself; with 0 it is not computed.

    Raises:
        KnowledgeError: a method reads a table that a teacher did not export, or there is no teacher at all.
        ConfigError: a weight names no method, or there is nothing to learn: no method, and labels have no weight.
    """

    def __init__(
        self,
        student: RecommenderModel,
        methods: Mapping[str, Method] | None = None,
        weights: Mapping[str, float] | None = None,
        knowledge: Mapping[str, Knowledge] | None = None,
        label_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.student = student
        taught = dict(methods or {})
        self.methods = nn.ModuleDict(taught)
        self.weights = {name: float((weights or {}).get(name, 1.0)) for name in self.methods}
        self.label_weight = label_weight
        if not taught and not label_weight:
            raise ConfigError("there is nothing to learn: no method is given, and label_weight is 0.")
        self.knowledge = dict(knowledge or {})
        if {"label", "loss"} & set(taught):
            raise ConfigError("a method cannot be called 'label' or 'loss': these are terms of the loss already.")
        if any("/" in name for name in taught):
            raise ConfigError(f"a method's name holds no '/', which stands before its statistics; got {[*taught]}.")
        unknown = set(weights or {}) - set(self.methods)
        if unknown:
            raise ConfigError(f"weights name {sorted(unknown)}, but the methods are {sorted(self.methods)}.")
        self.tables: frozenset[str] = frozenset().union(*(method.requires for method in taught.values()))
        self.read: frozenset[str] = frozenset().union(*(method.reads for method in taught.values()))
        self._check_tables()
        for method in taught.values():
            method.prepare(student, self.knowledge)
        self._item_tables: dict[str, dict[str, Tensor]] = {}

    def _check_tables(self) -> None:
        if self.tables and not self.knowledge:
            raise KnowledgeError(
                f"the methods {sorted(self.methods)} read the knowledge tables {sorted(self.tables)}, but there is no "
                "teacher. Give at least one."
            )
        for teacher, knowledge in self.knowledge.items():
            missing = self.tables - set(knowledge.tables)
            if missing:
                raise KnowledgeError(
                    f"teacher {teacher!r} exported {sorted(knowledge.tables)}, but {sorted(missing)} is needed too. "
                    f"Export it again with tables={tuple(sorted(self.tables))}."
                )
            if self.student.catalogue is not None:
                knowledge.check(catalogue=self.student.catalogue)

    def look_up(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Add every teacher's rows for the queries of a batch, as `teacher/table`."""
        for teacher, knowledge in self.knowledge.items():
            for table in self.read:
                if table.startswith("query_"):
                    batch[f"{teacher}/{table}"] = knowledge.rows(table, batch["query_ids"])
        return batch

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        """Named loss terms and their weighted sum, `loss`; each a mean over the queries of the whole optimizer step.

        So are the statistics of the methods, called `<method>/<name>`; they are no part of the loss.

        Args:
            batch: of `QueryCollator`, with `teacher/table` rows of `look_up`; `num_labelled` and `num_queries` of the
                optimizer step when this batch is only part of it.
        """
        targets = batch["targets"]
        labelled = targets != UNLABELLED
        num_labelled = batch["num_labelled"] if "num_labelled" in batch else labelled.sum().clamp(min=1)
        num_queries = batch["num_queries"] if "num_queries" in batch else torch.tensor(float(len(targets)))
        num_labelled, num_queries = num_labelled.to(targets.device), num_queries.to(targets.device)

        output = self.student(**{name: batch[name] for name in self.student.inputs})
        share = labelled * (num_queries / num_labelled)  # the mean over labelled queries as one over all
        labels: dict[str, SoftLabels] = {}
        weights = {"label": self.label_weight, **self.weights}
        per_query: dict[str, Tensor] = {}
        if self.label_weight and self.student.config.loss_type == "softmax":
            labels["label"] = SoftLabels(targets.clamp(min=0)[:, None], share[:, None])
        elif self.label_weight:
            drawn = {"negatives": batch["negatives"]} if "negatives" in batch else {}
            loss = self.student.training_loss(output, targets, batch.get("step_targets"), **drawn)
            per_query["label"] = loss * share
        knowledge = self._knowledge_of(batch)
        statistics: dict[str, Tensor] = {}
        for name, method in self.methods.items():
            answer = method(self.student, batch, output, knowledge)
            if isinstance(answer, SoftLabels):
                labels[name] = answer
            else:
                per_query[name] = answer if answer.dim() else answer.expand(len(targets))
            for told, values in cast(Method, method).statistics.items():
                statistics[f"{name}/{told}"] = values.detach().sum() / num_queries
        per_query.update(self._soft_label_losses(output.query_embeddings, labels))

        terms = {name: loss.sum() / num_queries for name, loss in per_query.items()}
        total = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
        return {"loss": total, **{name: term.detach() for name, term in terms.items()}, **statistics}

    def _soft_label_losses(self, query_embeddings: Tensor, labels: Mapping[str, SoftLabels]) -> dict[str, Tensor]:
        """All soft labels in one pass over the catalogue: each `(Q,)` cross-entropy."""
        if not labels:
            return {}
        items = torch.cat([label.items for label in labels.values()], dim=1)
        log_probs = self.student.catalogue_log_probs(query_embeddings, items)
        parts = log_probs.split([label.items.shape[1] for label in labels.values()], dim=1)
        return {
            name: -(label.probs * part).sum(dim=1) for (name, label), part in zip(labels.items(), parts, strict=True)
        }

    def _knowledge_of(self, batch: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
        device = batch["targets"].device
        for teacher, knowledge in self.knowledge.items():
            if teacher not in self._item_tables:
                whole = [table for table in self.read if table.startswith("item_")]
                self._item_tables[teacher] = {table: knowledge.table(table).to(device) for table in whole}
        return {
            teacher: {
                **self._item_tables[teacher],
                **{table: batch[f"{teacher}/{table}"] for table in self.read if table.startswith("query_")},
            }
            for teacher in self.knowledge
        }
