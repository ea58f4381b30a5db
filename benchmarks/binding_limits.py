"""What limits whole pictures in a run of the binding benchmark, from its readings: attributes of four to six
people, four people by plan, legwear by pose, and plain tags without what they do not say.

    PYTHONPATH=src python benchmarks/binding_limits.py runs/held --set held-out

Prints tables in percent, as the trained reader sees it.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from newbie_image.nano.benchmark.intervals import difference_of
from newbie_image.nano.readers import CHARACTER_HEADS
from newbie_image.nano.world.layout import FOUR_IN_A_ROW

ARMS = ("renders", "round_trip", "xml", "text", "region", "full")
Counts = dict[Any, list[int]]


def right(people: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], str, bool]]:
    """Each person with each attribute asked of it, and whether that is right."""
    for person in people:
        for name, value in person["asked"].items():
            if value >= 0:
                yield person, name, bool(person["found"] and person["read"][name] == value)


def share(count: list[int]) -> str:
    """`97.3 (of 360)`."""
    return f"{100 * count[0] / count[1]:.1f} (of {count[1]})" if count[1] else "–"


def table(first: str, rows: Mapping[str, list[str]], columns: list[str]) -> None:
    """Prints a table."""
    print(f"| {first} | " + " | ".join(columns) + " |\n|" + "---|" * (len(columns) + 1))
    for name, cells in rows.items():
        print(f"| {name} | " + " | ".join(cells) + " |")
    print()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument("--set", dest="kind", default="held-out")
    arguments = parser.parse_args()
    by_attribute: Counts = defaultdict(lambda: [0, 0])
    by_plan: Counts = defaultdict(lambda: [0, 0])
    by_pose: Counts = defaultdict(lambda: [0, 0])
    said: dict[str, dict[str, tuple[int, int]]] = defaultdict(dict)
    with (arguments.run / "readings.jsonl").open() as lines:
        for line in map(json.loads, lines):
            kind, number, _ = line["key"].rsplit("-", 2)
            arm, people = line["arm"], line["reading"]["people"]
            if kind != arguments.kind:
                continue
            found = list(right(people))
            plan = "row" if people[0]["position"] in FOUR_IN_A_ROW else "corners"
            if int(number) != 4:
                tags = [ok for _, name, ok in found if name != "gender"]
                said[arm][line["key"]] = sum(tags), len(tags)
            if int(number) == 4:
                by_plan[arm, plan, "all right"][0] += all(ok for *_, ok in found)
                by_plan[arm, plan, "all right"][1] += 1
            for person, name, ok in found:
                counted: list[tuple[Counts, Any]] = []
                if int(number) >= 4:
                    counted.append((by_attribute, (arm, name)))
                    if name == "legwear":
                        counted.append((by_pose, (arm, CHARACTER_HEADS["pose"][person["asked"]["pose"]])))
                if int(number) == 4:
                    counted.append((by_plan, (arm, plan, name)))
                for counts, cell in counted:
                    counts[cell][0] += ok
                    counts[cell][1] += 1
    names = list(dict.fromkeys(name for _, name in by_attribute))
    print("Four to six people, attributes right:\n")
    table("attribute", {n: [share(by_attribute[arm, n]) for arm in ARMS] for n in names}, list(ARMS))
    print("Four people, by plan:\n")
    plans = {f"{p}: {w}": (p, w) for w in ("all right", "held") for p in ("row", "corners")}
    table("plan", {n: [share(by_plan[arm, p, w]) for arm in ARMS] for n, (p, w) in plans.items()}, list(ARMS))
    print("Four to six people, legwear by pose:\n")
    poses = sorted({pose for _, pose in by_pose})
    table("pose", {pose: [share(by_pose[arm, pose]) for arm in ARMS] for pose in poses}, list(ARMS))
    keys = sorted(said["xml"].keys() & said["tags"].keys())
    if keys:
        one, two = ([said[arm][key] for key in keys] for arm in ("xml", "tags"))
        between = difference_of(one, two)
        low, value, high = (100 * x for x in (between.low, between.value, between.high))
        print(f"xml − tags, without gender and four people: {value:+.1f} ({low:+.1f} to {high:+.1f}) points")


if __name__ == "__main__":
    main()
