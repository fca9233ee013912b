"""What is done before anything trains: every setting checked, every domain read, every item encoded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..columns import IMAGE_FEATURES
from ..config import Experiment, make
from ..errors import ConfigError
from ..models.sasrec import SASRecConfig
from .domains import Domain, load_domains
from .kinds import KINDS, reading_of
from .teaching import method_of
from .training import arguments_for


def prepare(experiment: Experiment) -> dict[str, Domain]:
    """The domains of an experiment. A misspelt field or an item without text is an error now, not hours later."""
    check(experiment)
    domains = load_domains(experiment)
    check_images(experiment.images.folder, domains)
    for name, teacher in experiment.teachers.items():
        content = KINDS[teacher.type].content
        if content is not None:
            for domain in domains.values():
                content(domain, reading_of(experiment, teacher, f"teachers.{name}"), teacher.model)
    return domains


def check_images(folder: str | None, domains: Mapping[str, Domain]) -> None:
    """Refuse a folder of images that would be passed over.

    Raises:
        ConfigError: it does not exist, has nothing for any domain, or the data brings image vectors already.
    """
    if folder is None:
        return
    if not Path(folder).is_dir():
        raise ConfigError(f"images.folder is {folder!r}, which is no folder. It holds <domain>/<item_id>.jpg.")
    without = [name for name, domain in domains.items() if IMAGE_FEATURES not in domain.items.column_names]
    if not without:
        raise ConfigError(
            f"images.folder is {folder!r}, but all domains bring image vectors (column {IMAGE_FEATURES}), which are "
            "taken instead. Leave images.folder out, or the column."
        )
    if not any((Path(folder) / name).is_dir() for name in without):
        raise ConfigError(
            f"images.folder {folder!r} has no folder for any of the domains {without}. Put the images of "
            f"{without[0]!r} into {Path(folder) / without[0]}."
        )


def check(experiment: Experiment) -> None:
    """Build every configuration once.

    Raises:
        ConfigError: an unknown field or a value that does not fit.
    """
    make(SASRecConfig, {**experiment.student.model, **experiment.distilled_model}, "student.model")
    arguments_for(experiment, "student", 0, experiment.student.training, experiment.distillation)
    for name, teacher in experiment.teachers.items():
        make(KINDS[teacher.type].config, teacher.model, f"teachers.{name}.model")
        reading_of(experiment, teacher, f"teachers.{name}")
        arguments_for(experiment, name, 0, teacher.training, teacher.pretraining or {})
    method_of(experiment)
