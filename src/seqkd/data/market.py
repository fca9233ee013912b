"""The embedded data set: a seeded, synthetic market of several domains. Every number measured on it is synthetic.

How a user chooses the next item (and so what there is to learn):

* taste: each user likes few of 12 themes, the same ones in every domain;
* sequence: after a theme some themes follow more often, and some items have a sequel;
* text: title and categories of an item are made of the words of its theme, and brands lean to themes, in every domain;
* images: 60 % of the items have an image vector, in which their theme and their maker can be told, through noise;
* long tail: popularity within a domain follows a power law, so many items have few interactions or none (cold).
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from datasets import DatasetDict

from ..errors import ConfigError
from .columns import BRAND, CATEGORIES, DESCRIPTION, DOMAIN, IMAGE_FEATURES, ITEM_ID, TIMESTAMP, TITLE, USER_ID
from .features import as_column
from .interactions import as_market

THEMES = {
    "camping": ["tent", "campfire", "forest", "hiking", "backpack", "lantern", "trail", "wilderness"],
    "ocean": ["whale", "coral", "submarine", "sailing", "tide", "harbor", "lighthouse", "shark"],
    "space": ["rocket", "galaxy", "astronaut", "orbit", "comet", "telescope", "moon", "satellite"],
    "cooking": ["recipe", "kitchen", "spice", "oven", "bread", "flavor", "chef", "soup"],
    "crime": ["detective", "murder", "clue", "alibi", "witness", "prison", "heist", "police"],
    "fantasy": ["dragon", "wizard", "sword", "castle", "spell", "quest", "elf", "throne"],
    "romance": ["love", "wedding", "heart", "kiss", "letter", "passion", "bride", "paris"],
    "garden": ["flower", "seed", "rose", "orchard", "bee", "greenhouse", "herb", "soil"],
    "racing": ["car", "engine", "speed", "driver", "circuit", "motor", "garage", "turbo"],
    "music": ["guitar", "jazz", "piano", "concert", "violin", "singer", "melody", "drum"],
    "history": ["empire", "emperor", "ancient", "rome", "pharaoh", "revolution", "kingdom", "war"],
    "robots": ["robot", "computer", "hacker", "cyber", "machine", "android", "code", "circuitry"],
}
DOMAINS = {
    "books": ("novel", "guide", "handbook", "anthology"),
    "films": ("movie", "documentary", "series", "drama"),
    "games": ("board game", "puzzle", "card game", "adventure game"),
    "toys": ("model kit", "figure", "playset", "poster"),
}
MAKERS = ("Alder", "Birch", "Cedar", "Dune", "Ember", "Fjord", "Grove", "Haven", "Isle", "Juniper", "Kestrel", "Lark")
DAY = 86_400
IMAGE_SIZE, WITH_IMAGE, IMAGE_NOISE = 32, 0.6, 1.0  # width of an image vector, share of items, noise per coordinate
FOLLOW, SEQUEL, BRAND_LOVE = 4.0, 25.0, 2.5  # how many times likelier a following theme, a sequel, a liked brand is


def synthetic_market(
    seed: int = 0, *, domains: int = 2, users: int = 1500, items: int = 600, mean_length: int = 9, max_length: int = 40
) -> DatasetDict:
    """Generate a market with a `domain` column; `by_domain` separates it. Equal arguments give equal rows.

    Args:
        domains: 1 to 4 of books, films, games, toys, all with the same users and different items.
        users, items: per domain. mean_length: interactions per user and domain, at least 4, at most `max_length`.
    """
    if not 1 <= domains <= len(DOMAINS):
        raise ConfigError(f"domains is {domains}, but the synthetic market has 1 to {len(DOMAINS)} domains.")
    if not 4 < mean_length < max_length < items:
        raise ConfigError(
            f"mean_length, max_length, items are {mean_length}, {max_length}, {items}, but need 4 < mean_length < "
            "max_length < items."
        )
    rng, eye = np.random.default_rng(seed), np.random.default_rng([seed, 1])
    looks = eye.normal(size=(len(THEMES), IMAGE_SIZE)), eye.normal(size=(len(MAKERS), IMAGE_SIZE))
    themes = len(THEMES)
    taste = rng.dirichlet(np.full(themes, 0.15), users) + 0.005  # (users, themes)
    follows = 1 + (FOLLOW - 1) * (
        rng.random((themes, themes)).argsort(1) < 2
    )  # (themes, themes): two themes follow each
    liked = 1 + (BRAND_LOVE - 1) * (rng.random((users, len(MAKERS))) < 0.25)  # (users, makers)
    begin = 1_577_836_800 + rng.integers(0, 365 * DAY, users)
    logs, tables = [], []
    for domain in list(DOMAINS)[:domains]:
        theme = rng.integers(0, themes, items)
        maker = np.where(rng.random(items) < 0.7, theme % len(MAKERS), rng.integers(0, len(MAKERS), items))
        images = _images(eye, looks, theme, maker)
        tables.append(_items(rng, domain, theme, maker).append_column(IMAGE_FEATURES, images))
        popularity = rng.permutation(1.0 / (10 + np.arange(items)) ** 1.2)
        sequel = np.array([rng.choice(np.flatnonzero(theme == one)) for one in theme])  # (items,)
        appeal = popularity * taste[:, theme] * liked[:, maker]  # (users, items)
        lengths = np.minimum(4 + rng.geometric(1 / (mean_length - 4 + 1), users) - 1, max_length)
        chosen = _walk(rng, appeal, follows[:, theme], theme, sequel, lengths)
        logs.append(_log(rng, domain, chosen, lengths, begin))
    return as_market(pa.concat_tables(logs), pa.concat_tables(tables))


def _walk(
    rng: np.random.Generator,
    appeal: np.ndarray,
    follows: np.ndarray,
    theme: np.ndarray,
    sequel: np.ndarray,
    lengths: np.ndarray,
) -> np.ndarray:
    """Items chosen by each user, (users, longest); no item twice. All users step together."""
    users = np.arange(len(lengths))
    appeal = appeal.astype(np.float32)
    chosen = np.zeros((len(lengths), lengths.max()), dtype=np.int64)
    for step in range(lengths.max()):
        weight = appeal  # (active users, items)
        if step:
            last = chosen[users, step - 1]
            weight = appeal[users] * follows.astype(np.float32)[theme[last]]
            weight[np.arange(len(users)), sequel[last]] *= SEQUEL
        total = weight.cumsum(1, dtype=np.float64)
        draw = rng.random(len(users)) * total[:, -1]
        pick = np.minimum((total <= draw[:, None]).sum(1), weight.shape[1] - 1)
        chosen[users, step] = pick
        appeal[users, pick] = 0
        users = users[lengths[users] > step + 1]
    return chosen


def _log(rng: np.random.Generator, domain: str, chosen: np.ndarray, lengths: np.ndarray, begin: np.ndarray) -> pa.Table:
    user, step = np.nonzero(np.arange(chosen.shape[1]) < lengths[:, None])
    time = begin[:, None] + rng.integers(60, 20 * DAY, chosen.shape).cumsum(1)
    return pa.table(
        {
            USER_ID: [f"u{one:05d}" for one in user],
            ITEM_ID: [f"{domain}-{item:05d}" for item in chosen[user, step]],
            TIMESTAMP: time[user, step],
            DOMAIN: [domain] * len(user),
        }
    )


def _items(rng: np.random.Generator, domain: str, theme: np.ndarray, maker: np.ndarray) -> pa.Table:
    names = list(THEMES)
    kinds = rng.choice(DOMAINS[domain], len(theme))
    words = [rng.choice(THEMES[names[one]], 3, replace=False) for one in theme]
    return pa.table(
        {
            ITEM_ID: [f"{domain}-{item:05d}" for item in range(len(theme))],
            DOMAIN: [domain] * len(theme),
            TITLE: [
                f"{one.title()} and {two.title()}, a {three} {kind}"
                for (one, two, three), kind in zip(words, kinds, strict=True)
            ],
            BRAND: [f"{MAKERS[one]} House" for one in maker],
            CATEGORIES: [f"{domain}, {names[one]}, {kind}" for one, kind in zip(theme, kinds, strict=True)],
            DESCRIPTION: [""] * len(theme),
        }
    )


def _images(
    eye: np.random.Generator, looks: tuple[np.ndarray, np.ndarray], theme: np.ndarray, maker: np.ndarray
) -> pa.Array:
    """A vector per item, what its theme and its maker look like and noise; zeros where there is no image."""
    vectors = looks[0][theme] + 0.5 * looks[1][maker] + IMAGE_NOISE * eye.normal(size=(len(theme), IMAGE_SIZE))
    return as_column((vectors * (eye.random(len(theme)) < WITH_IMAGE)[:, None]).astype(np.float32))
