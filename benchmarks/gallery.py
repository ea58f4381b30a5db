"""Draws the prompts that the project ships and writes them as a page: `docs/gallery.md`.

    PYTHONPATH=src python benchmarks/gallery.py

Every template with its default values, the good file of every common mistake, and six reference pictures with
their prompts in `assets/reference`. One picture each, fixed seeds, no selection.
"""

from __future__ import annotations

from pathlib import Path

import torch

from newbie_image import GenerationRequest, NewbiePipeline
from newbie_image.cli.drawing import draw
from newbie_image.nano.captions import xml_caption
from newbie_image.nano.evaluate import held_out_scenes
from newbie_image.prompt.templates import template, template_names
from newbie_image.provenance import save_picture

ROOT = Path(__file__).parent.parent
SEED = 7
BLANKS = {
    "character_sheet": {
        "hair": "pink_hair",
        "hairstyle": "twintails",
        "eyes": "blue_eyes",
        "top": "white_hoodie",
        "bottom": "blue_pleated_skirt",
    }
}
"""Values for the templates that cannot do without."""
REFERENCES = 6


def references(pipeline: NewbiePipeline) -> None:
    """The first held-out prompts, one and two characters in turn, with the pictures that the tests make
    again."""
    folder = ROOT / "assets" / "reference"
    folder.mkdir(parents=True, exist_ok=True)
    for number, scene in enumerate(held_out_scenes(REFERENCES), start=1):
        text = xml_caption(scene)
        (folder / f"{number}.xml").write_text(text + "\n", encoding="utf-8")
        _save(pipeline, text, folder / f"{number}.png")


def _save(pipeline: NewbiePipeline, text: str, target: Path) -> None:
    request = GenerationRequest(text, seed=SEED)
    target.parent.mkdir(parents=True, exist_ok=True)
    save_picture(target, draw(pipeline, request).pictures[0], request)


def _table(pictures: list[tuple[str, Path]], columns: int = 5) -> list[str]:
    lines = ["|" * (columns + 1), "|" + "---|" * columns]
    for start in range(0, len(pictures), columns):
        row = pictures[start : start + columns]
        cells = [f"![{name}]({path.relative_to(ROOT / 'docs')})<br>{name}" for name, path in row]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def page(pipeline: NewbiePipeline) -> None:
    """`docs/gallery.md` and its pictures."""
    images = ROOT / "docs" / "images"
    templates, mistakes = [], []
    for name in template_names():
        target = images / "templates" / f"{name}.png"
        if name != "negative":
            _save(pipeline, template(name).fill(BLANKS.get(name)).source, target)
            templates.append((name, target))
    for folder in sorted((ROOT / "assets" / "mistakes").iterdir()):
        target = images / "mistakes" / f"{folder.name}.png"
        _save(pipeline, (folder / "good.xml").read_text(encoding="utf-8"), target)
        mistakes.append((folder.name, target))
    lines = [
        "# What the shipped prompts look like",
        "",
        f"Drawn by the embedded model with seed {SEED}, one picture each, unselected,",
        "by `benchmarks/gallery.py`. Words outside its small world are ignored.",
        "",
        "## Templates (`newbie prompt template show NAME`), with their default values",
        "",
        *_table(templates),
        "",
        "## The good file of each common mistake (`assets/mistakes`)",
        "",
        *_table(mistakes),
    ]
    (ROOT / "docs" / "gallery.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    nano = NewbiePipeline.from_pretrained("nano", torch_dtype=torch.float32)
    references(nano)
    page(nano)
