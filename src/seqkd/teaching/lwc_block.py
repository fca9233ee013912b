"""The block before, where LWC-KD (doi:10.1145/3459637.3482117) finds neighbours, and the model that came out of it."""

from __future__ import annotations

from torch import Tensor

from ..batches.edges import Neighbours, distinct_edges
from ..errors import ConfigError
from ..functional.cosine_graph import cosine_graph
from ..recommenders.edge_recommender import EdgeRecommender
from ..recommenders.user_recommender import UserRecommender


def neighbours_in(edges: Tensor, num_users: int, num_items: int, degree: float) -> dict[str, Neighbours]:
    """Whom each user and each item is near to, on the CPU: what users had (`ui`) and who had items (`iu`), and among
    users (`uu`) and among items (`ii`) those whose sets are alike, on average `degree` of them.

    Raises:
        DataError: `edges (2, E)` name a user or an item that the model before does not have.
    """
    users, items = distinct_edges(edges, num_users, num_items).cpu().long()
    return {
        "ui": Neighbours.of(users, items, num_users),
        "iu": Neighbours.of(items, users, num_items),
        "uu": alike(users, items, num_users, degree),
        "ii": alike(items, users, num_items, degree),
    }


def alike(owners: Tensor, members: Tensor, num_owners: int, degree: float) -> Neighbours:
    """Those whose sets are alike, for each owner."""
    first, second = cosine_graph(owners, members, num_owners, degree=degree)
    return Neighbours.of(first, second, num_owners)


def graph_of(model: UserRecommender) -> Tensor:
    """`(2, E)`, who had what in the block that the model was trained on.

    Raises:
        ConfigError: the model holds no graph.
    """
    if not isinstance(model, EdgeRecommender):
        raise ConfigError(
            f"{type(model).__name__} does not hold the interactions of the block before, among which LWC-KD finds "
            "neighbours. Give them: LWCKD(before=model, edges=edges_of(train of that block))."
        )
    model.check_edges()
    return model.edges


def check_grown(before: UserRecommender, student: UserRecommender) -> None:
    """Raises:
    ConfigError: the student is not what the model before has grown to.
    """
    if type(before) is not type(student) or before.config.hidden_size != student.config.hidden_size:
        kinds = [f"{type(model).__name__} of width {model.config.hidden_size}" for model in (student, before)]
        raise ConfigError(f"LWC-KD compares a model with what it was: {kinds[0]} with {kinds[1]} does not go together.")
    for kind, was, now, known, ids in (
        ("users", before.config.num_users, student.config.num_users, before.users, student.users),
        ("items", before.config.num_items, student.config.num_items, before.catalogue, student.catalogue),
    ):
        if was > now or (known is not None and ids is not None and ids.item_ids[: len(known)] != known.item_ids):
            raise ConfigError(
                f"the model before knows {was} {kind}, and the student's {now} do not begin with these. Grow the "
                "student from that model, so that ids go on meaning the same."
            )
