"""Does a tag's heat map lie where the tag was drawn? The measurement that chooses kind of map and blocks.

    PYTHONPATH=src python benchmarks/heat_maps.py --scenes 100

Held-out scenes of the embedded model's world are drawn from their complete XML captions. The world says where
each thing belongs: hair, eyes, expression, glasses and headwear in the character's head box; clothes, pose
and what is held in its figure box; the background in what no figure covers. For attention and similarity, in
the early, middle and late blocks and in all of them, the share of each tag's mass inside its region is set
against chance, the region's area: share / area. A map without any sense of place has 1, and 1 / area is the
most that there is, so every attribute is shown with that limit. Boxes are those of the rendered scene, from
which a drawn one differs by the layout's jitter of a few pixels.

A picture that is wrong counts like any other. Nothing is selected.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from newbie_image.binding.groups import TagSpan
from newbie_image.binding.sight import Kind, Sight, block_numbers
from newbie_image.explain.heat import box_mask, contrast, excess, mass_inside, tag_maps
from newbie_image.explain.overlay import heat_picture
from newbie_image.models.rotary_limits import token_grid
from newbie_image.nano.captions import character_tags, scene_tags, xml_caption
from newbie_image.nano.dataset import HELD_OUT_SEED
from newbie_image.nano.world.render import geometry
from newbie_image.nano.world.scene import Scene, sample_scene
from newbie_image.nano.world.sheet import tile
from newbie_image.pipeline import NewbiePipeline
from newbie_image.request import GenerationRequest, PictureDone

KINDS: tuple[Kind, ...] = ("attention", "similarity")
THIRDS = ("early", "middle", "late")
BLOCKS = (*THIRDS, "all")
HEAD = ("hair_color", "hair_style", "eye_color", "expression", "glasses", "headwear")
FIGURE = ("top", "bottom", "legwear", "pose", "held", "gender")
MASSES: dict[str, Callable[[Tensor], Tensor]] = {
    "what is above a map's own mean (newbie explain)": excess,
    "what is above the mean of all tags' maps": contrast,
    "all of it": lambda maps: maps.clamp_min(0),
}
"""What of the maps is counted."""
AIM = 3.0
"""Times chance that is aimed at."""
ON_SHEET = 10
"""Scenes on the sheet: the first ones, whatever they look like."""

Found = dict[tuple[str, str], dict[str, list[tuple[float, float]]]]
"""(kind, blocks) → attribute → (share inside, area) of every tag; one a way of counting mass."""


def scenes(count: int, people: Sequence[int]) -> list[Scene]:
    """Held-out scenes without named figures, whose captions leave out what the name says."""
    found = [sample_scene(HELD_OUT_SEED + i, people[i % len(people)]) for i in range(count)]
    return [
        replace(scene, characters=tuple(replace(each, name=None) for each in scene.characters))
        for scene in found
    ]


def regions(
    scene: Scene, spans: Sequence[TagSpan], grid: tuple[int, int]
) -> Iterator[tuple[int, str, Tensor]]:
    """(which tag, its attribute, its true region: (image tokens,) in [0, 1]) of tags that have a place."""
    boxes = geometry(scene)
    figures = torch.stack([box_mask(each.figure, grid) for each in boxes]).amax(0)
    told = {
        (number, tag): attribute
        for number, character in enumerate(scene.characters, start=1)
        for attribute, (_, tags) in character_tags(character).items()
        for tag in tags
    }
    general = {tag for name, tags in scene_tags(scene).items() if name == "background" for tag in tags}
    for place, span in enumerate(spans):
        attribute = told.get((span.group, span.text))
        if attribute in HEAD:
            yield place, attribute, box_mask(boxes[span.group - 1].head, grid)
        elif attribute in FIGURE:
            yield place, attribute, box_mask(boxes[span.group - 1].figure, grid)
        elif span.group == 0 and span.text in general:
            yield place, "background", 1 - figures


def look(
    pipeline: NewbiePipeline,
    scene: Scene,
    number: int,
    arguments: argparse.Namespace,
    found: dict[str, Found],
) -> list[Image.Image]:
    """Draw one scene with a collector a kind and third, and note every tag's share.

    Returns:
        The picture and one tag's map over it for the sheet, of its first scenes; else nothing.
    """
    request = pipeline.complete(
        GenerationRequest(xml_caption(scene), seed=number, steps=arguments.steps, binding=arguments.binding)
    )
    count = len(pipeline.transformer.layers)
    sights = {(kind, name): Sight(block_numbers(name, count), kind=kind) for kind in KINDS for name in THIRDS}
    shown = arguments.sheet is not None and number < ON_SHEET
    *_, done = pipeline.stream(request, decode=shown, sights=tuple(sights.values()))
    assert isinstance(done, PictureDone)
    assert done.latents is not None
    size = done.latents.shape[2:]
    transformer = pipeline.transformer
    grid = token_grid((size[0], size[1]), transformer.patch_size, transformer.axes_lens)
    spans = pipeline.words(request).spans
    everywhere: dict[Kind, Tensor] = {}
    for kind in KINDS:
        maps = {name: sights[kind, name].maps[0] for name in THIRDS}
        looks = {name: sights[kind, name].looks for name in THIRDS}
        maps["all"] = sum(maps[name] * looks[name] for name in THIRDS) / sum(looks.values())  # type: ignore
        everywhere[kind] = maps["all"]
        for name, whole in maps.items():
            tags = tag_maps(whole, spans)
            for label, counted in MASSES.items():
                heats = counted(tags)
                for place, attribute, region in regions(scene, spans, grid):
                    share = mass_inside(heats[place], region)
                    area = float(region.mean())
                    found[label][kind, name][attribute].append((area if share is None else share, area))
    if not shown:
        return []
    # Of the first character: the next attribute in each scene, of those that it was asked to have.
    placed = [each for each in regions(scene, spans, grid) if spans[each[0]].group == 1]
    order = [name for name in (*HEAD, *FIGURE) if any(name == attribute for _, attribute, _ in placed)]
    wanted = order[number % len(order)]
    place = next(place for place, attribute, _ in placed if attribute == wanted)
    heat = excess(tag_maps(everywhere["attention"], spans))[place].reshape(grid)
    picture = done.images[0].image.convert("RGB")
    over = heat_picture(picture, heat).resize(picture.size, Image.Resampling.LANCZOS)
    ImageDraw.Draw(over).text((4, 2), f"character 1: {spans[place].text}", fill=(255, 255, 255))
    return [picture, over]


def table(found: Found) -> str:
    """Markdown: by attribute, times chance of each kind and blocks, and the limit."""
    columns = [(kind, name) for kind in KINDS for name in BLOCKS]
    lines = [
        "| attribute | tags | chance | limit | "
        + " | ".join(f"{kind}, {name}" for kind, name in columns)
        + " |",
        "|---" * (4 + len(columns)) + "|",
    ]
    attributes = [name for name in (*HEAD, *FIGURE, "background") if found[columns[0]].get(name)]
    for attribute in attributes:
        pairs = found[columns[0]][attribute]
        area = statistics.fmean(pair[1] for pair in pairs)
        values = [f"{ratio(found[column][attribute]):.2f}" for column in columns]
        lines.append(
            f"| {attribute} | {len(pairs)} | {area:.3f} | {1 / area:.2f} | " + " | ".join(values) + " |"
        )
    for label, names in (("head, mean", HEAD), ("figure, mean", FIGURE), ("all, mean", attributes)):
        known = [name for name in names if name in attributes]
        values = [statistics.fmean(ratio(found[column][name]) for name in known) for column in columns]
        lines.append(f"| {label} | | | | " + " | ".join(f"{value:.2f}" for value in values) + " |")
    return "\n".join(lines)


def ratio(pairs: Sequence[tuple[float, float]]) -> float:
    """Mean share inside over mean area."""
    return statistics.fmean(pair[0] for pair in pairs) / statistics.fmean(pair[1] for pair in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", type=int, default=8)
    parser.add_argument("--people", default="1,2", help="numbers of characters, in turn")
    parser.add_argument("--steps", type=int, default=None, help="the bundle's without it")
    parser.add_argument("--binding", default="off")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--sheet", type=Path, default=None, help="PNG with a map of each of the first scenes")
    parser.add_argument("--json", type=Path, default=None, help="also write every figure there")
    arguments = parser.parse_args()
    people = [int(number) for number in arguments.people.split(",")]
    pipeline = NewbiePipeline.from_pretrained(arguments.model, torch_dtype=torch.float32)
    found: dict[str, Found] = {
        label: {(kind, name): defaultdict(list) for kind in KINDS for name in BLOCKS} for label in MASSES
    }
    began = time.perf_counter()
    cells: list[np.ndarray] = []
    for number, scene in enumerate(scenes(arguments.scenes, people)):
        cells += [np.asarray(each) for each in look(pipeline, scene, number, arguments, found)]
    if arguments.sheet is not None:
        tile(cells, columns=4).save(arguments.sheet, optimize=True)
    for label, each in found.items():
        best = max(each, key=lambda column: statistics.fmean(map(ratio, each[column].values())))
        reached = sorted(name for name in each[best] if ratio(each[best][name]) >= AIM)
        print(f"mass: {label}\n\n{table(each)}\n\nbest by the mean: {best[0]} in {best[1]} blocks;")
        print(f"{AIM:g} times chance or more: {', '.join(reached) or 'none'}\n")
    print(f"{arguments.scenes} scenes, {time.perf_counter() - began:.0f} s")
    if arguments.json is not None:
        plain: dict[str, Any] = {
            label: {f"{kind}, {name}": dict(values) for (kind, name), values in each.items()}
            for label, each in found.items()
        }
        arguments.json.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
