"""What is done before anything trains: every setting checked, every domain read, every item encoded."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from pathlib import Path

from ..catalogue import PADDING
from ..config import KNOW_USERS, Experiment
from ..data.columns import IMAGE_FEATURES, PROTOCOLS
from ..errors import ConfigError
from ..recommenders.user_recommender import UserRecommender
from ..settings import make
from .domains import Domain, load_domains
from .kinds import KINDS, reading_of
from .teachers import check_pretrained
from .teaching import method_of
from .training import arguments_for

PLAIN = ("sasrec", "unisrec")  # teachers whose item vectors are as wide as their configuration says


def prepare(experiment: Experiment, *, distils: bool = True) -> dict[str, Domain]:
    """The domains of an experiment. A misspelt field or an item without text is an error now, not hours later.

    Args:
        distils: whether a student is going to be taught; where teachers are only pre-trained it may be any.
    """
    check(experiment, distils=distils)
    for name, teacher in experiment.teachers.items():
        if teacher.pretrained is not None:
            check_pretrained(teacher.pretrained, f"teachers.{name}.pretrained")
    domains = load_domains(experiment)
    check_images(experiment.images.folder, domains)
    if distils:
        check_users(experiment.student.type, domains)
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


def check_protocol(experiment: Experiment, *, distils: bool = True) -> None:
    """Refuse sets to models that are trained on what comes next.

    Raises:
        ConfigError: there is no such protocol, or a teacher or the student would find nothing to learn in it.
    """
    if experiment.protocol not in PROTOCOLS:
        raise ConfigError(f"protocol must be one of {PROTOCOLS}, got {experiment.protocol!r}.")
    if experiment.protocol != "ratio":
        return
    why = (
        "protocol ratio puts items of each user aside at random, whatever their time, and asks for them as a set. {} "
        "learns what comes next, which sets do not tell. {}, or set protocol to loo or temporal."
    )
    for name, teacher in experiment.teachers.items():
        if teacher.stage != "zero_shot" or teacher.pretrained is None:
            instead = "Give one that is not trained here (`pretrained: FOLDER` and `stage: zero_shot`)"
            raise ConfigError(f"teachers.{name}: {why.format(f'A {teacher.type}', instead)}")
    if distils and experiment.student.type not in KNOW_USERS:
        instead = f"Take a student of {KNOW_USERS}"
        raise ConfigError(f"student.type: {why.format(f'A {experiment.student.type}', instead)}")


def check_users(student: str, domains: Mapping[str, Domain]) -> None:
    """Refuse a student that would be asked for users it cannot know.

    Raises:
        ConfigError: the kind answers for the users of training only, and others validate or test.
    """
    model = KINDS[student].model
    if not issubclass(model, UserRecommender) or model.unknown_users:
        return
    for domain in domains.values():
        for part in ("valid", "test"):
            unknown = int((domain.part(part).user == PADDING).sum())
            if unknown:
                raise ConfigError(
                    f"student.type is {student!r}, which answers for users of training only, but {unknown} rows of the "
                    f"{part} part of {domain.name} are of others. Set protocol to loo, or take a student that reads "
                    "histories: sasrec, lightgcn, fm, deepfm."
                )


def check(experiment: Experiment, *, distils: bool = True) -> None:
    """Build every configuration once; and where the experiment `distils`, see that the student can be taught.

    Raises:
        ConfigError: an unknown field, a value that does not fit, models that cannot be trained in the protocol, or a
            student that the method cannot teach.
    """
    check_protocol(experiment, distils=distils)
    kind, settings = KINDS[experiment.student.type], experiment.student.model
    make(kind.config, settings, "student.model")  # alone
    taught = make(kind.config, {**settings, **experiment.distilled_model}, "student.model")
    arguments_for(experiment, "student", 0, experiment.student.training, experiment.distillation)
    widths = []
    for name, teacher in experiment.teachers.items():
        config = make(KINDS[teacher.type].config, teacher.model, f"teachers.{name}.model")
        # the others may be wider than their configuration says
        widths.append(config.hidden_size if teacher.type in PLAIN and teacher.pretrained is None else inf)
        reading_of(experiment, teacher, f"teachers.{name}")
        arguments_for(experiment, name, 0, teacher.training, teacher.pretraining or {})
    if not distils:
        return
    if experiment.warm_start and sum(widths) < taught.hidden_size:
        raise ConfigError(
            f"warm_start draws the {taught.hidden_size} columns of the student's item table from its teachers' item "
            f"vectors, which together are {sum(widths)} wide. Widen the teachers, or set warm_start to false."
        )
    method_of(experiment).prepare(kind.model(taught), {})  # of one item and one user
