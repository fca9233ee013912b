from __future__ import annotations

import json
import shutil
from math import exp, log, sqrt

import pytest
import torch

from seqkd.batches.collators import SequenceDataset
from seqkd.batches.edges import Neighbours
from seqkd.batches.pairs import PairCollator, TrainingPairs
from seqkd.batches.positives import Positives
from seqkd.catalogue import Catalogue
from seqkd.distiller import Distiller
from seqkd.errors import ConfigError, DataError
from seqkd.method import Epoch
from seqkd.methods.lwc_kd import LWCKD, LWCKDConfig, layers_of, layers_of_old
from seqkd.models.cml import CMLConfig, CMLModel
from seqkd.models.lightgcn import LightGCNConfig, LightGCNModel, edges_of
from seqkd.models.mf import MFConfig, MFModel
from seqkd.recommenders.recommender import RecommenderOutput, count_items
from seqkd.teaching.lwc_contrast import NeighbourContrast
from seqkd.trainer import DistillationTrainer

from ..tiny import ITEMS, USERS, arguments, nobody, tiny_sasrec, tiny_split

SPLIT = tiny_split()
TRAIN = SequenceDataset(SPLIT.train, ITEMS, SPLIT.users)
EDGES = edges_of(TRAIN)
KNOWN_USERS, KNOWN_ITEMS = 18, 16
OLD_EDGES = EDGES[:, (EDGES[0] <= KNOWN_USERS) & (EDGES[1] <= KNOWN_ITEMS)][:, ::2]
TERMS = ("ui", "iu", "uu", "ii")
PAIRS = range(0, 40, 3)


def model(kind: str, users: int, items: int, edges: torch.Tensor, seed: int, **config):
    torch.manual_seed(seed)
    sizes = {"num_users": users, "num_items": items, "hidden_size": 4, "initializer_range": 1.0, **config}
    if kind == "mf":
        return MFModel(MFConfig(**sizes))
    return LightGCNModel(LightGCNConfig(**sizes, num_layers=3), edges)


def before_of(kind: str = "lightgcn", **config):
    """As it was when a part of users and of items was known."""
    return model(kind, KNOWN_USERS, KNOWN_ITEMS, OLD_EDGES, 1, **config)


def student_of(kind: str = "lightgcn", **config):
    made = model(kind, USERS, ITEMS, EDGES, 2, **config)
    made.set_catalogue(SPLIT.catalogue, count_items(SPLIT.train, ITEMS))
    made.set_users(SPLIT.users)
    return made


def distiller_of(kind: str = "lightgcn", before=None, edges=OLD_EDGES, **config) -> Distiller:
    torch.manual_seed(3)
    method = LWCKD(LWCKDConfig(**{"clusters": 3, "degree": 4.0, **config}), before or before_of(kind), edges)
    distiller = Distiller(student_of(kind), {"lwc_kd": method}, label_weight=0.0)
    method.on_epoch_begin(Epoch(0, 10, torch.Generator(), Positives(TRAIN), nobody))
    return distiller


def batch_of(pairs=PAIRS):
    return PairCollator(num_negatives=1)(TrainingPairs(TRAIN).__getitems__([*pairs]))


def loss_of(distiller: Distiller, pairs=PAIRS) -> torch.Tensor:
    batch, student = batch_of(pairs), distiller.student
    return distiller.methods["lwc_kd"](student, batch, student(user_ids=batch["user_ids"]), {})


def told(method: LWCKD) -> dict[str, float]:
    return {name: values.mean().item() for name, values in method.statistics.items()}


# ---- golden vectors -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def golden_case(golden):
    return json.loads((golden / "ccd_teacher_lwckd_piw.json").read_text())


