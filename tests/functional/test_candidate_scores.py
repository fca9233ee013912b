import torch

from seqkd.functional import candidate_scores as module
from seqkd.functional.candidate_scores import ascending, candidate_scores


def tensors(repeat):
    torch.manual_seed(0)
    queries, items = torch.randn(5, 3, dtype=torch.float64), torch.randn(7, 3, dtype=torch.float64)
    ids = torch.tensor([[1, 1, 2], [6, 0, 2], [3, 3, 3], [5, 6, 1], [2, 5, 0]] if repeat else [[1], [2], [3], [4], [6]])
    return queries.requires_grad_(), items.requires_grad_(), ids


def test_scores_and_gradients_by_hand():
    """Query (1, 2) with item 2 = (3, 4): 11. Its gradient is the item, the item's gradient the query."""
    queries = torch.tensor([[1.0, 2.0]], requires_grad=True)
    items = torch.tensor([[9.0, 9.0], [5.0, 6.0], [3.0, 4.0]], requires_grad=True)
    scores = candidate_scores(queries, items, torch.tensor([[2, 0, 2]]))
    assert scores.tolist() == [[11.0, 27.0, 11.0]]
    (scores * torch.tensor([[1.0, 10.0, 0.5]])).sum().backward()
    assert queries.grad.tolist() == [[1.5 * 3 + 90, 1.5 * 4 + 90]]
    assert items.grad.tolist() == [[0.0, 0.0], [0.0, 0.0], [1.5, 3.0]]  # padding learns nothing


def test_gradients_are_those_of_a_plain_lookup():
    for repeat in (True, False):
        queries, items, ids = tensors(repeat)
        weights = torch.randn(ids.shape, dtype=torch.float64)
        (candidate_scores(queries, items, ids) * weights).sum().backward()
        plain_queries, plain_items, _ = tensors(repeat)
        vectors = torch.nn.functional.embedding(ids, plain_items, padding_idx=0)
        (torch.einsum("qcd,qd->qc", vectors, plain_queries) * weights).sum().backward()
        torch.testing.assert_close(queries.grad, plain_queries.grad)
        torch.testing.assert_close(items.grad, plain_items.grad)


def test_no_candidates_and_mixed_precision():
    queries, items = torch.ones(2, 3, requires_grad=True), torch.ones(4, 3, dtype=torch.bfloat16, requires_grad=True)
    candidate_scores(queries, items, torch.zeros(2, 0, dtype=torch.int64)).sum().backward()
    assert not queries.grad.any()
    candidate_scores(queries, items, torch.tensor([[1], [2]])).sum().backward()
    assert items.grad.dtype == torch.bfloat16 and items.grad.sum() == 6


def test_the_size_of_a_part_changes_nothing(monkeypatch):
    """Two queries at a time of five, and one at a time where not even one fits."""
    queries, items, ids = tensors(repeat=True)
    whole = candidate_scores(queries, items, ids)
    for numbers in (2 * ids.shape[1] * items.shape[1], 1):
        monkeypatch.setattr(module, "CPU_CHUNK", numbers)
        assert torch.equal(candidate_scores(queries, items, ids), whole)


def test_order_of_ids_of_any_size():
    assert ascending(torch.tensor([70000, 3, 65539, 3, 1])).tolist() == [4, 1, 3, 2, 0]  # 65539 is 3 in its lower half
    ids = torch.randint(0, 2**32, (5000,), generator=torch.Generator().manual_seed(0)).repeat(2)
    assert torch.equal(ascending(ids), ids.argsort(stable=True))
    assert ascending(ids[:0]).tolist() == []
