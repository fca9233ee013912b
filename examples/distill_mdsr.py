"""CKD-MDSR from end to end: teachers, their knowledge, a student alone and a distilled one, a table and a figure.

accelerate launch examples/distill_mdsr.py                                   # the embedded, synthetic market
accelerate launch examples/distill_mdsr.py --data my_folder                  # your interactions.csv and items.csv
accelerate launch examples/distill_mdsr.py --config configs/ckd_mdsr/sasrec_amazon.yaml
"""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path

from seqkd import SeqKDError, write_card
from seqkd.config import Experiment, TeacherConfig, read_experiment
from seqkd.evaluation.report import table
from seqkd.evaluation.results import Result, save_results
from seqkd.figures.cost import cost_figure
from seqkd.figures.weights import weights_figure
from seqkd.pipeline import (
    SYNTHETIC,
    about,
    distil,
    measure,
    prepare,
    pretrain_teacher,
    say,
    teach,
    train_alone,
    train_teacher,
)
from seqkd.processes import leave_process_group, this_process

DEFAULT = Path(__file__).resolve().parents[1] / "configs" / "ckd_mdsr" / "sasrec_synthetic.yaml"


def main() -> None:
    experiment = read_experiment(default=DEFAULT)
    domains = prepare(experiment)
    output = Path(experiment.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    results: list[Result] = []
    shipped = {}

    # 1. Teachers that read text are pre-trained on all domains at once.
    pretrained = {}
    for name, config in experiment.teachers.items():
        if config.pretraining is not None and config.pretrained is None:
            say(f"pre-training teacher {name} on {', '.join(domains)}")
            pretrained[name] = pretrain_teacher(experiment, domains, name)

    for domain, seed in product([domains[name] for name in experiment.domains or domains], experiment.seeds):
        # 2. Each teacher is fine-tuned on the domain.
        teachers = {}
        for name in experiment.teachers:
            say(f"{domain.name}, seed {seed}: training teacher {name}")
            teachers[name] = train_teacher(experiment, domain, name, seed, pretrained.get(name))
            results += measure(teachers[name][0], f"teacher {name}", "teacher", experiment, domain, seed)

        # 3. What they know about every training query, exported once.
        say(f"{domain.name}, seed {seed}: exporting the knowledge of {', '.join(teachers)}")
        method, knowledge = teach(experiment, domain, teachers)

        # 4. The student, alone and distilled: same architecture, same budget.
        say(f"{domain.name}, seed {seed}: training the student alone")
        alone = train_alone(experiment, domain, seed)
        results += measure(alone, "student alone", "student", experiment, domain, seed)

        say(f"{domain.name}, seed {seed}: distilling the student")
        student, weights = distil(experiment, domain, seed, method, knowledge, teachers)
        results += measure(student, "student distilled", "distilled", experiment, domain, seed, weights)
        shipped.setdefault(domain.name, (student, method))
        if this_process().is_main_process:
            save_results(results, output / "results.json", about())

    # 5. The students with their cards, one table, one figure, one JSON.
    if this_process().is_main_process:
        for name, (student, method) in shipped.items():
            student.save_pretrained(output / name)
            write_card(
                output / name,
                model=student,
                name="student distilled",
                seed=experiment.seeds[0],
                results=[result for result in results if result.domain == name],
                methods=[method],
                teachers={teacher: describe(config) for teacher, config in experiment.teachers.items()},
                data=[f"{name} ({SYNTHETIC})" if experiment.data == SYNTHETIC else name],
                training=training_of(experiment),
            )
        print("\n" + table(results))
        cost_figure([result for result in results if result.history == "masked"], output / "accuracy_against_cost.png")
        if any(result.teacher_weights for result in results):  # one teacher alone is not weighed
            weights_figure(results, output / "teacher_weights.png")
        print(f"The students with their cards, results.json and the figures are in {output}.")


def describe(config: TeacherConfig) -> str:
    steps = [f"started from {config.pretrained}"] if config.pretrained else []
    steps += ["pre-trained on all domains"] if config.pretraining is not None and not config.pretrained else []
    steps += ["trained on the domain"] if config.stage == "finetuned" else ["used as it is (zero-shot)"]
    width = f", width {config.model['hidden_size']}" if "hidden_size" in config.model else ""  # else its encoder's
    return f"{config.type}{width}: {', then '.join(steps)}"


def training_of(experiment: Experiment) -> dict:
    weights = {name: getattr(experiment, name) for name in ("method_weight", "label_weight", "warm_start")}
    return {**experiment.training, **experiment.distillation, **experiment.distilled_model, **weights}


if __name__ == "__main__":
    try:
        main()
    except SeqKDError as error:
        sys.exit(f"error: {error}")
    leave_process_group()
