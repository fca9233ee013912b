"""The steps of a distillation as functions: domains, teachers, their knowledge, students, and what is measured."""

from .domains import SYNTHETIC, Domain, histories_of, load_domains, users_of
from .kinds import KINDS, reading_of
from .measuring import about, measure, say
from .preparation import check, prepare
from .students import distil, start_from_teachers, train_alone
from .teachers import checkpoint_folder, fit, new_teacher, pretrain_teacher, train_teacher
from .teaching import ask, method_of, teach
from .training import arguments_for, new_model, train

__all__ = [
    "KINDS",
    "SYNTHETIC",
    "Domain",
    "about",
    "arguments_for",
    "ask",
    "check",
    "checkpoint_folder",
    "distil",
    "fit",
    "histories_of",
    "load_domains",
    "measure",
    "method_of",
    "new_model",
    "new_teacher",
    "prepare",
    "pretrain_teacher",
    "reading_of",
    "say",
    "start_from_teachers",
    "teach",
    "train",
    "train_alone",
    "train_teacher",
    "users_of",
]
