"""The report of a run: markdown with tables, plots and unselected contact sheets, and the figures as JSON."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from newbie_image.nano.benchmark.figures import (
    EVALUATORS,
    estimate_json,
)
from newbie_image.nano.benchmark.guards import descriptions_of, diversity, nearest_distances
from newbie_image.nano.benchmark.plots import interval_plot, response_plot
from newbie_image.nano.benchmark.prompt_sets import KINDS
from newbie_image.nano.benchmark.results import Results
from newbie_image.nano.benchmark.tables import (
    arm_table,
    attribute_table,
    corrected_table,
    difference_table,
    markdown,
    order_table,
    people_table,
    percent,
)
from newbie_image.nano.benchmark.work import RENDERS, ROUND_TRIP
from newbie_image.nano.world.sheet import tile

SHEET_ROWS: Final = 12
"""Prompts of a set on its contact sheet: the first ones, whatever they look like."""
PLOTTED: Final = ("attributes right", "all right in the picture", "excess leakage")


def write_report(results: Results, training: np.ndarray | None = None) -> Path:
    """Writes `report.md`, `figures.json`, plots and sheets into the run's folder; returns the report.

    Args:
        results: what was read.
        training: descriptions of the training pictures (guards.describe_store), for the nearest distance.
    """
    folder = results.folder.folder
    guards = guard_table(results, training)
    lines = [*_head(results)]
    for kind in results.kinds:
        lines += [f"## {kind}: {KINDS[kind].words}", "", *_set_lines(results, kind)]
    lines += _orders(results)
    lines += _responses(results)
    lines += ["## Guards", "", *guards]
    report = folder / "report.md"
    report.write_text("\n".join(lines).rstrip() + "\n")
    (folder / "figures.json").write_text(json.dumps(figures_json(results), indent=1) + "\n")
    return report


def _head(results: Results) -> list[str]:
    state = results.folder.state
    cut = sum(line.cut for line in results.pictures.values())
    lines = [
        "# Binding benchmark",
        "",
        "Protocol: docs/binding-protocol.md. One picture a prompt, none chosen, the same noise in every arm; "
        "values in percent with 95 % intervals.",
        "",
        *markdown(["setting", "value"], [[name, str(value)] for name, value in state["settings"].items()]),
        *markdown(["prompt set", "sha256"], [[name, value] for name, value in state["sets"].items()]),
        f"Read by the evaluator with sha256 {results.evaluator}.",
        "",
        *markdown(
            ["arm", "form", "binding", "parameters", "what it is"],
            [
                [
                    name,
                    record["form"],
                    record["binding"],
                    ", ".join(f"{k} {v}" for k, v in record["parameters"].items()) or "–",
                    record["words"],
                ]
                for name, record in state["arms"].items()
            ],
        ),
    ]
    lines += [f"- Not available: {name}, because {reason}." for name, reason in state["skipped"].items()]
    for kind, arm in itertools.product(results.kinds, results.arms):
        there, asked = len(results.readings(arm, kind)), len(results.of_kind(kind))
        if 0 < there < asked:
            lines.append(
                f"- Not complete: {arm} on {kind} has {there} of {asked} pictures; nothing follows yet."
            )
    if cut:
        lines.append(f"- {cut} texts are longer than the token limit; their ends were cut off.")
    return [*lines, ""]


def _set_lines(results: Results, kind: str) -> list[str]:
    folder = results.folder.folder
    lines = ["By the trained reader:", "", *arm_table(results, kind, "reader")]
    lines += ["By colour rules (hair, eyes, top, bottom):", "", *arm_table(results, kind, "colours")]
    lines += ["All right in the picture, by people:", ""]
    lines += people_table(results, kind, "all right in the picture", "reader")
    lines += ["Attributes right, by people:", ""]
    lines += people_table(results, kind, "attributes right", "reader")
    lines += ["Excess leakage, by people:", ""]
    lines += people_table(results, kind, "excess leakage", "reader")
    lines += ["Differences on the same prompts:", "", *difference_table(results, kind, "reader")]
    lines += ["With the readers' own mistakes taken out:", "", *corrected_table(results, kind)]
    for arm in results.arms:
        if results.readings(arm, kind) and arm not in (RENDERS.name, ROUND_TRIP.name):
            lines += [f"{arm}, by attribute:", "", *attribute_table(results, arm, kind, "reader")]
    for figure in PLOTTED:
        name = f"{kind}-{figure.replace(' ', '-')}.svg"
        (folder / name).write_text(_people_plot(results, kind, figure))
        lines += [f"![{figure}]({name})", ""]
    sheet = write_sheet(results, kind)
    if sheet is not None:
        arms = ", ".join(_sheet_arms(results, kind))
        lines += [
            f"The first {SHEET_ROWS} prompts, unselected; columns {arms}:",
            "",
            f"![{kind}]({sheet.name})",
            "",
        ]
    return lines


def _people_plot(results: Results, kind: str, figure: str) -> str:
    by_arm = {arm: results.tables_by_people(arm, kind) for arm in results.arms if results.readings(arm, kind)}
    counts = sorted({count for tables in by_arm.values() for count in tables})
    groups = {
        f"{count} people" if count > 1 else "1 person": {
            arm: tables[count][figure]["reader"] for arm, tables in by_arm.items() if count in tables
        }
        for count in counts
    }
    return interval_plot(f"{kind}: {figure}, trained reader", groups)


def _sheet_arms(results: Results, kind: str) -> list[str]:
    return [arm for arm in results.arms if results.readings(arm, kind)]


def write_sheet(results: Results, kind: str) -> Path | None:
    """The first prompts of a kind as rows, its arms as columns; None where there is no picture."""
    arms = _sheet_arms(results, kind)
    keys = [key for key, prompt in results.prompts.items() if prompt.kind == kind][:SHEET_ROWS]
    keys = [key for key in keys if any(results.file(arm, key) is not None for arm in arms)]
    cells: list[np.ndarray] = []
    shape: tuple[int, ...] | None = None
    for file in (results.file(arm, key) for key in keys for arm in arms):
        if file is not None:
            with Image.open(file) as picture:
                cells.append(np.asarray(picture.convert("RGB")))
            shape = cells[-1].shape
        else:
            cells.append(np.zeros(0, np.uint8))
    if shape is None:
        return None
    white = np.full(shape, 255, np.uint8)
    sheet = results.folder.folder / f"{kind}-sheet.png"
    tile([cell if cell.size else white for cell in cells], len(arms)).save(sheet)
    return sheet


def _orders(results: Results) -> list[str]:
    lines: list[str] = []
    for kind, words in (("swapped", "people named in reverse order"), ("unplaced", "no positions")):
        rows = order_table(results, kind, "reader")
        if rows:
            lines += [f"## What it changes: {words}, against seen", "", *rows]
    return lines


def _responses(results: Results) -> list[str]:
    responses = results.responses()
    if not responses:
        return []
    plot = results.folder.folder / "dose-response.svg"
    plot.write_text(
        response_plot("Share with the weighed attribute", {n: r.shares for n, r in responses.items()})
    )
    rows = [
        [
            name,
            ", ".join(f"{weight:g}: {100 * share.value:.1f}" for weight, share in response.shares.items()),
            percent(response.whole, signed=True),
            "yes" if response.monotone else f"falls at {response.drops}",
            "yes" if response.rises else "no",
        ]
        for name, response in responses.items()
    ]
    head = ["arm and attribute", "share by weight", "largest − smallest", "never falls", "clear rise"]
    lines = ["## Dose–response of weights", "", *markdown(head, rows), f"![dose–response]({plot.name})", ""]
    spills = [
        [
            name,
            what,
            ", ".join(f"{weight:g}: {100 * share.value:.1f}" for weight, share in found.shares.items()),
            percent(found.change, signed=True),
        ]
        for name, by_what in results.spills().items()
        for what, found in by_what.items()
    ]
    head = ["arm and attribute", "beside the tag", "share by weight", "largest − 1"]
    return [*lines, "What a weight does beside its tag:", "", *markdown(head, spills)]


def guard_table(results: Results, training: np.ndarray | None) -> list[str]:
    """Seams, diversity and nearest training picture of every arm on every set, beside the renders."""
    rows: list[list[str]] = []
    for kind, arm in itertools.product(results.kinds, results.arms):
        keys = results.readings(arm, kind)
        if not keys:
            continue
        lines = [results.lines[arm, key] for key in keys]
        descriptions = descriptions_of([line.look for line in lines if line.look is not None])
        seams = [line.seam for line in lines if line.seam is not None]
        nearest = (
            "–"
            if training is None or not len(descriptions)
            else "{:.4f} / {:.4f}".format(*np.percentile(nearest_distances(descriptions, training), (1, 50)))
        )
        spread = diversity(descriptions)
        rows.append(
            [
                kind,
                arm,
                f"{np.mean(seams):.3f}" if seams else "–",
                "–" if math.isnan(spread) else f"{spread:.4f}",
                nearest,
            ]
        )
    head = [
        "set",
        "arm",
        "gradient at region borders / everywhere",
        "diversity",
        "nearest training picture, 1 % / median",
    ]
    lines = markdown(head, rows)
    lines += [
        "A seam is a first column above that of the renders. Distances are root mean squares of pictures "
        "averaged to 16 × 16, colours 0 to 1; copying shows as a nearest distance below that of the renders, "
        "which the model never saw.",
        "",
    ]
    if training is None:
        lines.append("The nearest training picture is not available: no --training-renders was given.")
    else:
        lines.append(f"Compared with {len(training)} training pictures.")
    return [*lines, ""]


def figures_json(results: Results) -> Mapping[str, Any]:
    """Every table's numbers: arm → kind → people → figure → evaluator, and by attribute."""
    found: dict[str, Any] = {"evaluator": results.evaluator, **results.folder.state, "figures": {}}
    for arm in results.arms:
        for kind in results.kinds:
            if not results.readings(arm, kind):
                continue
            tables: dict[int | str, Any] = {
                **results.tables_by_people(arm, kind),
                "all": results.table(arm, kind),
            }
            found["figures"].setdefault(arm, {})[kind] = {
                "by_people": {str(count): _plain(tables[count]) for count in _sorted(tables)},
                "by_attribute": {
                    evaluator: _plain(results.table_by_attribute(arm, kind, evaluator))
                    for evaluator in EVALUATORS
                },
            }
    return found


def _sorted(tables: Mapping[int | str, Any]) -> Sequence[int | str]:
    return sorted(tables, key=str)


def _plain(estimates: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {a: {b: estimate_json(e) for b, e in inner.items()} for a, inner in estimates.items()}
