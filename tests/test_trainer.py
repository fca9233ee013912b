from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModel

from seqkd.batches.collators import SequenceDataset
from seqkd.catalogue import Catalogue
from seqkd.distiller import Distiller
from seqkd.errors import CheckpointError, ConfigError, SeqKDError
from seqkd.evaluation.ranks import rank_targets
from seqkd.models.mf import MFConfig, MFModel
from seqkd.teaching.teacher_weights import STATISTICS, teacher_weights_of
from seqkd.trainer import DistillationTrainer

from .tiny import ITEMS, USERS, arguments, parts, tiny_distiller, tiny_sasrec, tiny_split


def run(folder, distiller=None, resume=None, **changes):
    split = tiny_split()
    distiller = distiller or tiny_distiller(split, curriculum=None)
    trainer = DistillationTrainer(distiller, arguments(folder, **changes), *parts(split))
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def losses(trainer, name="loss"):
    return [entry[name] for entry in trainer.state.log_history if name in entry]


def weights(trainer):
    return trainer.model.student.state_dict()


def same(one, two):
    assert one.keys() == two.keys()
    return all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("candidates", ["in_batch", "catalogue"])
@pytest.mark.parametrize("curriculum", [True, False])
def test_accumulation_equals_one_batch(tmp_path, candidates, curriculum):
    settings = {} if curriculum else {"curriculum": None}
    one = run(tmp_path / "a", tiny_distiller(tiny_split(), candidates, **settings))
    four = run(
        tmp_path / "b",
        tiny_distiller(tiny_split(), candidates, **settings),
        per_device_train_batch_size=2,
        gradient_accumulation_steps=4,
    )
    assert losses(four) == pytest.approx(losses(one), abs=1e-5)
    assert losses(four, "loss_ckd_mdsr") == pytest.approx(losses(one, "loss_ckd_mdsr"), abs=2e-5)
    for name, tensor in weights(one).items():
        torch.testing.assert_close(weights(four)[name], tensor, atol=2e-4, rtol=1e-3)
    whole, parted = (teacher_weights_of(trainer.state.log_history) for trainer in (one, four))
    assert set(whole) == {"one", "two"}
    for teacher, told in whole.items():
        assert parted[teacher] == pytest.approx(told, abs=2e-5)
    for name in STATISTICS:
        assert whole["one"][name] + whole["two"][name] == pytest.approx(1, abs=2e-5)


def test_teacher_weights_are_means_over_the_queries_of_an_epoch(tmp_path, monkeypatch):
    """What the log says after one step is what the method said about every query of it."""
    told = []
    distiller = tiny_distiller(tiny_split(), "catalogue", curriculum=None)
    method = distiller.methods["ckd_mdsr"]
    forward = method.forward
    monkeypatch.setattr(method, "forward", lambda *given: (forward(*given), told.append(method.statistics))[0])
    trainer = run(tmp_path, distiller, per_device_train_batch_size=5, gradient_accumulation_steps=5, max_steps=1)
    assert len(told) == 5  # 24 users
    weights = teacher_weights_of(trainer.state.log_history)
    for name in STATISTICS:
        every = torch.cat([batch[f"two/{name}"] for batch in told])
        assert weights["two"][name] == pytest.approx(every.mean().item(), abs=1e-5)
    assert not [name for entry in trainer.state.log_history for name in entry if name.startswith("loss_ckd_mdsr/")]


def test_loss_falls_and_the_walk_is_learnt(tmp_path):
    split = tiny_split()
    trainer = run(
        tmp_path,
        Distiller(tiny_sasrec(split, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)),
        num_train_epochs=60,
    )
    assert losses(trainer)[-1] < 0.5 * losses(trainer)[0]
    metrics = trainer.evaluate()
    assert metrics["eval_recall@10"] > 0.9  # the next id


def test_terms_add_up(tmp_path):
    trainer = run(tmp_path, num_train_epochs=1)
    for total, label, method in zip(
        losses(trainer), losses(trainer, "loss_label"), losses(trainer, "loss_ckd_mdsr"), strict=True
    ):
        assert total == pytest.approx(label + 0.5 * method, abs=1e-4)


