"""How models grow to a block: the golden initialisation, a slow loop, every model of the house, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from datasets import Dataset
from torch import Tensor
from transformers import AutoModel

from seqkd.batches.collators import SequenceDataset
from seqkd.catalogue import Catalogue
from seqkd.continual.growth import Relatives, grow, linked_rows, neighbour_rows, relatives
from seqkd.continual.lengths import peer_lengths
from seqkd.data.stream import Block
from seqkd.errors import ConfigError, DataError
from seqkd.models.cml import CMLConfig, CMLModel
from seqkd.models.concf import ConCFConfig, ConCFModel
from seqkd.models.deepfm import DeepFMConfig, DeepFMModel
from seqkd.models.fm import FMConfig, FMModel
from seqkd.models.itemae import ItemAEConfig, ItemAEModel
from seqkd.models.lightgcn import LightGCNConfig, LightGCNModel, edges_of
from seqkd.models.mf import MFConfig, MFModel
from seqkd.models.multvae import MultVAEConfig, MultVAEModel
from seqkd.models.neumf import NeuMFConfig, NeuMFModel
from seqkd.models.recformer import CausalRecformerConfig, CausalRecformerModel, RecformerModel
from seqkd.models.sasrec.item_projection import fit_item_projection
from seqkd.models.unim2rec import UniM2RecConfig, UniM2RecModel
from seqkd.models.unisrec import UniSRecConfig, UniSRecModel
from seqkd.recommenders.recommender import count_items
from seqkd.recommenders.user_recommender import UserRecommender
from tests.models.recformer.tiny_recformer import SIZES as RECFORMER
from tests.models.recformer.tiny_recformer import tiny_recformer, tokens_of
from tests.tiny import ITEMS, USERS, tiny_sasrec, tiny_split

SPLIT = tiny_split()
TRAIN = SequenceDataset(SPLIT.train, ITEMS, SPLIT.users)
SIZES = {"num_items": ITEMS, "num_users": USERS}
NOTHING = Dataset.from_dict({"user_id": [], "item_ids": [], "first_target": [], "query_start": []})


def block(
    users: np.ndarray, items: np.ndarray, sizes: tuple[int, int], known: tuple[int, int], number: int = 1
) -> Block:
    """A block of which only the log and the ids are read; `sizes` and `known` are of users and items."""
    more_items = [f"item{row}" for row in range(ITEMS + 1, sizes[1] + 1)]
    more_users = [f"new{row}" for row in range(USERS + 1, sizes[0] + 1)]
    everyone = Catalogue((*SPLIT.users.item_ids, *more_users)[: sizes[0]])
    log = {"user": pa.array(users, pa.int32()), "item": pa.array(items, pa.int32())}
    log["part"] = pa.array(np.zeros(len(users)), pa.int8())
    return Block(
        Catalogue((*SPLIT.catalogue.item_ids, *more_items)[: sizes[1]]),
        *(NOTHING,) * 3,
        protocol="stream-random-users",
        domain="tiny",
        everyone=everyone,
        number=number,
        known_users=known[0],
        known_items=known[1],
        log=Dataset(pa.table(log)),
    )


def random_block(sizes=(USERS + 4, ITEMS + 3), known=(USERS, ITEMS), seed: int = 0) -> Block:
    """The last new user and the last new item come for nothing that trains."""
    draw = np.random.default_rng(seed)
    users, items = draw.integers(1, sizes[0], 80), draw.integers(1, sizes[1], 80)
    return block(users, items, sizes, known)


# ---- the initialisation ---------------------------------------------------------------------------------------------


def pairs_of(matrix: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.nonzero(np.array(matrix))
    return rows + 1, columns + 1


def padded(rows: list[list[float]]) -> Tensor:
    return torch.cat([torch.zeros(1, len(rows[0]), dtype=torch.float64), torch.tensor(rows, dtype=torch.float64)])


@pytest.fixture
def case(golden):
    return json.loads((golden / "ccd_new_entity_init.json").read_text())


CLOSE = {"rtol": 1e-6, "atol": 2e-8}  # the golden numbers are float32, printed with 8 decimals


@pytest.mark.parametrize("side", ["user", "item"])
def test_golden_rows(side, case):
    users, items = pairs_of(case["R_current_train"])
    owners, members = (users, items) if side == "user" else (items, users)
    other = {"user": "item", "item": "user"}[side]
    known = (case[f"old_{side}s"], case[f"old_{other}s"])
    count = len(case[f"new_{side}_emb"])
    near = relatives(owners, members, known, count, case["topk"])
    mine, theirs = padded(case[f"old_{side}_emb"]), padded(case[f"old_{other}_emb"])
    expected = torch.tensor(case[f"new_{side}_emb"], dtype=torch.float64)
    two_hop = torch.tensor(case[f"two_hop_{side}"], dtype=torch.float64)

    torch.testing.assert_close(neighbour_rows(mine, near, theirs, release=True), expected, **CLOSE)
    torch.testing.assert_close(neighbour_rows(mine, near, release=True), two_hop, **CLOSE)
    # without the switch the same, but for who has nothing linked or exactly m candidates
    right = neighbour_rows(mine, near, theirs)
    _, found = linked_rows(theirs, near)
    usual = found[:, 0] & ~torch.from_numpy(near.exactly)
    assert usual.any()
    torch.testing.assert_close(right[usual], expected[usual], **CLOSE)
    unlinked = ~found[:, 0] & ~torch.from_numpy(near.exactly)
    torch.testing.assert_close(right[unlinked], 2 * expected[unlinked], **CLOSE)


def test_golden_exactly_m_candidates(case):
    case = case["exact_topk_quirk"]
    users, items = pairs_of(case["R"])
    table = padded(case["emb"])
    near = relatives(users, items, (len(case["emb"]), 3), 1, case["topk"])
    release = neighbour_rows(table, near, release=True)
    torch.testing.assert_close(release, torch.tensor(case["result"], dtype=torch.float64), **CLOSE)
    torch.testing.assert_close(release[0], table[1:].mean(dim=0))
    torch.testing.assert_close(neighbour_rows(table, near)[0], table[1:3].mean(dim=0))  # the two who share item 1


def slow(pairs: set, known: tuple[int, int], total: int, m: int, mine: Tensor, theirs: Tensor, release: bool) -> Tensor:
    """The words of the specification, one new owner at a time."""
    old, old_members = known
    degree = {owner: sum(pair[0] == owner for pair in pairs) for owner in range(1, total + 1)}

    def busiest(owners) -> list[int]:
        return sorted(owners, key=lambda owner: (-degree[owner], owner))

    rows = []
    for new in range(old + 1, total + 1):
        members = {member for owner, member in pairs if owner == new}
        linked = [theirs[member] for member in members if member <= old_members]
        candidates = {owner for owner, member in pairs if owner <= old and member in members}
        chosen = busiest(candidates)[:m]
        if len(chosen) < m:
            chosen += busiest(set(range(1, old + 1)) - candidates)[: m - len(chosen)]
        if release and len(candidates) == m:
            chosen = list(range(1, old + 1))
        two_hop = torch.stack([mine[owner] for owner in chosen]).mean(dim=0)
        if linked:
            rows.append((torch.stack(linked).mean(dim=0) + two_hop) / 2)
        else:
            rows.append(two_hop / 2 if release else two_hop)
    return torch.stack(rows)


@pytest.mark.parametrize("release", [False, True])
@pytest.mark.parametrize("m", [1, 2, 3, 5, 40])
def test_a_slow_loop_agrees(m, release):
    seen = set()
    for seed in range(12):
        draw = np.random.default_rng(seed)
        known, total, others = (9, 7), 14, 11
        owners, members = draw.integers(1, total, 30), draw.integers(1, others + 1, 30)  # the last one has nothing
        owners, members = np.unique(np.stack([owners, members]), axis=1)
        mine, theirs = (torch.from_numpy(draw.normal(size=(count + 1, 4))) for count in known)
        near = relatives(owners, members, known, total - known[0], m)
        pairs = set(zip(owners.tolist(), members.tolist(), strict=True))
        expected = slow(pairs, known, total, m, mine, theirs, release)
        torch.testing.assert_close(neighbour_rows(mine, near, theirs, release=release), expected)
        seen |= set(near.exactly.tolist())
    assert seen == {False, True} or m == 40


def test_a_block_of_new_ones_alone():
    near = relatives(np.array([4, 4]), np.array([3, 4]), (3, 2), 1, 2)
    table = padded([[1.0], [2.0], [6.0]])
    assert isinstance(near, Relatives) and near.similar.tolist() == [[1, 2]] and not len(near.linked)
    assert neighbour_rows(table, near, table).tolist() == [[1.5]]  # equally idle: the oldest


def test_a_large_block_takes_no_matrix_of_all_pairs():
    """Sizes of Yelp's first block: a dense matrix of new and old users alone would hold 13.7 million numbers."""
    draw = np.random.default_rng(0)
    users, items = draw.integers(1, 13_368, 33_000), (11_345 * draw.random(33_000) ** 3).astype(np.int64) + 1
    users, items = np.unique(np.stack([users, items]), axis=1)
    near = relatives(users, items, (12_248, 10_822), 1_119, 20)
    assert near.similar.shape == (1_119, 20) and near.similar.min() >= 1 and near.similar.max() <= 12_248
    assert all(len(set(row)) == 20 for row in near.similar.tolist())


