"""The model card: what was distilled from what, or pre-trained on what, how to use it, results and their limits."""

from __future__ import annotations

import json
import operator
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import ModelCard
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from ..catalogue import Catalogue
from ..data.columns import PROTOCOLS
from ..errors import DataError
from ..evaluation.report import table
from ..evaluation.results import Result
from ..files.hub import CARD, EVAL_RESULTS
from ..files.markdown import line, plain
from ..method import Method
from ..recommenders.multi_head import MultiHeadRecommender
from ..recommenders.recommender import RecommenderModel
from ..recommenders.user_recommender import UserRecommender
from .metadata import front_matter, write_eval_results

SIMPLE_ID = re.compile(r"[\w.:/-]{1,40}")
REPOSITORY = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)
LIMITS = {
    "loo": "Leave-one-out puts the last item of every user aside, whenever it was bought: training sees other users' "
    "interactions that are newer than a test item. Numbers of a live system are lower.",
    "temporal": "Test interactions all lie behind one point in time; tastes and catalogues that changed since are not "
    "measured.",
    "preset": "The split is the data's own: whether it leaks the future is up to who made it.",
    "ratio": "A random fifth of every user's interactions is put aside for test, whenever they were made: training "
    "sees what the same user did later. Time plays no part, so the numbers compare with those of no other protocol, "
    "and those of a live system are lower.",
    "synthetic": "Numbers on synthetic data show that the method works where text and taste carry signal by "
    "construction. They say nothing about real users.",
    "cold": "An item that had no interactions in training is hardly ever recommended, and an item that is not in "
    "`item_ids.json` never, until `add_items` is called.",
    "popular": "Popular items are recommended more often than their share, as in the interactions; what teachers and "
    "student have in common is taken over, biases included.",
    "no_history": "A history without a known item is answered by popularity.",
    "new_user": "A user who is not in `user_ids.json`, with a history without a known item, is answered by popularity.",
    "known_users": "A user who is not in `user_ids.json` gets no answer, not even the most popular items.",
    "zero_shot": "Results are zero-shot: the model had no training beyond pre-training. That had seen the training "
    "interactions of these very domains, and numbers of a domain that it never saw are lower.",
    "content": "Items are told apart by their content alone. Items without any, or in words that the encoder does "
    "not know, are ranked all alike.",
    "popular_teacher": "Popular items are recommended more often than their share, as in the interactions, and "
    "students take that over.",
    "reconstructed": "Where a paper leaves a formula open, seqkd's reconstruction is used; `docs/papers.md` of seqkd "
    "tells what is stated and what is reconstructed.",
}


class Paper(NamedTuple):
    """A paper with its address."""

    name: str
    id: str
    url: str