@pytest.mark.parametrize("step", [3, 4])  # the end of an epoch (24 users / 8), and the middle of the next
@pytest.mark.parametrize("candidates", ["in_batch", "catalogue"])
def test_resume_is_bit_identical(tmp_path, step, candidates):
    """With dropout and curriculum: resuming restores randomness, order and difficulty."""

    def made():
        return tiny_distiller(tiny_split(), candidates, dropout=0.3)

    straight = run(tmp_path / "a", made())
    first = run(tmp_path / "b", made(), save_strategy="steps", save_steps=1, save_total_limit=20)
    for folder in Path(tmp_path / "b").glob("checkpoint-*"):
        if int(folder.name.split("-")[1]) > step:
            shutil.rmtree(folder)
    resumed = run(tmp_path / "b", made(), resume=True)
    assert same(weights(straight), weights(first))
    assert same(weights(straight), weights(resumed))
    assert losses(resumed)[-2:] == losses(straight)[-2:]


def test_checkpoint_holds_the_bare_student_and_no_pickled_arguments(tmp_path):
    trainer = run(tmp_path, save_strategy="steps", save_steps=3)
    folder = tmp_path / "checkpoint-6"
    files = {path.name for path in folder.iterdir()}
    assert {"config.json", "model.safetensors", "item_ids.json", "seqkd_manifest.json"} <= files
    assert "training_args.bin" not in files
    student = AutoModel.from_pretrained(folder)
    assert type(student).__name__ == "SASRecModel" and same(student.state_dict(), weights(trainer))
    assert (
        student.recommend([["item1", "item2"]], k=3).item_ids[0]
        == trainer.model.student.recommend([["item1", "item2"]], k=3).item_ids[0]
    )


def test_half_written_newest_checkpoint_is_skipped_with_a_warning(tmp_path, caplog):
    straight = run(tmp_path / "a")
    run(tmp_path / "b", save_strategy="steps", save_steps=2, max_steps=4)
    (tmp_path / "b/checkpoint-4/seqkd_manifest.json").unlink()
    weights_file = tmp_path / "b/checkpoint-4/model.safetensors"
    weights_file.write_bytes(weights_file.read_bytes()[:100])
    resumed = run(tmp_path / "b", resume=True)
    assert "skipping checkpoint" in caplog.text and "interrupted" in caplog.text
    assert same(weights(straight), weights(resumed))
    assert (tmp_path / "b/checkpoint-4").is_dir()  # nothing is deleted


@pytest.mark.parametrize("lost", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "config.json"])
def test_a_checkpoint_with_a_missing_file_is_refused(tmp_path, lost):
    run(tmp_path, save_strategy="steps", save_steps=3, max_steps=3)
    (tmp_path / "checkpoint-3" / lost).unlink()
    with pytest.raises(CheckpointError, match=f"{lost} is missing"):
        run(tmp_path, resume=str(tmp_path / "checkpoint-3"))
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        run(tmp_path, resume=True)


def test_a_changed_checkpoint_is_refused(tmp_path):
    run(tmp_path, save_strategy="steps", save_steps=3, max_steps=3)
    path = tmp_path / "checkpoint-3" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="was changed after it was saved"):
        run(tmp_path, resume=str(tmp_path / "checkpoint-3"))


@pytest.mark.parametrize("what", ["items", "users"])
def test_a_checkpoint_about_others_is_refused(tmp_path, what):
    """And the message says which ids differ: those of items and of users look alike."""
    split = tiny_split()
    student = MFModel(MFConfig(num_users=USERS, num_items=ITEMS, hidden_size=4))
    known = {"items": split.catalogue, "users": split.users}

    def trainer():
        student.set_catalogue(known["items"])
        student.set_users(known["users"])
        rows = SequenceDataset(split.train, ITEMS, known["users"])
        settings = {"tail_queries": False, "save_strategy": "epoch", "num_train_epochs": 1}
        return DistillationTrainer(Distiller(student), arguments(tmp_path, **settings), rows)

    trainer().train()
    known[what] = Catalogue(reversed(known[what].item_ids))
    with pytest.raises(CheckpointError, match=f"is about the {what} of Catalogue.*the student about those of"):
        trainer().train(resume_from_checkpoint=True)