# ---- every model of the house ---------------------------------------------------------------------------------------


def text(count: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(count).normal(size=(count, 4))).float()


def modalities(count: int) -> dict[str, Tensor]:
    return {"text": text(count), "image": text(count)[:, :3]}


def with_features(model, features):
    model.set_item_features(features)
    return model


def with_attributes(model):
    model.set_item_attributes(torch.randint(5, (ITEMS, 2)))
    return model


SMALL = {**SIZES, "hidden_size": 8}
ENCODED = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "max_position_embeddings": 12}
TEXTS = {"num_items": ITEMS, **ENCODED, "plm_size": 4, "num_experts": 2}
WORDS = {**RECFORMER, "num_items": ITEMS}
MAKERS = {
    "mf": lambda: MFModel(MFConfig(**SMALL)),
    "mf-cosine": lambda: MFModel(MFConfig(**SMALL, similarity="cosine")),
    "cml": lambda: CMLModel(CMLConfig(**SMALL)),
    "neumf": lambda: NeuMFModel(NeuMFConfig(**SMALL, mlp_hidden_sizes=[8, 4])),
    "fm": lambda: FMModel(FMConfig(**SMALL)),
    "fm-apart": lambda: with_attributes(
        FMModel(FMConfig(**SMALL, share_item_table=False, num_attributes=4, num_attribute_fields=2))
    ),
    "deepfm": lambda: DeepFMModel(DeepFMConfig(**SMALL, mlp_hidden_sizes=[8, 4])),
    "lightgcn": lambda: LightGCNModel(LightGCNConfig(**SMALL), edges_of(TRAIN)),
    "concf": lambda: ConCFModel(ConCFConfig(**SMALL)),
    "concf-item": lambda: ConCFModel(ConCFConfig(**SMALL, heads=["item_multinomial"])),
    "concf-user": lambda: ConCFModel(ConCFConfig(**SMALL, heads=["user_multinomial"])),
    "multvae": lambda: MultVAEModel(MultVAEConfig(**SMALL, latent_size=4), edges_of(TRAIN)),
    "itemae": lambda: ItemAEModel(ItemAEConfig(**SMALL), edges_of(TRAIN)),
    "sasrec": lambda: tiny_sasrec(SPLIT),
    "unisrec": lambda: with_features(UniSRecModel(UniSRecConfig(**TEXTS)), text(ITEMS)),
    "unisrec-ids": lambda: with_features(UniSRecModel(UniSRecConfig(**TEXTS, use_item_embedding=True)), text(ITEMS)),
    "unim2rec": lambda: with_features(
        UniM2RecModel(
            UniM2RecConfig(
                num_items=ITEMS, **ENCODED, num_experts=2, modality_sizes={"text": 4, "image": 3}, fusion="moe_gate"
            )
        ),
        modalities(ITEMS),
    ),
    "recformer": lambda: tiny_recformer(RecformerModel, SPLIT),
    "causal-recformer": lambda: with_features(
        CausalRecformerModel(CausalRecformerConfig(**WORDS, use_item_embedding=True)), tokens_of(ITEMS)
    ),
}
CONTENT = {
    "unisrec": text,
    "unisrec-ids": text,
    "unim2rec": modalities,
    "recformer": tokens_of,
    "causal-recformer": tokens_of,
}
KNOW_USERS = [name for name in MAKERS if name not in CONTENT and name != "sasrec"]
SHARED = [name for name in KNOW_USERS if name not in ("neumf", "deepfm", "multvae", "itemae")]
EVERY = pytest.mark.parametrize("kind", MAKERS)


