"""A model grows to a block of a stream: new users and items start where their neighbours are.

The initialisation of CCD (KDD 2024, arXiv 2405.19046). By the training part of the block, a new user has

    linked    the old items that he has,
    similar   the m busiest of the old users who share an item with him, old or new; where these are fewer than m, all
              of them and the busiest of the other old users,

and begins at half the mean of the linked and half the mean of the similar rows; items likewise, with users and items
exchanged. Busy is who has many items in the block; of two equally busy ones the older comes first.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, cast, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..batches.collators import ranges
from ..catalogue import PADDING, Catalogue
from ..data.stream import Block
from ..errors import ConfigError, DataError
from ..recommenders.recommender import RecommenderModel
from ..recommenders.user_recommender import UserRecommender
from .lengths import lengthened, peer_lengths

Init = Literal["neighbours", "one_hop", "random", "zeros", "mean"]
Lengths = Literal["mean", "peers"]


@torch.no_grad()
def grow(
    model: RecommenderModel,
    block: Block,
    *,
    init: Init = "neighbours",
    neighbours: int = 20,
    lengths: Lengths = "mean",
    release: bool = False,
    seed: int = 0,
    content: Any = None,
) -> None:
    """Extend a model, in place, to the users and items of a block: once for each block, before it is trained on it.

    Old rows stay bit-equal, new ones follow in the order of the block's ids. The training interactions of the block are
    added to `item_counts`. The edges of a graph stay as they are, and an optimizer made before holds the old tables.

    A table that does not lie in one space with one of the other side (the weights of an FM, what an MLP or an
    autoencoder reads, the items of a model without users) takes the mean of the similar rows alone.

    Args:
        init: how new rows start. `neighbours`: see the module. `one_hop`: at the mean of the linked rows. `random`: as
            the model itself did, by `seed`. `zeros`. `mean`: at that of all old rows.
        neighbours: m.
        lengths: of rows that start near others. `mean`: of the mean itself. `peers`: of old rows as busy in the block,
            see `peer_lengths`.
        release: what the authors' code does beyond the paper. Who has nothing linked gets half the mean of the similar
            rows (`one_hop`: zeros), and who has exactly m candidates the mean of all old rows. By default the first
            gets the whole mean, since that nothing is known of one half does not say that scores are half as large,
            which is all that a shorter item says (`one_hop`: the mean of all old rows), the second the mean of the m.
        content: of the new items, a row for each, as `model.add_items` takes it in `features` (UniSRec, Recformer) or
            `teacher_embeddings` (SASRec, see `fit_item_projection`). New items then start from it, whatever `init`.

    Raises:
        DataError: the model's users or items are not the first of the block's, or `content` is missing or does not fit.
        ConfigError: an unknown `init` or `lengths`, m below 1, `content` for a model that takes none, a model that was
            not told its ids, or `one_hop` for one whose users and items do not share a space.
    """
    _check(model, block, init, neighbours, lengths, content)
    new_items, new_users = _following(model.catalogue, block.catalogue, "items"), []
    if isinstance(model, UserRecommender):
        new_users = _following(model.users, block.users, "users")
    if new_items:
        model.add_items(new_items, **({} if content is None else {str(model.content_argument): content}))
    if isinstance(model, UserRecommender):
        model.add_users(new_users)
    users, items = block.pairs()
    model.item_counts += torch.from_numpy(np.bincount(items, minlength=len(model.item_counts))).to(model.item_counts)
    if init == "mean":  # so they are
        return

    users, items = np.unique(np.stack([users, items]), axis=1)
    known_users, known_items = len(block.users) - len(new_users), len(block.catalogue) - len(new_items)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if new_users:
            near = relatives(users, items, (known_users, known_items), len(new_users), neighbours)
            busy = _interactions(users, len(block.users)) if lengths == "peers" else None
            _start(model, model.user_tables, near, model.item_tables, init, release, busy)
        if new_items and content is None:
            near = relatives(items, users, (known_items, known_users), len(new_items), neighbours)
            busy = _interactions(items, len(block.catalogue)) if lengths == "peers" else None
            _start(model, model.item_tables, near, model.user_tables, init, release, busy)


# ---- who is near --------------------------------------------------------------------------------------------------


class Relatives(NamedTuple):
    """Of n new users: old users like them and their old items; of new items likewise. Internal ids.

    Attributes:
        similar: `(n, m)`, or fewer columns where there are fewer old ones.
        exactly: `(n,)` bool: m candidates to be similar, no more and no fewer, which the release stumbles over.
        linked: `(L,)` one list after the other; starts: `(n,)` where each begins.
    """

    similar: np.ndarray
    exactly: np.ndarray
    linked: np.ndarray
    starts: np.ndarray


def relatives(owners: np.ndarray, members: np.ndarray, known: tuple[int, int], count: int, m: int) -> Relatives:
    """Who is near each of the `count` new owners, who are numbered from `known[0] + 1` on.

    The most that is held is m + 1 candidates for each member of a new owner: of the old owners of a member only the
    m + 1 busiest matter, as whoever is among the m busiest of all candidates is among those of each member they share.

    Args:
        owners, members: `(E,)` internal ids, each pair once: users and their items, or items and their users.
        known: how many owners and members are old.
    """
    old, old_members = known
    new = owners > old
    mine, theirs = owners[new] - old - 1, members[new]  # from 0

    to_old = theirs <= old_members
    order = np.argsort(mine[to_old], kind="stable")
    degrees = np.bincount(mine[to_old], minlength=count)

    busiest = np.argsort(-np.bincount(owners, minlength=old + 1)[1 : old + 1], kind="stable") + 1  # (old,) ids
    place = np.empty(old + 1, dtype=np.int64)
    place[busiest] = np.arange(old)
    fans, fans_of = place[owners[~new]], members[~new]
    by_member = np.lexsort((fans, fans_of))
    fans, fans_of = fans[by_member], fans_of[by_member]
    few = _place_in_run(fans_of) <= m
    fans, fans_of = fans[few], fans_of[few]
    reached = np.bincount(fans_of, minlength=int(members.max(initial=0)) + 1)
    begin = np.cumsum(reached) - reached
    at = np.repeat(begin[theirs], reached[theirs]) + ranges(reached[theirs])
    found = np.unique(np.repeat(mine, reached[theirs]) * old + fans[at])  # candidates, the busiest first

    wanted = min(m, old)
    usual = (np.arange(count)[:, None] * old + np.arange(wanted)).ravel()
    keys = np.concatenate([found, np.setdiff1d(usual, found, assume_unique=True)])
    keys = keys[np.argsort(keys // old, kind="stable")]
    keys = keys[_place_in_run(keys // old) < wanted]
    return Relatives(
        similar=busiest[keys % old].reshape(count, wanted),
        exactly=np.bincount(found // old, minlength=count) == m,
        linked=theirs[to_old][order],
        starts=np.cumsum(degrees) - degrees,
    )


def _place_in_run(values: np.ndarray) -> np.ndarray:
    """Of each of sorted values `(n,)`, how many equal ones stand before it."""
    return np.arange(len(values)) - np.searchsorted(values, values)


# ---- where new rows start -----------------------------------------------------------------------------------------


def neighbour_rows(table: Tensor, near: Relatives, partner: Tensor | None = None, *, release: bool = False) -> Tensor:
    """`1/2 (mean of the linked rows of partner) + 1/2 (mean of the similar rows of table)`, `(n, D)`.

    Args:
        table: `(old + 1, D)`, the old rows of the side that grows.
        partner: those of the other side, in the same space. Without it, and unless `release` for those with nothing
            linked, the mean of the similar rows alone.
        release: as in `grow`.
    """
    similar = _means(table, near.similar)
    if release:
        similar[torch.from_numpy(near.exactly).to(table.device)] = table[PADDING + 1 :].mean(dim=0)
    if partner is None:
        return similar
    linked, found = linked_rows(partner, near)
    halves = (linked + similar) / 2
    return halves if release else torch.where(found, halves, similar)


def linked_rows(partner: Tensor, near: Relatives) -> tuple[Tensor, Tensor]:
    """The mean of the linked rows of the other side, `(n, D)`, zeros where none are; and who has any, `(n, 1)`."""
    found = np.append(near.starts[1:], len(near.linked)) > near.starts
    return _means(partner, near.linked, near.starts), torch.from_numpy(found[:, None]).to(partner.device)


def _means(table: Tensor, ids: np.ndarray, starts: np.ndarray | None = None) -> Tensor:
    """The mean of the rows of each list of ids, `(n, m)`, or `(L,)` that begin at `starts (n,)`: `(n, D)`."""
    on_device = (None if part is None else torch.from_numpy(part).to(table.device) for part in (ids, starts))
    bags, offsets = on_device
    return F.embedding_bag(cast(Tensor, bags), table, offsets, mode="mean")


def _start(
    model: RecommenderModel,
    tables: Sequence[nn.Module],
    near: Relatives,
    others: Sequence[nn.Module],
    init: Init,
    release: bool,
    busy: Tensor | None,
) -> None:
    """Write the last rows of tables, which are the mean of the old ones.

    Args:
        others: the tables of the other side.
        busy: interactions by id, where new rows shall be as long as those of their peers.
    """
    count = len(near.similar)
    for number, table in enumerate(tables):
        partner = cast(Tensor, others[0].weight) if model.shared_space and number == 0 else None
        built = _as_built(model, table) if init == "random" else table
        for name, weight in table.named_parameters(recurse=False):
            old, new = weight[:-count].reshape(len(weight) - count, -1), weight[-count:]  # a bias has no width
            if init == "zeros":
                new.zero_()
            elif init == "random":
                new.copy_(built.get_parameter(name)[-count:])
            elif init == "neighbours":
                new.copy_(neighbour_rows(old, near, partner, release=release).view_as(new))
            elif partner is not None:
                linked, found = linked_rows(partner, near)
                new.copy_(linked if release else torch.where(found, linked, new))
            if busy is not None and init in ("neighbours", "one_hop") and old.shape[1] > 1:  # a number has no direction
                new.copy_(lengthened(new, peer_lengths(old, busy)))


def _interactions(ids: np.ndarray, size: int) -> Tensor:
    """How often each of the ids 0 to `size` is there, `(size + 1,)`."""
    return torch.from_numpy(np.bincount(ids, minlength=size + 1))


def _as_built(model: RecommenderModel, table: nn.Module) -> nn.Module:
    """A table of this shape as the model begins with it."""
    fresh: Any = copy.deepcopy(table).cpu()  # whose random numbers are the same wherever the model is
    fresh.reset_parameters()
    model._init_weights(fresh)
    return cast(nn.Module, fresh)


# ---- what is refused ----------------------------------------------------------------------------------------------


def _check(model: RecommenderModel, block: Block, init: str, neighbours: int, lengths: str, content: Any) -> None:
    if init not in get_args(Init) or neighbours < 1:
        raise ConfigError(
            f"init must be one of {get_args(Init)} and neighbours at least 1, got {init!r}, {neighbours}."
        )
    if lengths not in get_args(Lengths):
        raise ConfigError(f"lengths must be one of {get_args(Lengths)}, got {lengths!r}.")
    if init == "one_hop" and not model.shared_space:
        raise ConfigError(
            f"{type(model).__name__} has no space that users and items share, so that one hop leads nowhere. Use "
            'init="neighbours".'
        )
    if content is not None and model.content_argument is None:
        raise ConfigError(f"{type(model).__name__} does not place items by their content. Leave `content` out.")
    if not len(block.pairs()[0]):
        raise DataError(
            f"the log of block {block.number} tells no training interaction, so nothing is known of what is new. Make "
            "the block as part of a stream, or leave it out."
        )


def _following(known: Catalogue | None, whole: Catalogue, what: str) -> list[str]:
    """The ids of a block behind those of a model."""
    if known is None:
        call = {"items": "set_catalogue(block.catalogue, counts)", "users": "set_users(block.users)"}[what]
        raise ConfigError(f"this model was not told its {what}, so which ones are new is unknown. Call {call} first.")
    if whole.item_ids[: len(known)] == known.item_ids:
        return list(whole.item_ids[len(known) :])
    pairs = zip(known.item_ids, whole.item_ids, strict=False)
    at = next((row for row, (mine, its) in enumerate(pairs) if mine != its), len(whole))
    its = repr(whole.item_ids[at]) if at < len(whole) else "nothing"
    raise DataError(
        f"the {what} of the model are not the first of the block's: number {at + 1} is {known.item_ids[at]!r} in the "
        f"model, which knows {len(known)}, and {its} in the block, which names {len(whole)}. Take a block of the "
        "stream that this model was trained on, and none before those it knows."
    )
