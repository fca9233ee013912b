"""What came out, for people: one table that names its protocol and data, and what distillation gained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

from ..errors import DataError
from ..files.markdown import grid, line
from ..teaching.teacher_weights import STATISTICS
from .cost import HOW
from .results import ROLES, Result, Spread, Summary, summarise

PROTOCOLS = {
    "loo": "leave-one-out (last item of each user for test, the one before for valid)",
    "temporal": "global temporal split",
    "preset": "the split that the data brings",
    "ratio": "random 60/20/20 of each user, as sets (what is put aside of a user, whatever its time, is asked for at "
    "once; Recall and NDCG are means over users)",
}
HISTORIES = {
    "masked": "history masked (items a user already has are not ranked)",
    "unmasked": "history not masked (items a user already has are ranked too)",
}
WEIGHED = (
    "means over the training queries of the last epoch, which add up to 1 over the teachers of a student; leads is the "
    "share of queries on which a teacher weighs most"
)
NAMES = {"recall": "Recall", "ndcg": "NDCG", "mrr": "MRR"}


def table(results: Sequence[Result], ks: Sequence[int] = (10, 50), escape: Callable[[str], str] = line) -> str:
    """Teachers, students alone and distilled students, with the relative gain below; one table for each protocol.

    Below it, where results tell, how the teachers were weighed.

    Args:
        ks: cut-offs of Recall and NDCG; one that was not measured shows as "-".
        escape: what names from outside go through, `markdown.plain` where the table is shown as HTML.

    Raises:
        DataError: no results, or see `summarise`.
    """
    if not results:
        raise DataError("there are no results to report.")
    columns = [f"{metric}@{k}" for k in ks for metric in ("recall", "ndcg")]
    header = ["domain", "model", "role", *map(pretty, columns), "parameters", "MB", "ms / user"]
    parts = []
    for rows in by_protocol(results):
        cells = [
            [
                escape(domain_name(row.first)),
                escape(row.first.model),
                row.first.role,
                *(show(row.spread(name)) for name in columns),
                f"{row.first.parameters:,}",
                f"{row.megabytes:.2f}",
                f"{row.ms_per_user.mean:.3g}",
            ]
            for row in rows
        ]
        gains = [f"* {escape(gain)}" for gain in gain_lines(rows, columns)]
        parts += [notes(rows, escape), grid(header, cells, text_columns=3), "\n".join(gains)]
        weights = weights_table(rows, escape)
        if weights not in parts:  # a student was taught once, with whatever history it is measured
            parts.append(weights)
    return "\n\n".join(filter(None, parts)) + "\n"


def weights_table(rows: Sequence[Summary], escape: Callable[[str], str] = line) -> str:
    """How the teachers of each distilled student were weighed; empty where no result tells."""
    cells = [
        [escape(domain_name(row.first)), escape(row.first.model), escape(teacher), *map(share, told.values())]
        for row in rows
        for teacher, told in row.teacher_weights().items()
    ]
    if not cells:
        return ""
    return f"How the teachers were weighed: {WEIGHED}.\n\n" + grid(
        ["domain", "student", "teacher", *STATISTICS], cells, text_columns=3
    )


def notes(rows: Sequence[Summary], escape: Callable[[str], str]) -> str:
    """What a number means: protocol, data, seeds, how time was taken."""
    data = {(row.first.domain, row.first.data): row.first for row in rows}
    lines = [setting(rows[0].first)]
    for first in data.values():
        size = f"{first.num_users:,} users, {first.num_queries:,} queries"
        lines.append(f"{escape(domain_name(first))}: {escape(first.data)}; {size}.")
    lines.append(f"{seeds_line(rows)} ms / user: {HOW}.")
    return "\n".join(f"* {note}" for note in lines)


def by_protocol(results: Sequence[Result]) -> list[list[Summary]]:
    """Summaries that may stand in one table: split, protocol and history agree. Within it by domain, then by role."""
    tables: dict[tuple[str, str, str], list[Summary]] = {}
    for row in summarise(results):
        tables.setdefault((row.first.split, row.first.protocol, row.first.history), []).append(row)
    for rows in tables.values():
        domains = list(dict.fromkeys(row.first.domain for row in rows))
        rows.sort(key=lambda row: (domains.index(row.first.domain), ROLES.index(row.first.role)))
    return list(tables.values())


def domain_name(result: Result) -> str:
    """The domain, marked where its data was generated: no number of such data stands without the word."""
    synthetic = "synthetic" in result.data.lower() and "synthetic" not in result.domain.lower()
    return f"{result.domain} (synthetic)" if synthetic else result.domain


def setting(result: Result) -> str:
    """The protocol in words."""
    return f"{result.split} split, {PROTOCOLS[result.protocol]}, full catalogue, {HISTORIES[result.history]}."


def protocol_title(result: Result) -> str:
    """The protocol in few words, for a heading."""
    return PROTOCOLS[result.protocol].partition(" (")[0]


def pretty(metric: str) -> str:
    name, k = metric.split("@")
    return f"{NAMES[name]}@{k}"


def show(spread: Spread | None) -> str:
    if spread is None:
        return "-"
    return f"{spread.mean:.4f} ± {spread.std:.4f}" if spread.seeds > 1 else f"{spread.mean:.4f}"


def share(spread: Spread) -> str:
    return f"{spread.mean:.3f} ± {spread.std:.3f}" if spread.seeds > 1 else f"{spread.mean:.3f}"


def seeds_line(rows: Sequence[Summary]) -> str:
    counts = sorted({len(row.results) for row in rows})
    if counts == [1]:
        return "One seed, so the spread is not known."
    few, many = counts[0], counts[-1]
    what = f"{many} seeds" if few == many else f"{few} to {many} seeds; a number without ± comes from one seed"
    return f"Mean ± standard deviation over {what}."


def relative_gain(taught: Summary, alone: Summary, metric: str) -> Spread | None:
    """How much better a distilled student is: mean over seeds of `taught / alone - 1`, pairing equal seeds.

    Where the two were not trained with the same seeds it is the gain of the means, a Spread of one. None where one of
    them was not measured or the student alone found nothing.
    """
    of_taught, of_alone = taught.spread(metric), alone.spread(metric)
    if of_taught is None or of_alone is None or of_alone.mean == 0:
        return None
    ours, theirs = taught.by_seed(metric), alone.by_seed(metric)
    if set(ours) != set(theirs) or 0 in theirs.values():
        return Spread(of_taught.mean / of_alone.mean - 1, 0.0, 1)
    return Spread.of([ours[seed] / theirs[seed] - 1 for seed in ours])


def gain_lines(rows: Sequence[Summary], metrics: Sequence[str]) -> list[str]:
    """One line for each distilled student and each student alone on the same data, and their means over domains."""
    lines: list[str] = []
    by_pair: dict[str, list[dict[str, Spread]]] = {}
    for taught in (row for row in rows if row.first.role == "distilled"):
        for alone in (row for row in rows if row.first.role == "student"):
            if (alone.first.domain, alone.first.data) != (taught.first.domain, taught.first.data):
                continue
            gains = {metric: relative_gain(taught, alone, metric) for metric in metrics}
            known = {metric: gain for metric, gain in gains.items() if gain is not None}
            pair = f"{taught.first.model} against {alone.first.model}"
            by_pair.setdefault(pair, []).append(known)
            lines.append(f"Relative gain of {pair} on {domain_name(taught.first)}: {_listed(known)}.")
    for pair, domains in by_pair.items():
        shared = [metric for metric in metrics if all(metric in known for known in domains)]
        means = {metric: Spread(fmean(known[metric].mean for known in domains), 0.0, 1) for metric in shared}
        if len(domains) > 1:
            lines.append(f"Relative gain of {pair}, mean of {len(domains)} domains: {_listed(means)}.")
    return lines


def _listed(gains: Mapping[str, Spread]) -> str:
    return ", ".join(f"{pretty(metric)} {percent(gain)}" for metric, gain in gains.items()) or "not known"


def percent(gain: Spread) -> str:
    spread = f" ± {100 * gain.std:.1f}" if gain.seeds > 1 else ""
    return f"{100 * gain.mean:+.1f}{spread} %"


__all__ = ["relative_gain", "table"]