def make(kind: str):
    torch.manual_seed(0)
    model = MAKERS[kind]()
    model.set_catalogue(SPLIT.catalogue, count_items(SPLIT.train, ITEMS))
    if isinstance(model, UserRecommender):
        model.set_users(SPLIT.users)
    return model.eval()


def content(kind: str, count: int):
    return CONTENT[kind](count) if kind in CONTENT else None


def queries(model) -> Tensor:
    """Of the first five users, who have been known from the start."""
    rows = SPLIT.train.select(range(5))
    batch = model.collator(tail=True)(list(SequenceDataset(rows, ITEMS, model.users and SPLIT.users)))
    return model(**{name: batch[name] for name in model.inputs}).query_embeddings


def answer(model, k: int = 6):
    """A new user, and a history with a new item."""
    if isinstance(model, UserRecommender):
        return model.recommend([["item3"]] * 2, k, users=[model.users.item_ids[-1], "u1"], filter_seen=False)
    return model.recommend([["item3", model.item_ids[-1]], [model.item_ids[-1]]], k, filter_seen=False)


def same_rows(before: dict[str, Tensor], model) -> None:
    for name, tensor in model.state_dict().items():
        if name != "item_counts":
            assert torch.equal(tensor[: len(before[name])] if tensor.dim() else tensor, before[name]), name


