"""How loud each attribute is in the embedded autoencoder's latents: what moves when one tag changes.

    PYTHONPATH=src python benchmarks/latent_shares.py

64 held-out scenes with one person are rendered and encoded, each attribute in turn is changed to another
value, and the mean square of the difference of the normalised latents is told, whole and after 4 × 4 average
pooling.
"""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from newbie_image import NewbiePipeline
from newbie_image.latents import normalise
from newbie_image.nano.dataset import HELD_OUT_SEED
from newbie_image.nano.latents import encode
from newbie_image.nano.world import attributes as a
from newbie_image.nano.world.render import render
from newbie_image.nano.world.scene import Scene, sample_scene

COUNT = 64
CHANGED = (
    "pose",
    "hair_style",
    "hair_color",
    "held",
    "top",
    "top_color",
    "bottom",
    "expression",
    "bottom_color",
    "eye_color",
)


def other(scene: Scene, name: str, rng: random.Random) -> Scene:
    """The scene with another value of an attribute of its one person, or of its background."""
    if name == "background":
        return replace(scene, background=rng.choice([b for b in a.BACKGROUNDS if b != scene.background]))
    person = scene.characters[0]
    values = [v for v in a.CHARACTER_FIELDS[name] if v is not None and v != getattr(person, name)]
    return replace(scene, characters=(replace(person, **{name: rng.choice(values)}),))


def main() -> None:
    pipe = NewbiePipeline.from_pretrained("nano", torch_dtype=torch.float32)
    rng = random.Random(0)

    def latents(scenes: list[Scene]) -> Tensor:
        pictures = np.stack([render(scene, 128) for scene in scenes])
        return normalise(encode(pipe.vae, pictures, torch.device("cpu")), pipe.vae, pipe.settings.vae)

    drawn = (sample_scene(HELD_OUT_SEED + i, counts={1: 1.0}) for i in range(6 * COUNT))
    fitting = (
        s for s in drawn if not s.characters[0].name and s.characters[0].top and s.characters[0].eye_color
    )
    scenes = [scene for scene, _ in zip(fitting, range(COUNT), strict=False)]
    before = latents(scenes)
    print(
        f"{len(scenes)} scenes, variance {before.var():.2f}\n\n"
        "| changed | mean square | pooled |\n|---|---|---|"
    )
    for name in ("background", *CHANGED):
        moved = latents([other(scene, name, rng) for scene in scenes]) - before
        pooled = F.avg_pool2d(moved, 4).square().mean()
        print(f"| {name} | {moved.square().mean():.4f} | {pooled:.4f} |", flush=True)


if __name__ == "__main__":
    main()