def golden_method(case, **config):
    """Ids of the case count from 0, ours from 1. Its graphs of users and of items are random, so they are set."""

    def mf(which):
        tables = [torch.tensor(case[f"{which}_{side}_emb"], dtype=torch.float64) for side in ("user", "item")]
        made = MFModel(MFConfig(num_users=len(tables[0]), num_items=len(tables[1]), hidden_size=4)).double()
        with torch.no_grad():
            for table, rows in zip((made.user_embedding, made.item_embedding), tables, strict=True):
                table.weight[1:] = rows
        return made

    edges = torch.tensor([[int(user) + 1, item + 1] for user, items in case["old_train"].items() for item in items]).T
    method, student = LWCKD(LWCKDConfig(clusters=3, **config), mf("old"), edges), mf("cur")
    method.prepare(student, {})
    for name in ("uu", "ii"):
        first, second = torch.tensor(case[name.upper()]).nonzero().T + 1
        graph = Neighbours.of(first, second, len(case[name.upper()]))
        method.contrasts[name] = NeighbourContrast(graph, case["temperature"])
    method.block_items = torch.tensor(case["present_item_ids"]) + 1
    imitation = method.imitation
    with torch.no_grad():
        imitation.centres.copy_(torch.tensor(case["cluster_centres"]))
        imitation.transforms.copy_(torch.tensor(case["CSTM"]))
        for layer, said in zip((imitation.mlp[0], imitation.mlp[2]), case["PSV"], strict=True):
            layer.weight.copy_(torch.tensor(said["W"]))
            layer.bias.copy_(torch.tensor(said["b"]))
    ids = {name: torch.tensor(values) + 1 for name, values in case["batch"].items()}
    batch = {"user_ids": ids["user"], "query_ids": ids["user"] - 1, "targets": ids["pos_item"]}
    return method, student, {**batch, "negatives": ids["neg_item"][:, None]}


def test_golden_losses(golden_case):
    """All six of the release, to the precision of its float32."""
    method, student, batch = golden_method(golden_case, release=True)
    output = student(user_ids=batch["user_ids"])
    base = student.training_loss(output, batch["targets"], negatives=batch["negatives"]).sum().item()
    loss = method(student, batch, output, {})
    terms = told(method)
    ours, theirs = [base, *(terms[name] for name in (*TERMS, "cluster"))], golden_case["losses_with_PIW"]
    assert ours == pytest.approx(theirs, rel=1e-6)
    assert loss.item() == pytest.approx(0.01 * sum(theirs[1:5]) + theirs[5], rel=1e-6)


def test_golden_weights_act(golden_case):
    """The release's weights, which here multiply the losses of their users."""
    method, student, batch = golden_method(golden_case)
    known = torch.tensor([1, 2, 4])
    weights = method.imitation(method.old_users[0, known], student.user_embedding.weight[known])
    expected = torch.tensor(golden_case["piw_weights_normalised"], dtype=torch.float64).squeeze(1)
    torch.testing.assert_close(weights, expected, rtol=1e-6, atol=0)
    method(student, batch, RecommenderOutput(query_embeddings=torch.zeros(4, 4)), {})
    weighed, plain = told(method), dict(zip(TERMS, golden_case["losses_with_PIW"][1:5], strict=True))
    alone = []
    for user in known:
        release, student, batch = golden_method(golden_case, release=True)
        one = {**batch, "user_ids": user[None]}
        release(student, one, RecommenderOutput(query_embeddings=torch.zeros(4, 4)), {})
        alone.append(told(release))
    for name in ("ui", "uu"):
        mean = sum(w * terms[name] for w, terms in zip(expected.tolist(), alone, strict=True)) / 3
        assert weighed[name] == pytest.approx(mean, rel=1e-6) and weighed[name] != pytest.approx(plain[name], rel=2e-5)
    assert [weighed[name] for name in ("iu", "ii")] == pytest.approx([plain["iu"], plain["ii"]], rel=1e-6)


# ---- the equation ---------------------------------------------------------------------------------------------