def copied(model) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@EVERY
@torch.no_grad()
def test_every_model_grows_twice_and_comes_back(kind, tmp_path):
    model = make(kind)
    scores = model.score(queries(model))
    before = copied(model)  # after it: a Recformer makes its item vectors when they are asked for
    first, second = random_block(), random_block((USERS + 6, ITEMS + 5), (USERS + 4, ITEMS + 3), seed=1)
    for part, new in ((first, 3), (second, 2)):
        old = copied(model)
        model.item_embeddings()  # so that something is held of the old tables
        grow(model, part, neighbours=3, content=content(kind, new))
        same_rows(old, model)
        assert model.catalogue == part.catalogue and model.config.num_items == len(part.catalogue)
        if kind in KNOW_USERS:
            assert model.users == part.users and model.config.num_users == len(part.users)
    same_rows(before, model)
    for name, tensor in model.state_dict().items():
        assert torch.isfinite(tensor).all(), name
    bought = torch.zeros(ITEMS + 6)
    bought[: ITEMS + 1] = before["item_counts"]
    for part in (first, second):
        bought += torch.from_numpy(np.bincount(part.pairs()[1], minlength=ITEMS + 6))
    assert torch.equal(model.item_counts, bought)

    after = model.score(queries(model))
    assert after.shape == (len(scores), ITEMS + 6)
    change = after[:, 1 : ITEMS + 1] - scores[:, 1:]
    if kind == "itemae":  # whose items' likelihoods are shared among more users: alike for all who were there
        change = change - change[:1]
    torch.testing.assert_close(change, torch.zeros_like(change), atol=1e-5, rtol=0)
    top = answer(model, ITEMS + 5)
    assert not any(top.from_popularity)
    assert all({"item21", "item25"} <= set(items) for items in top.item_ids)

    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name
    assert answer(loaded).item_ids == answer(model).item_ids and loaded.users == model.users


@pytest.mark.parametrize("kind", KNOW_USERS)
def test_users_alone_may_be_new(kind):
    model, sizes = make(kind), (USERS + 2, ITEMS)
    first = answer(model)
    grow(model, block(np.array([USERS + 1, 1, 2]), np.array([3, 3, 4]), sizes, (USERS, ITEMS)))
    assert answer(model).item_ids[1] == first.item_ids[1] and len(answer(model).item_ids[0]) == 6


@EVERY
def test_a_model_that_has_grown_learns(kind):
    """Its tables are parameters with gradients, those of new ones too."""
    model = make(kind).train()
    grow(model, random_block(), content=content(kind, 3))
    for table in (*model.item_tables, *model.user_tables):
        size = table.out_features if kind.startswith("concf-") and hasattr(table, "out_features") else len(table.weight)
        assert size in (ITEMS + 4, USERS + 5)
        for weight in table.parameters():
            assert weight.is_leaf and weight.requires_grad and weight.grad_fn is None
    for table in model.item_tables[:1]:
        assert table.num_embeddings == len(table.weight) == ITEMS + 4
    if kind == "mf":
        new = torch.tensor([USERS + 4])
        model.score(model(new).query_embeddings, torch.tensor([[ITEMS + 3]])).sum().backward()
        assert model.user_embedding.weight.grad[-1].any() and model.item_embedding.weight.grad[-1].any()


