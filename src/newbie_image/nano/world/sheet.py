"""Contact sheets of the world: `python -m newbie_image.nano.world.sheet out.png --count 2 --rows 6`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image

from newbie_image.nano.world import attributes as a
from newbie_image.nano.world.render import render
from newbie_image.nano.world.scene import Scene, sample_scene


def tile(pictures: Sequence[np.ndarray], columns: int) -> Image.Image:
    """Pictures (height, width, 3) uint8 of one size side by side, row by row; missing cells are white."""
    height, width, _ = pictures[0].shape
    rows = -(-len(pictures) // columns)
    page = np.full((rows * height, columns * width, 3), 255, dtype=np.uint8)
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        page[row * height : (row + 1) * height, column * width : (column + 1) * width] = picture
    return Image.fromarray(page)


def backdrops(seed: int, count: int | None) -> list[Scene]:
    """Every background at every hour that it has, with random people."""
    scenes: list[Scene] = []
    for background in a.BACKGROUNDS:
        outdoors = background not in a.PLAIN_BACKGROUNDS and background not in a.INDOOR_BACKGROUNDS
        times = (None,) if not outdoors else ("night",) if background == "starry_sky" else a.TIMES
        for time in times:
            scene = sample_scene(seed + len(scenes), count)
            scenes.append(replace(scene, background=background, time=time, weather=None))
    return scenes


def main(
    target: Path,
    seed: Annotated[int, typer.Option(help="Seed of the first scene; the next ones follow.")] = 0,
    count: Annotated[
        int | None, typer.Option(help="People in each scene, 1 to 6; drawn if left out.")
    ] = None,
    rows: int = 6,
    columns: int = 8,
    size: Annotated[int, typer.Option(help="Pixels of one picture's side.")] = 128,
    background: Annotated[
        str | None, typer.Option(help="One of the world's backgrounds, for all pictures.")
    ] = None,
    tour: Annotated[bool, typer.Option(help="Every background at every hour instead.")] = False,
) -> None:
    """Writes a PNG of many scenes."""
    scenes = (
        backdrops(seed, count) if tour else [sample_scene(seed + k, count) for k in range(rows * columns)]
    )
    if background is not None:
        scenes = [replace(scene, background=background) for scene in scenes]
    tile([render(scene, size) for scene in scenes], columns).save(target)


if __name__ == "__main__":
    typer.run(main)