def slow_layers(model):
    """Layers 0 and 1, edge by edge: users and items as `[layer][id]` lists."""
    users, items = model.user_embedding.weight.tolist(), model.item_embedding.weight.tolist()
    if isinstance(model, MFModel):
        return [users], [items]
    pairs = model.edges.T.tolist()
    degrees = [[sum(pair[side] == i for pair in pairs) for i in range(size)] for side, size in ((0, 99), (1, 99))]
    above = [[0.0] * 4 for _ in users], [[0.0] * 4 for _ in items]
    for user, item in pairs:
        weight = 1 / sqrt(degrees[0][user] * degrees[1][item])
        for d in range(4):
            above[0][user][d] += weight * items[item][d]
            above[1][item][d] += weight * users[user][d]
    return [users, above[0]], [items, above[1]]


@pytest.mark.parametrize("kind", ["mf", "lightgcn"])
@pytest.mark.parametrize("release", [False, True])
def test_against_a_slow_loop(kind, release):
    distiller = distiller_of(kind, release=release).double()
    student, method = distiller.student, distiller.methods["lwc_kd"]
    before = before_of(kind).double()
    loss = loss_of(distiller).item()

    (old_users, old_items), (users, items) = slow_layers(before), slow_layers(student)
    old, now, known = {"u": old_users, "i": old_items}, {"u": users, "i": items}, {"u": KNOWN_USERS, "i": KNOWN_ITEMS}
    has = {"u": {}, "i": {}}
    for user, item in OLD_EDGES.T.tolist():
        has["u"].setdefault(user, set()).add(item)
        has["i"].setdefault(item, set()).add(user)

    def neighbours(name, entity):
        side, other = name
        if side != other:
            return has[side].get(entity, set())
        mine, graph = has[side].get(entity, set()), method.contrasts[name]
        return {
            n
            for n, theirs in has[side].items()
            if n != entity and len(mine & theirs) / sqrt(len(mine) * len(theirs) or 1) > threshold(graph, side)
        }

    def threshold(graph, side):
        """The smallest cosine of the graph, less a little; the graph itself is tested elsewhere."""
        cosines = [
            len(has[side][a] & has[side][b]) / sqrt(len(has[side][a]) * len(has[side][b]))
            for a in has[side]
            for b in graph.values[graph.starts[a] : graph.starts[a + 1]].tolist()
        ]
        return min(cosines) - 1e-9

    batch = batch_of()
    asked = {"u": batch["user_ids"], "i": batch["targets"]}
    asked = {side: sorted({i for i in ids.tolist() if i <= known[side]}) for side, ids in asked.items()}
    means = [
        [[sum(layer[i][d] for layer in layers) / len(layers) for d in range(4)] for i in asked["u"]]
        for layers in (old_users, users)
    ]
    weights = [1.0] * len(asked["u"]) if release else method.imitation(*torch.tensor(means).double()).tolist()
    assert release or max(weights) - min(weights) > 1e-3

    terms = {}
    for name in TERMS:
        total = 0.0
        for entity, weight in zip(asked[name[0]], weights if name[0] == "u" else [1.0] * 99, strict=False):
            near = neighbours(name, entity)
            for layer, table in enumerate(now[name[1]]):
                a = old[name[0]][layer][entity]
                shares = [exp(sum(x * y for x, y in zip(a, b, strict=True)) / 5) for b in table[: known[name[1]] + 1]]
                gains = sum(log(shares[n] / sum(shares[1:])) for n in near)
                total -= weight * gains / (len(near) + 1e-12) / len(now[name[1]])
        terms[name] = total / len(asked[name[0]])
    found = told(method)
    assert {name: found[name] for name in TERMS} == pytest.approx(terms, rel=1e-7)
    bought = sorted({*EDGES[1].tolist()})
    mean = torch.tensor(
        [[sum(layer[i][d] for layer in items) / len(items) for d in range(4)] for i in bought], dtype=torch.float64
    )
    cluster = method.imitation.clustering(mean).item()
    assert loss == pytest.approx(0.01 * sum(terms.values()) + cluster, rel=1e-6)


def test_layers():
    before = before_of(edge_dropout=0.5).train()
    for ours, word_for_word in zip(layers_of_old(before), slow_layers(before), strict=True):
        torch.testing.assert_close(ours[:, 1:], torch.tensor(word_for_word)[:, 1:], rtol=1e-4, atol=1e-6)
    assert before.training and not any(table.requires_grad for table in layers_of_old(before))


