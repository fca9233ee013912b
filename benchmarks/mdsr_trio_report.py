"""Tables and figures from benchmarks/results/trio and benchmarks/results/modalities.

    python benchmarks/mdsr_trio_report.py

Everything is leave-one-out on the full catalogue, history masked, mean and spread over seeds; test decides nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from seqkd.evaluation.report import weights_table
from seqkd.evaluation.results import Result, Spread, Summary, summarise
from seqkd.evaluation.slices import Slice, slice_table
from seqkd.figures.slices import slice_figure
from seqkd.figures.weights import weights_figure

FOLDER, MODALITIES = Path("benchmarks/results/trio"), Path("benchmarks/results/modalities")
SEARCH = Path("benchmarks/results/trio_search")  # how the trio is weighed, and with what temperature
METRICS = ("ndcg@10", "recall@10", "recall@50")
SLICED = ("student alone", "teacher sasrec", "teacher unisrec", "teacher recformer", "teacher unim2rec")
TRIO = "CKD unisrec + recformer + unim2rec"


def read(folder: Path) -> tuple[list[Result], dict[str, dict[str, list[list[Slice]]]]]:
    """All results, and by domain and model the slices of each seed."""
    results: list[Result] = []
    slices: dict[str, dict[str, list[list[Slice]]]] = {}
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            entry.pop("about")
            parts = entry.pop("slices", None)
            results.append(Result(**entry))
            if parts is not None:
                runs = slices.setdefault(entry["domain"], {}).setdefault(entry["model"], [])
                runs.append([Slice(**part) for part in parts])
    return results, slices


def accuracy_table(results: Sequence[Result]) -> str:
    """One row a model and domain: valid and test, history masked, and test with the history left in."""
    rows = {(s.first.domain, s.first.model, s.first.split, s.first.history): s for s in summarise(list(results))}
    lines = [
        "| domain | model | seeds | valid NDCG@10 | test NDCG@10 | Recall@10 | Recall@50 | NDCG@10, unmasked |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for domain in dict.fromkeys(key[0] for key in rows):
        models = [key[1] for key in rows if key[0] == domain and key[2:] == ("test", "masked")]
        for model in sorted(models, key=lambda name: (rows[(domain, name, "test", "masked")].first.role, len(name))):
            valid, test, open_ = (
                rows[(domain, model, *which)]
                for which in (("valid", "masked"), ("test", "masked"), ("test", "unmasked"))
            )
            cells = [show(valid, METRICS[0]), *(show(test, name) for name in METRICS), show(open_, METRICS[0])]
            lines.append(f"| {domain} | {model} | {len(test.results)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def show(summary: Summary, metric: str) -> str:
    spread: Spread = summary.spread(metric)
    return f"{spread.mean:.4f}" + (f" ± {spread.std:.4f}" if spread.seeds > 1 else "")


def sets_of_teachers(results: Sequence[Result]) -> str:
    """Test NDCG@10 by set of teachers, and the mean gain over the domain's student alone, paired by seed."""
    test = [r for r in results if (r.split, r.history) == ("test", "masked")]
    found = {(r.model, r.domain, r.seed): r.metrics["ndcg@10"] for r in test}
    domains = list(dict.fromkeys(r.domain for r in test))
    names = sorted({r.model for r in test if r.role == "distilled"}, key=lambda name: (name.count("+"), name))
    lines = [
        "| taught by | " + " | ".join(domains) + " | mean gain over the student alone |",
        "|---|" + "---|" * (len(domains) + 1),
    ]
    for name in ["student alone", *names]:
        cells, gains = [], []
        for domain in domains:
            scores = {seed: value for (model, d, seed), value in found.items() if (model, d) == (name, domain)}
            spread = Spread.of(list(scores.values())) if scores else None
            cells.append("" if spread is None else f"{spread.mean:.4f} ± {spread.std:.4f} ({spread.seeds})")
            alone = {seed: found.get(("student alone", domain, seed)) for seed in scores}
            gains += [scores[seed] / one - 1 for seed, one in alone.items() if one]
        gain = f"{100 * fmean(gains):+.1f} %" if gains and name != "student alone" else ""
        lines.append(f"| {name.removeprefix('CKD ')} | {' | '.join(cells)} | {gain} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    results, slices = read(FOLDER)
    masked = [r for r in results if (r.split, r.history) == ("test", "masked")]
    text = "# Sets of teachers: test NDCG@10 (seeds)\n\n" + sets_of_teachers(results)
    text += "\n# Every model\n\n" + accuracy_table(results)
    weighed = [r for r in masked if r.teacher_weights]
    if weighed:
        text += "\n# How the teachers were weighed\n\n" + weights_table(summarise(weighed))
        weights_figure([r for r in weighed if r.model == TRIO] or weighed, FOLDER / "teacher_weights.png")
    for domain, models in slices.items():
        runs = {name: models[name] for name in (*SLICED, TRIO) if name in models}
        text += f"\n# {domain}: for whom\n\n" + slice_table(runs)
        slice_figure(runs, FOLDER / f"slices_{domain}.png", title=f"{domain}: NDCG@10, test, history masked")
    if any(MODALITIES.glob("*.jsonl")):
        text += "\n# UniM²Rec by modality, UniSRec's Scientific sample (its own split)\n\n"
        text += accuracy_table(read(MODALITIES)[0])
    variants = [r for r in read(SEARCH)[0] if r.role == "distilled"]
    if variants:
        text += "\n# Variants of the recipe, seed 0 where no more seeds are named\n\n" + accuracy_table(variants)
    (FOLDER / "tables.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
