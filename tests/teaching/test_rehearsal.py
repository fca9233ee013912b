from __future__ import annotations

import pytest
import torch

from seqkd.batches.collators import SequenceDataset
from seqkd.batches.positives import Positives
from seqkd.errors import ConfigError, DataError
from seqkd.method import Epoch
from seqkd.models.fm import FMConfig, FMModel
from seqkd.models.lightgcn import LightGCNConfig, LightGCNModel, edges_of
from seqkd.teaching.rehearsal import Rehearsal

from ..methods.tiny_rankings import ITEMS, USERS, dataset, mf, rows_of, set_split
from ..tiny import nobody, tiny_sasrec, tiny_split

SPLIT = set_split()
ROWS = dataset(SPLIT)


def epoch(number=0, num_steps=5):
    generator = torch.Generator().manual_seed(number)
    return Epoch(number, 4, generator, Positives(ROWS), nobody, num_steps)


def lightgcn(**config):
    torch.manual_seed(0)
    settings = {"num_items": ITEMS, "num_users": USERS, "hidden_size": 4, "initializer_range": 0.5}
    model = LightGCNModel(LightGCNConfig(**{**settings, **config}), edges_of(ROWS))
    model.set_catalogue(SPLIT.catalogue)
    model.set_users(SPLIT.users)
    return model


@pytest.mark.parametrize("num_steps", [1, 5, 7, 24, 100])
def test_an_epoch_goes_through_all_rows(num_steps):
    rehearsal = Rehearsal(mf(SPLIT), ROWS)
    orders = []
    for number in range(4):
        rehearsal.begin(epoch(number, num_steps))
        steps = range(number * num_steps, (number + 1) * num_steps)
        windows = [rehearsal.window(torch.tensor(step / (4 * num_steps))) for step in steps]
        size = -(-USERS // num_steps)
        assert {len(window) for window in windows} == {size} and all(len(set(w.tolist())) == size for w in windows)
        asked = torch.cat(windows)
        assert set(asked.tolist()) == {*range(USERS)} and asked[:USERS].unique().numel() == USERS
        orders.append(asked[:USERS].tolist())
    assert orders[0] != orders[1]


def test_late_steps_of_long_runs_are_exact():
    """float32 tells the 3,000,000th step from its neighbours."""
    rehearsal = Rehearsal(mf(SPLIT), ROWS)
    rehearsal.begin(Epoch(0, 1, torch.Generator(), None, nobody, 3_000_000))
    for step in (2_999_998, 2_999_999):
        window = rehearsal.window(torch.tensor(step / 3_000_000))
        assert torch.equal(window, rehearsal.order[[step % USERS]])


def test_students_with_user_vectors_are_asked_by_id():
    for student in (mf(SPLIT), lightgcn()):
        rehearsal = Rehearsal(student, ROWS)
        rehearsal.begin(epoch())
        asked = rehearsal.ask(torch.tensor([3, 0]))
        torch.testing.assert_close(asked, student.user_embeddings(torch.tensor([4, 1])))
        assert asked.requires_grad


def test_lightgcn_propagates_once_a_step(monkeypatch):
    """The rehearsal reads the tables of the step, dropout and all."""
    student = lightgcn(edge_dropout=0.5).train()
    calls = []
    propagate = student._graph().__class__.drop_edges
    monkeypatch.setattr(student._graph().__class__, "drop_edges", lambda *given: calls.append(1) or propagate(*given))
    rehearsal = Rehearsal(student, ROWS)
    rehearsal.begin(epoch())
    calls.clear()
    output = student(user_ids=torch.tensor([1, 2])).query_embeddings
    torch.testing.assert_close(rehearsal.ask(torch.tensor([0, 1])), output, rtol=0, atol=0)
    assert len(calls) == 1


def test_others_answer_from_the_whole_history():
    split = tiny_split()
    rows = SequenceDataset(split.train, ITEMS)  # labelled at every position: only the tail is asked
    student = tiny_sasrec(split).eval()
    rehearsal = Rehearsal(student, rows)
    rehearsal.begin(epoch())
    asked = rehearsal.ask(torch.tensor([5, 2]))
    assert rehearsal.query_ids[0] == len(rows[0].item_ids) - 1
    for row, got in zip((5, 2), asked, strict=True):
        batch = student.collator(tail=True)([rows[row]])
        alone = student(**{name: batch[name] for name in student.inputs}).query_embeddings
        assert batch["query_ids"][-1] == rehearsal.query_ids[row]
        torch.testing.assert_close(got, alone[-1], rtol=1e-4, atol=1e-5)


def test_a_model_of_users_and_histories_is_asked_by_both():
    student = FMModel(FMConfig(num_items=ITEMS, num_users=USERS, hidden_size=4))
    student.set_catalogue(SPLIT.catalogue)
    student.set_users(SPLIT.users)
    rehearsal = Rehearsal(student.eval(), ROWS)
    assert not rehearsal.by_user and rehearsal.ask(torch.tensor([3, 0])).shape == (2, student.embedding_size)


@pytest.mark.parametrize("kind", ["mf", "lightgcn", "sasrec"])
def test_ranks_are_those_of_all_scores(kind, monkeypatch):
    """In parts; nothing is masked; the student's mode stays."""
    monkeypatch.setattr("seqkd.teaching.rehearsal.ASKED", 4)
    student = {"mf": lambda: mf(SPLIT), "lightgcn": lightgcn, "sasrec": lambda: tiny_sasrec(SPLIT)}[kind]().train()
    rehearsal = Rehearsal(student, ROWS)
    rehearsal.begin(epoch())
    rows, everything = torch.tensor([7, 1, 4, 20, 3, 2]), torch.arange(1, ITEMS + 1).expand(6, -1)
    ranks = rehearsal.ranks(rows, everything)
    assert student.training
    student.eval()
    scores = student.score(rehearsal.ask(rows))[:, 1:]
    expected = scores.argsort(dim=1, descending=True).argsort(dim=1)
    assert torch.equal(ranks, expected) and not ranks.requires_grad


def test_errors():
    with pytest.raises(ConfigError, match="number users alike"):
        Rehearsal(mf(SPLIT), SequenceDataset(SPLIT.train, ITEMS))
    with pytest.raises(DataError, match="row 1 of what is to be rehearsed is empty"):
        Rehearsal(tiny_sasrec(SPLIT), SequenceDataset(rows_of([[1, 2], []], False), ITEMS))
    with pytest.raises(DataError, match="SequenceDataset"):
        Rehearsal(mf(SPLIT), SPLIT.train)