def test_nan_stops_the_run_and_keeps_the_last_checkpoint(tmp_path):
    split = tiny_split()
    distiller = tiny_distiller(split, curriculum=None)
    trainer = DistillationTrainer(distiller, arguments(tmp_path, save_strategy="steps", save_steps=1), *parts(split))
    step = trainer.training_step

    def poisoned(model, inputs, num_items_in_batch=None):
        if trainer.state.global_step == 2:
            with torch.no_grad():
                distiller.student.position_embedding.weight.fill_(float("nan"))
        return step(model, inputs, num_items_in_batch)

    trainer.training_step = poisoned
    with pytest.raises(SeqKDError, match=r"not finite at step 2.*query ids"):
        trainer.train()
    assert {path.name for path in tmp_path.glob("checkpoint-*")} == {"checkpoint-1", "checkpoint-2"}
    AutoModel.from_pretrained(tmp_path / "checkpoint-2")


def test_best_model_is_loaded_and_kept_by_rotation(tmp_path):
    trainer = run(
        tmp_path,
        num_train_epochs=6,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=True,
    )
    best = max(
        (entry for entry in trainer.state.log_history if "eval_ndcg@10" in entry),
        key=lambda entry: entry["eval_ndcg@10"],
    )
    assert trainer.evaluate()["eval_ndcg@10"] == best["eval_ndcg@10"]
    kept = {path.name for path in tmp_path.glob("checkpoint-*")}
    assert kept == {Path(trainer.state.best_model_checkpoint).name}


def test_evaluation_is_the_same_in_shards():
    split = tiny_split()
    model, (_, valid) = tiny_sasrec(split), parts(split)
    whole = rank_targets(model, valid, history="masked", depth=10)
    halves = [rank_targets(model, valid, history="masked", depth=10, shard=(i, 2), batch_size=5) for i in range(2)]
    assert torch.equal(whole.histogram(), halves[0].histogram() + halves[1].histogram())
    assert whole.metrics((10,)) != rank_targets(model, valid, history="unmasked", depth=10).metrics((10,))


def test_world_size_that_was_asked_for_is_checked(tmp_path):
    with pytest.raises(ConfigError, match="asked for num_processes=2, but the launcher started 1"):
        arguments(tmp_path, num_processes=2)


SCRIPT = """
import json, sys
from tests.tiny import arguments, parts, tiny_distiller, tiny_split
from seqkd.trainer import DistillationTrainer
from seqkd.processes import leave_process_group

def main():
    folder, candidates, batch = sys.argv[1], sys.argv[2], int(sys.argv[3])
    split = tiny_split()
    settings = arguments(folder, per_device_train_batch_size=batch, save_strategy="steps", save_steps=6)
    trainer = DistillationTrainer(tiny_distiller(split, candidates), settings, *parts(split))
    trainer.train()
    metrics = trainer.evaluate()
    total = {name: float(tensor.double().abs().sum()) for name, tensor in trainer.model.student.state_dict().items()}
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    losses = [entry[name] for entry in history for name in (
        "loss", "loss_label", "loss_ckd_mdsr", "ckd_mdsr/one/weight", "ckd_mdsr/two/leads")]
    path = f"{folder}/rank{trainer.args.process_index}.json"
    json.dump({"metrics": metrics, "total": total, "losses": losses, "world": trainer.args.world_size}, open(path, "w"))

main()
leave_process_group()
"""


@pytest.mark.slow
@pytest.mark.parametrize("candidates", ["in_batch", "catalogue"])
def test_two_processes_equal_one(tmp_path, candidates):
    root = Path(__file__).resolve().parents[1]
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": f"{root / 'src'}:{root}", "OMP_NUM_THREADS": "1"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node"]
    for world, batch in ((1, 8), (2, 4)):
        folder = tmp_path / str(world)
        folder.mkdir()
        command = [
            *launch,
            str(world),
            "--master_port",
            str(29500 + os.getpid() % 1000 + world),
            str(tmp_path / "script.py"),
            str(folder),
            candidates,
            str(batch),
        ]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr[-3000:]
    one, first, second = (
        json.loads((tmp_path / name).read_text()) for name in ("1/rank0.json", "2/rank0.json", "2/rank1.json")
    )
    assert (one["world"], first["world"]) == (1, 2)
    assert first["losses"] == pytest.approx(one["losses"], abs=2e-5)
    assert first["total"] == second["total"]
    for name, total in one["total"].items():
        assert first["total"][name] == pytest.approx(total, rel=1e-4, abs=1e-4)
    one_metrics = {name: value for name, value in one["metrics"].items() if "@" in name}
    assert {name: value for name, value in first["metrics"].items() if "@" in name} == one_metrics