@pytest.mark.parametrize("kind", [*KNOW_USERS, "sasrec"])
@pytest.mark.parametrize("release", [False, True])
def test_tables_of_one_space_take_both_halves_and_the_others_one(kind, release):
    model, part = make(kind), random_block()
    old_users = [[weight.double() for weight in table.parameters()] for table in model.user_tables]
    old_items = [[weight.double() for weight in table.parameters()] for table in model.item_tables]
    grow(model, part, neighbours=3, release=release)
    pairs = set(zip(*(ids.tolist() for ids in part.pairs()), strict=True))
    flipped = {(item, user) for user, item in pairs}
    for tables, old, others, links, known, total in (
        (model.user_tables, old_users, old_items, pairs, (USERS, ITEMS), USERS + 4),
        (model.item_tables, old_items, old_users, flipped, (ITEMS, USERS), ITEMS + 3),
    ):
        for number, (table, weights) in enumerate(zip(tables, old, strict=True)):
            shared = kind in SHARED and number == 0
            for now, before in zip(table.parameters(), weights, strict=True):
                mine = before.reshape(len(before), -1)
                if shared:
                    expected = slow(links, known, total, 3, mine, others[0][0], release)
                else:  # as if nobody were linked, but whole
                    expected = slow(links, (known[0], 0), total, 3, mine, mine, release) * (1 + release)
                torch.testing.assert_close(now[known[0] + 1 :].double().reshape(expected.shape), expected)


def test_other_beginnings():
    part = random_block()
    start = make("mf")
    users, items = start.user_embedding.weight.clone(), start.item_embedding.weight.clone()

    def rows(init, **more):
        model = make("mf")
        grow(model, part, init=init, **more)
        return model.user_embedding.weight[USERS + 1 :], model.item_embedding.weight[ITEMS + 1 :]

    assert not any(table.any() for table in rows("zeros"))
    for new, old in zip(rows("mean"), (users, items), strict=True):
        torch.testing.assert_close(new, old[1:].mean(0).expand(len(new), -1))

    one, same, other = rows("random", seed=3), rows("random", seed=3), rows("random", seed=4)
    assert all(torch.equal(a, b) and not torch.equal(a, c) for a, b, c in zip(one, same, other, strict=True))
    assert not torch.equal(one[0][:3], one[1][:3])

    linked = rows("one_hop")
    who, what = part.pairs()
    mine = sorted(set(what[(who == USERS + 1) & (what <= ITEMS)].tolist()))
    torch.testing.assert_close(linked[0][0], items[mine].mean(0))
    torch.testing.assert_close(linked[0][-1], users[1:].mean(0))  # has nothing: as good as any
    assert not rows("one_hop", release=True)[0][-1].any()


@pytest.mark.parametrize("init", ["neighbours", "one_hop"])
def test_lengths_of_peers(init):
    part, short, long = random_block(), make("mf"), make("mf")
    grow(short, part, init=init)
    grow(long, part, init=init, lengths="peers")
    users, items = np.unique(np.stack(part.pairs()), axis=1)
    for tables, known, ids in (
        ((short.user_embedding, long.user_embedding), USERS, users),
        ((short.item_embedding, long.item_embedding), ITEMS, items),
    ):
        before, after = (table.weight.detach() for table in tables)
        assert torch.equal(before[: known + 1], after[: known + 1])
        busy = torch.from_numpy(np.bincount(ids, minlength=len(before)))
        lengths = peer_lengths(before[: known + 1], busy)
        torch.testing.assert_close(after[known + 1 :].norm(dim=1, keepdim=True), lengths)
        cosine = torch.cosine_similarity(before[known + 1 :], after[known + 1 :])
        torch.testing.assert_close(cosine, torch.ones(len(cosine)))


def test_lengths_are_of_vectors_near_others_alone():
    for settings in ({"init": "random"}, {"init": "mean"}):
        one, other = make("mf"), make("mf")
        grow(one, random_block(), **settings)
        grow(other, random_block(), lengths="peers", **settings)
        assert torch.equal(one.item_embedding.weight, other.item_embedding.weight)
    one, other = make("fm"), make("fm")  # which has a number for each item, too
    grow(one, random_block())
    grow(other, random_block(), lengths="peers")
    for mine, its in zip(one.item_tables, other.item_tables, strict=True):
        assert torch.equal(mine.weight, its.weight) == (mine.weight.shape[1] == 1)