def write_card(
    folder: str | os.PathLike,
    *,
    model: RecommenderModel,
    name: str,
    seed: int,
    results: Sequence[Result] = (),
    teachers: Mapping[str, str] | None = None,
    methods: Sequence[Method] = (),
    data: Sequence[str] = (),
    training: Mapping[str, Any] | None = None,
    limits: Sequence[str] = (),
    pretrained_on: Sequence[str] = (),
    papers: Mapping[str, str] | None = None,
    ks: Sequence[int] = (10, 50),
    repository: str = "user/name",
    base_model: Sequence[str] = (),
    datasets: Mapping[str, str] | None = None,
    license: str | None = None,
) -> Path:
    """Write README.md and `.eval_results/*.yaml` beside the saved model, and return the path of README.md.

    Whatever comes from outside (names, descriptions, item ids) is escaped; a card shows it and never obeys it.

    Args:
        name: of the model in `folder`, as in `Result.model`. seed: the one its weights were trained with. Their own
            results go to the metadata; the table shows means over all seeds and all models.
        results: of all models on the domains that this one serves.
        teachers: name -> one sentence on what it is and what it was trained on.
        data: one line for each data set. training: e.g. learning rate, epochs, batch, seeds.
        limits: beside those that always hold.
        pretrained_on: makes it the card of a pre-trained teacher, `results` being zero-shot: one line for each domain,
            with its users, items and interactions. Let `training` say by what loss, and who encoded texts and images.
        papers: name -> e.g. "arXiv:2206.05941", beside those of the methods.
        repository: the Hub repository that the code example names.
        base_model: Hub ids of teachers or text encoders, if they come from the Hub.
        datasets: domain -> Hub id of its data set, for domains that have one.
        license: e.g. "apache-2.0"; nothing is assumed, data and teachers have licences of their own.

    Raises:
        DataError: there are results, but none of model `name` with seed `seed` and as many parameters (a teacher's
            head for pre-training is not among those that recommend), or `repository` cannot be one.
    """
    if not REPOSITORY.fullmatch(repository):
        raise DataError(f"repository {repository!r} is no Hub repository. Write user/name.")
    folder = Path(folder)
    own = [result for result in results if (result.model, result.seed) == (name, seed)]
    if results and not own:
        known = sorted({(result.model, result.seed) for result in results})
        raise DataError(
            f"no result of model {name!r} with seed {seed}; there are {known}. Name the model in the folder."
        )
    description = _describe(model)
    fits = operator.le if pretrained_on else operator.eq
    for result in own:
        if not fits(result.parameters, description["parameters"]):
            raise DataError(
                f"the result of {name!r} on {result.domain!r} is of a model with {result.parameters} parameters, but "
                f"this one has {description['parameters']}. Give only results of the domains that this model serves."
            )
    sequential = not isinstance(model, UserRecommender)
    metadata = front_matter(
        name, own, base_model, datasets or {}, license, distilled=bool(methods), sequential=sequential
    )
    card = ModelCard(
        _environment()
        .from_string(resources.files(__package__).joinpath("model_card.jinja").read_text(encoding="utf-8"))
        .render(
            front_matter=Markup(metadata.to_yaml()),
            title=name,
            seed=seed,
            model=description,
            teachers=teachers or {},
            pretrained_on=pretrained_on,
            methods=[_settings(method) for method in methods],
            repository=Markup(repository),
            example=Markup(_example(model.catalogue, 3, "an item id")),
            user=Markup(_example(model.users, 1, "a user id")),
            results=Markup(table(results, ks, escape=plain)) if results else None,
            data=data,
            training=training or {},
            limits=[*_limits(model, results, methods, bool(pretrained_on)), *limits],
            papers=_papers({**{type(method).__name__: method.paper for method in methods}, **(papers or {})}),
        )
    )
    folder.mkdir(parents=True, exist_ok=True)
    card.save(folder / CARD)
    write_eval_results(folder / EVAL_RESULTS, own, datasets or {})
    return folder / CARD


def _environment() -> Environment:
    """Whatever a template shows is escaped, but for what this file has marked as Markdown."""
    return Environment(
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        finalize=lambda value: value if isinstance(value, Markup) else plain(value),
    )


def _example(catalogue: Catalogue | None, count: int, instead: str) -> str:
    """Ids for the code example; only such as can stand in code."""
    ids = [name for name in (catalogue.item_ids if catalogue else ()) if SIMPLE_ID.fullmatch(name)]
    return ", ".join(json.dumps(name, ensure_ascii=False) for name in ids[:count]) or f'"{instead}"'


def _settings(method: Method) -> dict[str, str]:
    """The method's switches in a code span, which only a backtick could end."""
    settings = json.dumps(asdict(method.config), default=str).replace("`", "'")
    return {"name": type(method).__name__, "settings": Markup(f"`{line(settings)}`")}


def _describe(model: RecommenderModel) -> dict[str, Any]:
    head = f", head {model.config.head}" if isinstance(model, MultiHeadRecommender) else ""
    knows = isinstance(model, UserRecommender)
    users = {"num_users": model.config.num_users, "unknown_users": model.unknown_users} if knows else {}
    return {
        "type": f"{type(model).__name__}{head}",
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "num_items": model.config.num_items,
        "max_length": model.config.max_position_embeddings,
        "knows_users": knows,
        **users,
    }


def _limits(
    model: RecommenderModel, results: Sequence[Result], methods: Sequence[Method], pretrained: bool
) -> list[str]:
    wanted = [key for key in PROTOCOLS if any(result.protocol == key for result in results)]
    wanted += ["synthetic"] if any("synthetic" in result.data.lower() for result in results) else []
    wanted += ["zero_shot"] if pretrained and results else []
    wanted += ["content", "popular_teacher"] if pretrained else ["cold", "popular"]
    if isinstance(model, UserRecommender):
        wanted += ["new_user" if model.unknown_users else "known_users"]
    else:
        wanted += ["no_history"]
    wanted += ["reconstructed"] if methods else []
    return [Markup(LIMITS[key]) for key in wanted]


def _papers(papers: Mapping[str, str]) -> list[Paper]:
    found = []
    for name, identifier in papers.items():
        number = identifier.removeprefix("arXiv:").removeprefix("doi:")
        host = "https://arxiv.org/abs/" if re.fullmatch(r"\d{4}\.\d{4,5}", number) else "https://doi.org/"
        found.append(Paper(name, identifier, host + number))
    return found
