"""The consensus of one model is the model; that of several is what their ranks say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from seqkd.batches.collators import SequenceDataset
from seqkd.batches.target_sets import TargetSets
from seqkd.errors import ConfigError
from seqkd.evaluation.consensus import consensus_metrics
from seqkd.evaluation.ranks import rank_targets
from seqkd.models.mf import MFConfig, MFModel

from ..tiny import ITEMS, tiny_sasrec, tiny_split

SPLIT = tiny_split()


def mf(seed):
    torch.manual_seed(seed)
    model = MFModel(MFConfig(num_items=ITEMS, num_users=len(SPLIT.users), hidden_size=6, initializer_range=1.0))
    model.set_catalogue(SPLIT.catalogue)
    model.set_users(SPLIT.users)
    return model.eval()


@pytest.mark.parametrize("kind", [SequenceDataset, TargetSets])
def test_of_one_model_it_is_its_own_ranking(kind):
    rows = kind(SPLIT.test, ITEMS, SPLIT.users)
    expected = rank_targets(mf(0), rows, depth=10).metrics((3, 10))
    assert consensus_metrics([mf(0)], rows, (3, 10)) == pytest.approx(expected)


def test_of_one_sequence_model_it_is_its_own_ranking():
    rows, model = SequenceDataset(SPLIT.train, ITEMS), tiny_sasrec(SPLIT).eval()
    expected = rank_targets(model, rows, depth=5).metrics((5,))
    assert consensus_metrics([model], rows, (5,)) == pytest.approx(expected)


def test_of_two_models_by_hand():
    """Each item counts the mean of (1 / (rank + 1))^0.05 over both, among the items that the user has not."""
    rows, models = TargetSets(SPLIT.test, ITEMS, SPLIT.users), [mf(0), mf(1)]
    found = []
    for row, user in zip(SPLIT.test, rows.user, strict=True):
        *history, target = row["item_ids"]
        free = [item for item in range(1, ITEMS + 1) if item not in history]
        total = dict.fromkeys(free, 0.0)
        for model in models:
            with torch.no_grad():
                scores = (model.item_embedding.weight @ model.user_embedding.weight[user]).tolist()
            for rank, item in enumerate(sorted(free, key=lambda item: -scores[item])):
                total[item] += (1 / (rank + 1)) ** 0.05
        found.append(target in sorted(free, key=lambda item: (-total[item], item))[:3])
    assert consensus_metrics(models, rows, (3,))["recall@3"] == pytest.approx(np.mean(found))


@pytest.mark.parametrize(("models", "ks"), [([], (5,)), ([mf(0)], (500,))])
def test_what_it_refuses(models, ks):
    with pytest.raises(ConfigError, match="needs a model"):
        consensus_metrics(models, TargetSets(SPLIT.test, ITEMS, SPLIT.users), ks)