@pytest.mark.parametrize("kind", ["mf", "neumf", "fm", "concf", "itemae"])
def test_random_rows_are_spread_like_the_first(kind):
    model = make(kind)
    draw = np.random.default_rng(0)
    sizes = (USERS + 400, ITEMS + 400)
    before = torch.get_rng_state()
    grow(
        model,
        block(draw.integers(1, sizes[0], 900), draw.integers(1, sizes[1], 900), sizes, (USERS, ITEMS)),
        init="random",
    )
    assert torch.equal(torch.get_rng_state(), before)  # the caller's numbers are his own
    torch.manual_seed(0)
    whole = type(model)(type(model.config)(**model.config.to_dict()))
    for tables, fresh in ((model.user_tables, whole.user_tables), (model.item_tables, whole.item_tables)):
        for table, theirs in zip(tables, fresh, strict=True):
            assert table.weight[-400:].std().item() == pytest.approx(theirs.weight[1:].std().item(), rel=0.15)
            assert table.weight[-400:].mean().abs() < 0.2 * table.weight[-400:].std()


def test_growth_by_content():
    """SASRec places new items from teacher space, where its projection is fitted."""
    model = make("sasrec")
    vectors = torch.cat([torch.zeros(1, 4), text(ITEMS)])
    fit_item_projection(model, vectors)
    grow(model, random_block(), content=text(3), init="zeros")
    expected = model.item_projection(text(3))
    torch.testing.assert_close(model.item_embedding.weight[-3:], expected)


@pytest.mark.parametrize("kind", ["unisrec-ids", "causal-recformer"])
def test_a_new_item_is_its_text_alone(kind):
    model = make(kind)
    grow(model, random_block(), content=content(kind, 3))
    assert not model.item_tables[0].weight[-3:].any()


def test_nothing_new_but_counts():
    for kind in ("mf", "unisrec", "sasrec"):
        model = make(kind)
        before = copied(model)
        grow(model, block(np.array([1, 2, 2]), np.array([1, 1, 3]), (USERS, ITEMS), (USERS, ITEMS)))
        same_rows(before, model)
        assert (model.item_counts - before["item_counts"])[:5].tolist() == [0, 2, 0, 1, 0]


def test_a_model_that_left_out_a_block_grows_over_both():
    model = make("mf")
    grow(model, random_block((USERS + 6, ITEMS + 5), (USERS + 4, ITEMS + 3), seed=1))
    assert len(model.user_embedding.weight) == USERS + 7 and len(model.item_embedding.weight) == ITEMS + 6


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "settings", "error", "message"),
    [
        ("mf", {"init": "neighbors"}, ConfigError, "init must be one of"),
        ("mf", {"neighbours": 0}, ConfigError, "neighbours at least 1"),
        ("mf", {"lengths": "long"}, ConfigError, "lengths must be one of"),
        ("mf", {"content": text(3)}, ConfigError, "does not place items by their content"),
        ("neumf", {"init": "one_hop"}, ConfigError, "no space that users and items share"),
        ("sasrec", {"init": "one_hop"}, ConfigError, "no space that users and items share"),
        ("sasrec", {"content": text(3)}, ConfigError, "no fitted item_projection"),
        ("unisrec", {}, DataError, "reads items as text"),
        ("unisrec", {"content": text(2)}, DataError, "text"),
    ],
)
def test_settings_that_do_not_fit_change_nothing(kind, settings, error, message):
    model = make(kind)
    before = copied(model)
    with pytest.raises(error, match=message):
        grow(model, random_block(), **settings)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert model.catalogue == SPLIT.catalogue


def test_a_block_of_another_stream_is_refused():
    model, part = make("mf"), random_block()
    shuffled = {**part.__dict__, "catalogue": Catalogue(reversed(part.catalogue.item_ids))}
    with pytest.raises(DataError, match=r"items of the model are not the first.*number 1 is 'item1'.*'item23'"):
        grow(model, Block(**{name: shuffled[name] for name in Block.__dataclass_fields__}))
    with pytest.raises(
        DataError, match=r"users of the model are not the first.*number 24 .*nothing in the block, .*23"
    ):
        grow(model, block(np.array([1]), np.array([1]), (USERS - 1, ITEMS), (0, 0)))
    with pytest.raises(DataError, match="no log"):
        grow(model, block(np.array([]), np.array([]), (USERS, ITEMS), (USERS, ITEMS)))
    assert model.config.num_users == USERS and model.config.num_items == ITEMS
    nameless = MFModel(MFConfig(**SMALL))
    with pytest.raises(ConfigError, match="not told its items"):
        grow(nameless, part)
    nameless.set_catalogue(SPLIT.catalogue)
    with pytest.raises(ConfigError, match="not told its users"):
        grow(nameless, part)
