from __future__ import annotations

from seqkd.config import KNOW_USERS, STUDENTS, TEACHERS
from seqkd.pipeline import KINDS
from seqkd.recommenders.user_recommender import UserRecommender

OF_STREAMS = {"cml", "neumf", "multvae", "itemae"}  # teachers and students of a stream alone


def test_every_type_of_the_settings_is_a_kind():
    assert {*STUDENTS, *TEACHERS, *OF_STREAMS} == set(KINDS)
    know_users = {name for name, kind in KINDS.items() if issubclass(kind.model, UserRecommender)}
    assert {*KNOW_USERS, *OF_STREAMS} == know_users