def test_sampled_form_nears_the_exact_one():
    exact, torch_seed = distiller_of("mf"), torch.manual_seed(0)
    quick = distiller_of("mf", max_entities=4, candidates=6)
    quick.load_state_dict(exact.state_dict())
    torch.manual_seed(torch_seed.initial_seed())
    losses = [loss_of(quick).item() for _ in range(200)]
    assert len(set(losses)) > 100
    assert sum(losses) / 200 == pytest.approx(loss_of(exact).item(), rel=0.02)
    everybody = distiller_of("mf", max_entities=99, candidates=99)
    everybody.load_state_dict(exact.state_dict())
    assert loss_of(everybody).item() == pytest.approx(loss_of(exact).item(), rel=1e-6)


# ---- who learns -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mf", "lightgcn"])
def test_gradient_reaches_the_known_and_the_parameters_of_the_method(kind):
    distiller, before = distiller_of(kind, before := before_of(kind)), before
    student, method = distiller.student, distiller.methods["lwc_kd"]
    assert {name.split(".")[0] for name, _ in method.named_parameters()} == {"imitation"}
    loss_of(distiller).backward()
    users, items = student.user_embedding.weight.grad, student.item_embedding.weight.grad
    assert users[1 : KNOWN_USERS + 1].any(1).all() and items[1 : KNOWN_ITEMS + 1].any(1).all()
    if kind == "mf":
        assert not users[KNOWN_USERS + 1 :].any() and not items[KNOWN_ITEMS + 1 :].any()
    assert method.imitation.centres.grad.any() and method.imitation.transforms.grad.any()
    assert all(parameter.grad is None for parameter in before.parameters())
    assert not method.old_users.requires_grad and "old_users" in method.state_dict()


def test_in_the_release_weights_do_nothing():
    plain, release = distiller_of(), distiller_of(release=True)
    loss_of(plain), loss_of(release).backward()
    one, other = told(plain.methods["lwc_kd"]), told(release.methods["lwc_kd"])
    assert one["ui"] != pytest.approx(other["ui"], rel=1e-6) and one["ii"] == pytest.approx(other["ii"], rel=1e-6)
    assert release.methods["lwc_kd"].imitation.transforms.grad is None


@pytest.mark.parametrize("settings", [{}, {"candidates": 5}])
def test_large_vectors_stay_finite(settings):
    distiller = distiller_of("mf", before_of("mf", initializer_range=40.0), **settings)
    with torch.no_grad():
        distiller.student.item_embedding.weight.mul_(40)
    loss = loss_of(distiller)
    loss.backward()
    assert loss.isfinite() and loss > 1
    assert all(p.grad is None or p.grad.isfinite().all() for p in distiller.parameters())


@pytest.mark.parametrize("settings", [{}, {"candidates": 5}])
def test_autocast_changes_nothing(settings):
    distiller, losses = distiller_of("mf", **settings), []
    for enabled in (False, True):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            losses.append(loss_of(distiller))
    assert torch.equal(*losses) and losses[0].dtype == torch.float32


def test_a_batch_of_strangers():
    fresh = [at for at, user in enumerate(TRAIN.user[TrainingPairs(TRAIN).row]) if user > KNOWN_USERS][:3]
    distiller = distiller_of("mf")
    loss = loss_of(distiller, fresh)
    loss.backward()
    assert loss.isfinite() and told(distiller.methods["lwc_kd"])["ui"] == 0


def test_it_holds_the_student_to_what_it_was(tmp_path):
    """After many steps alone, neighbours of the block before rank higher for the old vectors than at first."""
    distiller = distiller_of("mf", contrast=1.0)
    first = loss_of(distiller).item()
    optimizer = torch.optim.Adam(distiller.parameters(), 0.05)
    for _ in range(60):
        optimizer.zero_grad()
        loss_of(distiller).backward()
        optimizer.step()
    assert loss_of(distiller).item() < 0.8 * first


# ---- runs -----------------------------------------------------------------------------------------------------


