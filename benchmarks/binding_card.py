"""Puts figures of binding benchmarks, of one bundle or several, into the table of a model card.

    PYTHONPATH=src python benchmarks/binding_card.py bundles/nano --set seen --words "…" --command "…" \\
        --row "first edition, xml" old/figures.json xml --row "this edition, region" new/figures.json region

Each row is a name, the `figures.json` of a run of `newbie nano benchmark`, and an arm of it. Writes
`binding.json` into the bundle and its card anew.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from newbie_image.nano.card import write_card

FIGURES = ("attributes right", "all right in the picture")


def row(name: str, file: Path, arm: str, kind: str) -> dict[str, Any]:
    """One row: attributes right and all right by number of people, as the trained reader sees them."""
    by_people = json.loads(file.read_text())["figures"][arm][kind]["by_people"]
    people = {
        number: [found[figure]["reader"]["value"] for figure in FIGURES]
        for number, found in by_people.items()
        if number != "all"
    }
    return {"name": name, "people": people}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--set", dest="kind", default="seen")
    parser.add_argument("--words", required=True, help="what was measured, in a sentence or two")
    parser.add_argument("--command", required=True, help="the command that made the figures")
    parser.add_argument("--row", nargs=3, action="append", required=True, metavar=("NAME", "FILE", "ARM"))
    arguments = parser.parse_args()
    rows = [row(name, Path(file), arm, arguments.kind) for name, file, arm in arguments.row]
    held = {"words": arguments.words, "command": arguments.command, "rows": rows}
    (arguments.bundle / "binding.json").write_text(json.dumps(held, indent=1) + "\n")
    print(write_card(arguments.bundle))


if __name__ == "__main__":
    main()
