from __future__ import annotations

from seqkd.config import KNOW_USERS, STUDENTS, TEACHERS
from seqkd.pipeline import KINDS
from seqkd.recommenders.user_recommender import UserRecommender


def test_every_type_of_the_settings_is_a_kind():
    assert set(STUDENTS) | set(TEACHERS) == set(KINDS)
    assert set(KNOW_USERS) == {name for name, kind in KINDS.items() if issubclass(kind.model, UserRecommender)}
