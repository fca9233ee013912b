from __future__ import annotations

import json

import pytest
import torch

from seqkd.catalogue import Catalogue
from seqkd.continual.proxies import follow
from seqkd.errors import ConfigError, DataError
from seqkd.models.lightgcn import LightGCNModel
from seqkd.models.mf import MFModel
from seqkd.models.neumf import NeuMFModel

from ..methods.tiny_rankings import tensor
from ..tiny import tiny_sasrec, tiny_split

EDGES = torch.tensor([[1, 1, 2, 3, 4], [1, 2, 3, 4, 5]])


def recommender(kind=MFModel, users=4, items=5, width=3, seed=0, **config):
    torch.manual_seed(seed)
    made = kind(kind.config_class(num_users=users, num_items=items, hidden_size=width, **config))
    made.set_catalogue(Catalogue(f"item{i}" for i in range(1, items + 1)), torch.arange(items + 1.0) + seed)
    made.set_users(Catalogue(f"user{u}" for u in range(1, users + 1)))
    return made


def golden_mf(tables):
    """In float64; row 0 of ours is padding."""
    users, items = tensor(tables["user"]), tensor(tables["item"])
    made = recommender(users=len(users), items=len(items)).double()
    with torch.no_grad():
        made.user_embedding.weight[1:] = users
        made.item_embedding.weight[1:] = items
    return made


def near_tables(model, expected):
    """To the eight decimals of the golden file."""
    for name in ("user", "item"):
        got = getattr(model, f"{name}_embedding").weight[1:].detach()
        torch.testing.assert_close(got, tensor(expected[name]), rtol=2e-7, atol=2e-8)


def test_golden(golden):
    case = json.loads((golden / "ccd_proxy_update.json").read_text())
    proxy, student = golden_mf(case["old_proxy"]), golden_mf(case["distilled_student"])
    assert len(case["cases"]) == 4
    for expected in case["cases"]:
        near_tables(follow(proxy, student, expected["retain_weight"]), expected)
    near_tables(follow(proxy, student, 0.5), case["plain_mean_variant"])


def test_golden_chain(golden):
    case = json.loads((golden / "ccd_proxy_update.json").read_text())
    chain, proxy = case["two_step_chain_w0.9"], golden_mf(case["old_proxy"])
    for student, expected in zip(chain["students"], chain["proxies"], strict=True):
        proxy = follow(proxy, golden_mf(student), 0.9)
        near_tables(proxy, expected)


def test_all_weights_are_averaged_and_all_else_is_the_students():
    proxy, student = recommender(NeuMFModel, seed=1), recommender(NeuMFModel, users=6, items=9, seed=2)
    followed = follow(proxy, student, 0.3)
    old, new = dict(proxy.named_parameters()), dict(student.named_parameters())
    assert len(old) > 6
    for name, got in followed.named_parameters():
        rows = len(old[name])
        torch.testing.assert_close(got[:rows], 0.3 * old[name] + 0.7 * new[name][:rows])
        assert torch.equal(got[rows:], new[name][rows:])
    assert torch.equal(followed.item_counts, student.item_counts)
    assert (followed.catalogue, followed.users) == (student.catalogue, student.users)
    assert (followed.config.num_items, followed.config.num_users) == (9, 6)


def test_it_is_a_new_model_that_the_others_do_not_feel():
    proxy, student = recommender(seed=1), recommender(seed=2)
    student.user_embedding(torch.tensor([1])).sum().backward()
    before = [p.detach().clone() for p in (*proxy.parameters(), *student.parameters())]
    followed = follow(proxy, student.train(), 0.5)
    with torch.no_grad():
        followed.item_embedding.weight.add_(1)
    followed.config.num_items = 0
    assert all(map(torch.equal, before, (*proxy.parameters(), *student.parameters())))
    assert student.config.num_items == 5 and student.training and not followed.training
    assert student.user_embedding.weight.grad is not None and followed.user_embedding.weight.grad is None


@pytest.mark.parametrize("retain", [0.0, 1.0])
def test_the_ends_are_bit_equal(retain):
    proxy, student = recommender(seed=1), recommender(users=7, seed=2)
    followed = follow(proxy, student, retain)
    wanted = proxy if retain else student
    assert torch.equal(followed.user_embedding.weight[:5], wanted.user_embedding.weight[:5])
    assert torch.equal(followed.user_embedding.weight[5:], student.user_embedding.weight[5:])


