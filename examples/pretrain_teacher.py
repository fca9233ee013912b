"""Pre-train teachers on any number of domains at once, and measure them on each without further training.

accelerate launch examples/pretrain_teacher.py                               # UniSRec on the embedded, synthetic market
accelerate launch examples/pretrain_teacher.py --config configs/teachers/recformer.yaml --data "[books, films]"
accelerate launch examples/pretrain_teacher.py --resume                      # goes on where an earlier run stopped

All settings: `python examples/pretrain_teacher.py --help`. Checkpoints are in OUTPUT_DIR/runs/NAME-pretraining.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from seqkd import CheckpointError, ConfigError, RecommenderModel, SeqKDError, write_card
from seqkd.config import Experiment, TeacherConfig, read_experiment
from seqkd.evaluation.report import table
from seqkd.evaluation.results import Result, save_results
from seqkd.files.checkpoints import checkpoints
from seqkd.pipeline import (
    KINDS,
    SYNTHETIC,
    Domain,
    about,
    checkpoint_folder,
    measure,
    new_teacher,
    prepare,
    pretrain_teacher,
    reading_of,
    say,
)
from seqkd.processes import leave_process_group, this_process

DEFAULT = Path(__file__).resolve().parents[1] / "configs" / "teachers" / "unisrec.yaml"


def main() -> None:
    resume, settings = read_arguments(sys.argv[1:])
    experiment = read_experiment(settings, DEFAULT)
    chosen = teachers_of(experiment)
    begun = {name for name in chosen if checkpoints(checkpoint_folder(experiment, name))}
    check_resume(experiment, resume, begun)
    domains = prepare(experiment, distils=False)
    output = Path(experiment.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    results: list[Result] = []

    for name, config in chosen.items():
        # 1. On all domains at once: a batch mixes them, and its negatives come from all of them.
        say(f"{'going on with' if name in begun else 'pre-training'} teacher {name} on {', '.join(domains)}")
        teacher = pretrain_teacher(experiment, domains, name, resume=name in begun)

        # 2. Zero-shot: on each domain as it is, which tells the domain's items by their content alone.
        zero_shot = replace(experiment, teachers={name: replace(config, stage="zero_shot")})
        own: list[Result] = []
        for domain in domains.values():
            model = new_teacher(zero_shot, domain, name, 0, teacher)
            own += measure(
                model, name, "teacher", experiment, domain, 0, parts=("valid", "test"), histories=("masked",)
            )
        results += own

        # 3. Weights, item ids and a card; from one process.
        if this_process().is_main_process:
            save(teacher, output / name, name, experiment, domains, own)
            save_results(results, output / "results.json", about())

    if this_process().is_main_process:
        print("\n" + table(results))
        print(f"The teachers with their cards and results.json are in {output}. To teach with them, write e.g.")
        for name, config in chosen.items():
            print(f"  teachers: {{{name}: {{type: {config.type}, pretrained: {output / name}}}}}")


def read_arguments(arguments: Sequence[str]) -> tuple[bool, list[str]]:
    """Whether to resume, and the settings of the experiment."""
    parser = ArgumentParser(usage="pretrain_teacher.py [--resume] [SETTINGS]", add_help=False, allow_abbrev=False)
    parser.add_argument("--resume", action="store_true", help="go on from the newest complete checkpoint")
    if {"-h", "--help"} & set(arguments):
        parser.print_help()
        print()  # the settings follow
    options, settings = parser.parse_known_args(arguments)
    return options.resume, settings


def teachers_of(experiment: Experiment) -> dict[str, TeacherConfig]:
    """Those to pre-train."""
    teachers = experiment.teachers.items()
    chosen = {name: one for name, one in teachers if one.pretraining is not None and one.pretrained is None}
    if not chosen:
        raise ConfigError(
            "no teacher is to be pre-trained. Give one `pretraining`, its training arguments, e.g. "
            "{num_train_epochs: 5}, and leave its `pretrained` out."
        )
    return chosen


def check_resume(experiment: Experiment, resume: bool, begun: set[str]) -> None:
    """Whether the checkpoints that are there are the ones that are meant: old ones and new ones never mix."""
    if resume and not begun:
        raise CheckpointError(
            f"there is nothing to resume in {experiment.output_dir}: no teacher has a checkpoint there. Start without "
            "--resume, with `save_strategy: epoch` (or steps) in its `pretraining`."
        )
    if begun and not resume:
        raise CheckpointError(
            f"{experiment.output_dir} holds checkpoints of {', '.join(sorted(begun))} from an earlier run. Go on with "
            "--resume, give another --output_dir, or remove its folder runs."
        )


def save(
    teacher: RecommenderModel,
    folder: Path,
    name: str,
    experiment: Experiment,
    domains: Mapping[str, Domain],
    results: Sequence[Result],
) -> None:
    """The teacher as others can load it, with its card."""
    config, synthetic = experiment.teachers[name], experiment.data == SYNTHETIC
    kind, reading = KINDS[config.type], reading_of(experiment, config, f"teachers.{name}")
    modalities = teacher.config.to_dict().get("modalities", ["text"])
    teacher.save_pretrained(folder)
    write_card(
        folder,
        model=teacher,
        name=name,
        seed=0,
        results=results,
        pretrained_on=[describe(domain) for domain in domains.values()],
        data=[f"{domain} ({SYNTHETIC})" if synthetic else domain for domain in domains],
        training={
            "loss": kind.objective,
            **reading.describe(domains, modalities),
            **experiment.training,
            **(config.pretraining or {}),
        },
        papers={type(teacher).__name__: kind.paper},
    )


def describe(domain: Domain) -> str:
    train = domain.split.train
    interactions = sum(map(len, train["item_ids"]))
    return f"{domain.name}: {len(train):,} users, {domain.num_items:,} items, {interactions:,} training interactions"


if __name__ == "__main__":
    try:
        main()
    except SeqKDError as error:
        sys.exit(f"error: {error}")
    leave_process_group()
