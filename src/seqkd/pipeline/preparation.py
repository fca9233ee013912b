"""What is done before anything trains: every setting checked, every domain read, every item encoded."""

from __future__ import annotations

from ..config import Experiment, make
from ..models.sasrec import SASRecConfig
from .domains import Domain, load_domains
from .kinds import KINDS, reading_of
from .teaching import method_of
from .training import arguments_for


def prepare(experiment: Experiment) -> dict[str, Domain]:
    """The domains of an experiment. A misspelt field or an item without text is an error now, not hours later."""
    check(experiment)
    domains = load_domains(experiment)
    for name, teacher in experiment.teachers.items():
        content = KINDS[teacher.type].content
        if content is not None:
            for domain in domains.values():
                content(domain, reading_of(experiment, teacher, f"teachers.{name}"), teacher.model)
    return domains


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
