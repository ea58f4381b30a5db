"""Markdown tables of a run's results."""

from __future__ import annotations

import math
from collections.abc import Sequence

from newbie_image.nano.benchmark.correction import corrected_leakage, mean_error, rogan_gladen
from newbie_image.nano.benchmark.figures import (
    EVALUATORS,
    FIGURES,
    differences,
    discordance,
)
from newbie_image.nano.benchmark.intervals import Estimate, mcnemar
from newbie_image.nano.benchmark.results import Results
from newbie_image.nano.benchmark.work import RENDERS, ROUND_TRIP


def percent(estimate: Estimate, signed: bool = False) -> str:
    """`81.2 (79.0 to 83.3)` in percent, `–` where there is nothing."""
    if math.isnan(estimate.value):
        return "–"
    form = "{:+.1f}" if signed else "{:.1f}"
    value, low, high = (form.format(100 * x) for x in (estimate.value, estimate.low, estimate.high))
    return f"{value} ({low} to {high})"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table."""
    return [
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
    ]


def arm_table(results: Results, kind: str, evaluator: str) -> list[str]:
    """Every figure of every arm on one kind of prompts."""
    rows: list[list[str]] = []
    for arm in results.arms:
        readings = results.readings(arm, kind)
        if readings:
            found = results.table(arm, kind)
            rows.append([arm, str(len(readings)), *(percent(found[name][evaluator]) for name in FIGURES)])
    return markdown(["arm", "pictures", *FIGURES], rows)


def people_table(results: Results, kind: str, figure: str, evaluator: str) -> list[str]:
    """One figure by number of people."""
    counts = sorted({p.people for p in results.prompts.values() if p.kind == kind})
    rows: list[list[str]] = []
    for arm in results.arms:
        cells = [results.table(arm, kind, n)[figure][evaluator] for n in counts]
        if not all(math.isnan(cell.value) for cell in cells):
            rows.append([arm, *map(percent, cells)])
    return markdown(["arm", *(f"{n} people" if n > 1 else "1 person" for n in counts)], rows)


def difference_table(results: Results, kind: str, evaluator: str) -> list[str]:
    """Every arm against the base arm on the same prompts, and how unlikely the difference in whole pictures
    is by chance."""
    base = results.base
    if base is None:
        return []
    against = results.readings(base, kind)
    rows: list[list[str]] = []
    for arm in results.arms:
        if arm == base:
            continue
        readings = results.readings(arm, kind)
        if readings:
            found = differences(readings, against)
            _, here, there, _ = discordance(readings, against, evaluator)
            cells = [percent(found[name][evaluator], signed=True) for name in FIGURES]
            rows.append([f"{arm} − {base}", *cells, f"{here} : {there}", f"{mcnemar(here, there):.2g}"])
    return markdown(["arms", *FIGURES, "only one all right", "McNemar p"], rows)


def order_table(results: Results, kind: str, evaluator: str) -> list[str]:
    """What it changes that people are named in reverse order (`swapped`) or without positions
    (`unplaced`)."""
    rows: list[list[str]] = []
    for arm in results.arms:
        changed, plain = results.by_scene(arm, kind), results.readings(arm, "seen")
        if any(key in plain for key in changed):
            found = differences(changed, plain)
            rows.append([arm, *(percent(found[name][evaluator], signed=True) for name in FIGURES)])
    return markdown(["arm", *FIGURES], rows) if rows else []


def attribute_table(results: Results, arm: str, kind: str, evaluator: str) -> list[str]:
    """Accuracy and leakage by attribute, as read and with the reader's own mistakes taken out."""
    errors = results.reader_errors().get(evaluator, {})
    rows: list[list[str]] = []
    for name, found in results.table_by_attribute(arm, kind, evaluator).items():
        right, leak = found["attributes right"], found["excess leakage"]
        error = errors.get(name)
        known = error is not None and error.count > 0
        rows.append(
            [
                name,
                percent(right),
                percent(rogan_gladen(right, error)) if known and error else "–",
                percent(leak),
                percent(corrected_leakage(leak, error)) if known and error else "–",
                percent(found["swapped pairs"]),
                f"{100 * error.sensitivity:.1f}" if known and error else "–",
            ]
        )
    head = ["attribute", "right", "corrected", "excess leakage", "corrected", "swapped pairs", "reader right"]
    return markdown(head, rows)


def corrected_table(results: Results, kind: str) -> list[str]:
    """All attributes together, as read and corrected, by both evaluators."""
    rows: list[list[str]] = []
    errors = results.reader_errors()
    for arm in results.arms:
        if not results.readings(arm, kind) or arm in (RENDERS.name, ROUND_TRIP.name):
            continue
        found = results.table(arm, kind)
        for evaluator in EVALUATORS:
            error = mean_error(list(errors.get(evaluator, {}).values()))
            right, leak = found["attributes right"][evaluator], found["excess leakage"][evaluator]
            rows.append(
                [
                    arm,
                    evaluator,
                    percent(right),
                    percent(rogan_gladen(right, error)),
                    percent(leak),
                    percent(corrected_leakage(leak, error)),
                ]
            )
    return markdown(["arm", "evaluator", "right", "corrected", "excess leakage", "corrected"], rows)
