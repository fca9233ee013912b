"""Worker processes hold copies of the data and the collator: what they draw must be what one process draws."""

from __future__ import annotations

import pytest
import torch

from seqkd.batches.collators import SequenceDataset
from seqkd.distiller import Distiller
from seqkd.models.mf import MFConfig, MFModel
from seqkd.models.recformer import RecformerModel
from seqkd.trainer import DistillationTrainer
from tests.models.recformer.tiny_recformer import tiny_recformer
from tests.tiny import ITEMS, USERS, arguments, tiny_split


class Watched(DistillationTrainer):
    """Remembers every batch, by the epoch that it was fetched in."""

    def get_batch_samples(self, *args):
        self.batches = getattr(self, "batches", {0: [], 1: []})
        fetched, items = super().get_batch_samples(*args)
        self.batches[int(self.state.epoch or 0)] += fetched
        return fetched, items

    def drawn(self, epoch: int) -> torch.Tensor:
        """By row: who was asked, and what was drawn for him."""
        table = torch.cat(
            [
                torch.cat([batch["query_ids"][:, None], batch["targets"][:, None], batch["negatives"]], dim=1)
                if "negatives" in batch
                else torch.stack([batch["query_ids"], batch["targets"]], dim=1)
                for batch in self.batches[epoch]
            ]
        )
        return table[table[:, 0].argsort(stable=True)]


def student(kind: str, split):
    if kind == "recformer":  # draws one query of each row, anew in every epoch
        return tiny_recformer(RecformerModel, split)
    torch.manual_seed(0)
    model = MFModel(MFConfig(num_users=USERS, num_items=ITEMS, hidden_size=4, num_negatives=3))
    model.set_catalogue(split.catalogue)
    model.set_users(split.users)
    return model


def train(folder, kind, resume=None, **changes) -> Watched:
    split = tiny_split()
    rows = SequenceDataset(split.train, ITEMS, split.users)
    settings = {"tail_queries": False, "seed": 7, "per_device_train_batch_size": 24, "save_strategy": "steps"}
    trainer = Watched(Distiller(student(kind, split)), arguments(folder, **settings, save_steps=1, **changes), rows)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


@pytest.mark.parametrize("kind", ["mf", "recformer"])
def test_workers_draw_what_one_process_draws(kind, tmp_path):
    """Negatives of MF, queries of Recformer: new in every epoch, the same with workers as without."""
    alone = train(tmp_path / "0", kind)
    several = train(tmp_path / "2", kind, dataloader_num_workers=2)
    for epoch in (0, 1):
        assert torch.equal(several.drawn(epoch), alone.drawn(epoch))
    assert alone.drawn(0).shape == alone.drawn(1).shape and not torch.equal(several.drawn(0), several.drawn(1))
    for ours, theirs in zip(several.model.parameters(), alone.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_run_with_workers_resumes_in_mid_epoch(tmp_path):
    whole = train(tmp_path, "mf", dataloader_num_workers=2)
    first = len(whole.batches[0])
    resumed = train(tmp_path, "mf", str(tmp_path / f"checkpoint-{first + 1}"), dataloader_num_workers=2)
    assert not resumed.batches[0] and len(resumed.batches[1]) == len(whole.batches[1]) - 1
    for ours, theirs in zip(resumed.batches[1], whole.batches[1][1:], strict=True):
        assert torch.equal(ours["negatives"], theirs["negatives"])
    for ours, theirs in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