def test_without_a_proxy_the_student_is_its_own():
    student = recommender()
    followed = follow(None, student, 0.9)
    assert followed is not student
    assert all(map(torch.equal, followed.state_dict().values(), student.state_dict().values()))


def test_the_figures_chain_is_a_way_of_calling_it():
    """Stability from the student, plasticity from stability."""
    student, stability, plasticity = (recommender(seed=seed) for seed in range(3))
    stability = follow(stability, student, 0.9)
    plasticity = follow(plasticity, stability, 0.1)
    weights = 0.1 * recommender(seed=2).user_embedding.weight + 0.9 * (
        0.9 * recommender(seed=1).user_embedding.weight + 0.1 * student.user_embedding.weight
    )
    torch.testing.assert_close(plasticity.user_embedding.weight, weights)


def test_lightgcn_takes_the_students_graph_and_forgets_its_step():
    """A step whose gradient was never asked holds tables, which cannot be copied."""
    proxy, student = recommender(LightGCNModel, seed=1), recommender(LightGCNModel, users=5, items=6, seed=2)
    proxy.set_edges(EDGES[:, :3])
    student.set_edges(EDGES)
    student.train()
    student(user_ids=torch.tensor([1, 2]))
    followed = follow(proxy, student, 0.5)
    assert torch.equal(followed.edges, student.edges) and followed.config.num_edges == 5
    fresh = recommender(LightGCNModel, users=5, items=6)
    fresh.set_edges(EDGES)
    fresh.load_state_dict(followed.state_dict())
    everyone = torch.arange(1, 6)
    with torch.no_grad():
        torch.testing.assert_close(followed(everyone).query_embeddings, fresh.eval()(everyone).query_embeddings)
        student.eval()(everyone)  # served tables are held, too
        follow(proxy, student, 0.5)


def test_a_sequential_model_follows():
    proxy, student = tiny_sasrec(tiny_split(), seed=1), tiny_sasrec(tiny_split(), seed=2)
    student.add_items(["new"])
    followed = follow(proxy, student, 0.5)
    table = (proxy.item_embedding.weight + student.item_embedding.weight[:-1]) / 2
    torch.testing.assert_close(followed.item_embedding.weight[:-1], table)
    torch.testing.assert_close(
        followed.position_embedding.weight, (proxy.position_embedding.weight + student.position_embedding.weight) / 2
    )


def test_it_is_saved_and_loaded(tmp_path):
    followed = follow(recommender(seed=1), recommender(users=7, items=8, seed=2), 0.5)
    followed.save_pretrained(tmp_path)
    loaded = MFModel.from_pretrained(tmp_path)
    assert torch.equal(loaded.item_embedding.weight, followed.item_embedding.weight) and len(loaded.users) == 7


def test_errors():
    student = recommender(users=6, items=9)
    for proxy, said in (
        (recommender(NeuMFModel), "NeuMFModel cannot follow a MFModel"),
        (recommender(width=4), r"not of one architecture: .*_embedding.weight is \(\d, 4\) .* \(\d+, 3\)"),
    ):
        with pytest.raises(ConfigError, match=said):
            follow(proxy, student, 0.5)
    deeper = [tiny_sasrec(tiny_split(), num_hidden_layers=n) for n in (1, 2)]
    longer = tiny_sasrec(tiny_split(), max_position_embeddings=13)
    for one, other in (deeper, deeper[::-1], (deeper[0], longer)):
        with pytest.raises(ConfigError, match="not of one architecture"):
            follow(one, other, 0.5)
    with pytest.raises(DataError, match="number items otherwise"):
        follow(student, recommender(), 0.5)  # an earlier block
    other = recommender(users=6, items=9)
    other.set_users(Catalogue(f"someone{u}" for u in range(6)))
    with pytest.raises(DataError, match="number users otherwise"):
        follow(other, student, 0.5)
    for retain in (-0.1, 1.1, float("nan")):
        with pytest.raises(ConfigError, match="retain"):
            follow(student, student, retain)
    other.users = None
    with pytest.raises(ConfigError, match="external ids"):
        follow(other, student, 0.5)