def trained(folder, kind="lightgcn", resume=None, own=False, **changes):
    settings = {"clusters": 3, "degree": 4.0, "max_entities": 5, "candidates": 8}
    before, edges = (None, None) if own else (before_of(kind), OLD_EDGES)
    torch.manual_seed(5)
    method = LWCKD(LWCKDConfig(**settings), before, edges)
    distiller = Distiller(student_of(kind), {"lwc_kd": method}, {"lwc_kd": 1.0})
    trainer = DistillationTrainer(
        distiller, arguments(folder, **{"per_device_train_batch_size": 32, "tail_queries": False, **changes}), TRAIN
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


@pytest.mark.parametrize("kind, own", [("lightgcn", False), ("lightgcn", True), ("mf", False)])
def test_resume_is_bit_identical(kind, own, tmp_path):
    """With all that is drawn, and with the student itself as what was before."""
    straight = trained(tmp_path / "a", kind, own=own)
    whole = trained(tmp_path / "b", kind, own=own, save_strategy="steps", save_steps=1)
    last = whole.state.global_step
    for step in range(last * 3 // 4 + 1, last + 1):
        shutil.rmtree(tmp_path / "b" / f"checkpoint-{step}")
    resumed = trained(tmp_path / "b", kind, resume=True, own=own)
    assert resumed.state.global_step == last > 6
    one, other = ({**t.model.student.state_dict(), **t.model.methods.state_dict()} for t in (straight, resumed))
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    initial = LWCKD(LWCKDConfig(clusters=3), before_of(kind), OLD_EDGES)
    initial.prepare(student_of(kind), {})
    assert not torch.equal(one["lwc_kd.imitation.centres"], initial.imitation.centres)
    assert {f"lwc_kd/{name}" for name in (*TERMS, "cluster")} <= straight.state.log_history[0].keys()


# ---- errors ---------------------------------------------------------------------------------------------------


def sasrec():
    return tiny_sasrec(SPLIT)


def cml():
    return CMLModel(CMLConfig(num_items=ITEMS, num_users=USERS, hidden_size=4))


@pytest.mark.parametrize("student", [sasrec, cml])
def test_other_students_are_refused(student):
    with pytest.raises(ConfigError, match="Take MF or LightGCN"):
        LWCKD().prepare(student(), {})


def test_what_was_must_fit():
    with pytest.raises(ConfigError, match=r"interactions of the block before.*edges_of"):
        LWCKD().prepare(student_of("mf"), {})
    with pytest.raises(ConfigError, match="LightGCNModel of width 4 with MFModel of width 4"):
        LWCKD(before=before_of("mf"), edges=OLD_EDGES).prepare(student_of(), {})
    with pytest.raises(ConfigError, match="24 users, and the student's 18"):
        LWCKD(before=student_of("mf"), edges=EDGES).prepare(before_of("mf"), {})
    with pytest.raises(DataError, match=r"1\.\.18"):
        LWCKD(before=before_of("mf"), edges=EDGES).prepare(student_of("mf"), {})
    stranger = before_of("mf")
    stranger.set_catalogue(Catalogue(f"other{i}" for i in range(KNOWN_ITEMS)))
    with pytest.raises(ConfigError, match="16 items, and the student's 20 do not begin with these"):
        LWCKD(before=stranger, edges=OLD_EDGES).prepare(student_of("mf"), {})
    with pytest.raises(ConfigError, match="Set clusters to fewer"):
        LWCKD(LWCKDConfig(clusters=40), before_of()).prepare(student_of(), {})


@pytest.mark.parametrize(
    "wrong",
    ["temperature", "degree", "clusters", "max_entities", "candidates"],
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match=wrong):
        LWCKDConfig(**{wrong: 0})
    with pytest.raises(ConfigError, match="cluster must be at least 0"):
        LWCKDConfig(cluster=-1.0)


def test_layers_keep_the_graph_of_the_student():
    users, items = layers_of(student_of())
    assert len(users) == len(items) == 2 and users[1].requires_grad
