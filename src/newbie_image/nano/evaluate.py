"""Scores the embedded model: attributes asked for against attributes read back, on frozen held-out prompts.

Every picture is read by the classifiers of :mod:`newbie_image.nano.readers`, each character at its named
place; a character that is not there counts as wrong in everything. The same reading of the real renders and
of their round
trip through the autoencoder stands beside it: what those miss is the readers' and the autoencoder's error.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from newbie_image.nano.captions import sentence_caption, tag_caption, xml_caption
from newbie_image.nano.dataset import HELD_OUT_SEED
from newbie_image.nano.draw_many import draw_many
from newbie_image.nano.readers import (
    CHARACTER_HEADS,
    CROP_SIZE,
    HIDDEN,
    SCENE_HEADS,
    SCENE_SIZE,
    Reader,
    character_targets,
    crop,
    reading_box,
    scene_targets,
)
from newbie_image.nano.world.render import render
from newbie_image.nano.world.scene import Scene, sample_scene
from newbie_image.pipeline import NewbiePipeline
from newbie_image.request import GenerationRequest

CAPTIONS: Final = {"xml": xml_caption, "tags": tag_caption, "sentence": sentence_caption}


def held_out_scenes(count: int) -> list[Scene]:
    """`count` scenes that training never saw, alternately one and two characters. The list never changes."""
    return [sample_scene(HELD_OUT_SEED + i, 1 + i % 2) for i in range(count)]


def prompts_hash(scenes: Sequence[Scene]) -> str:
    """sha256 of all complete XML prompts, by which two scores can be known to have asked the same."""
    return hashlib.sha256("\0".join(xml_caption(scene) for scene in scenes).encode()).hexdigest()


def generate(
    pipeline: NewbiePipeline,
    prompts: Sequence[str],
    *,
    seed: int = 0,
    batch: int = 16,
    binding: str = "auto",
    steps: int | None = None,
    guidance: float | None = None,
    shift: float | None = None,
    sampler: str | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> np.ndarray:
    """One picture a prompt, many prompts in a batch; prompt i has the noise of seed + i.

    Returns:
        (prompts, height, width, 3) uint8.
    """
    requests = [
        GenerationRequest(
            prompt, seed=seed + index, binding=binding, steps=steps, guidance_scale=guidance, shift=shift,
            sampler=sampler,
        )
        for index, prompt in enumerate(prompts)
    ]  # fmt: skip
    return draw_many(pipeline, requests, batch=batch, progress=progress)


def round_trip(pipeline: NewbiePipeline, pictures: np.ndarray, batch: int = 16) -> np.ndarray:
    """Pictures (count, height, width, 3) uint8 through the autoencoder and back, `batch` at a time."""
    result: list[np.ndarray] = []
    vae = pipeline.vae
    weight = next(vae.parameters())
    with torch.no_grad():
        for start in range(0, len(pictures), batch):
            part = torch.from_numpy(pictures[start : start + batch]).permute(0, 3, 1, 2)
            x = part.to(weight.device, weight.dtype) / 127.5 - 1
            y = vae.decode(vae.encode(x, return_dict=False)[0], return_dict=False)[0]
            levels = ((y.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
            result.append(levels.permute(0, 2, 3, 1).cpu().numpy())
    return np.concatenate(result)


@dataclass(frozen=True)
class Reading:
    """What was asked and what was read at one character's place, or of one scene.

    Args:
        people: number of characters in the scene.
        asked, read: index of a value by attribute; HIDDEN was not asked.
    """

    people: int
    asked: dict[str, int]
    read: dict[str, int]

    def right(self) -> dict[str, bool]:
        """Attribute → whether it is as asked; a missing character has nothing right."""
        there = self.read.get("present", 1) == 1
        return {
            name: there and self.read[name] == wanted
            for name, wanted in self.asked.items()
            if wanted != HIDDEN
        }


def read_pictures(
    pictures: np.ndarray, scenes: Sequence[Scene], character: Reader, whole: Reader
) -> tuple[list[Reading], list[Reading]]:
    """Readings of every character, and of every scene."""
    tensor = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
    places = [(i, c) for i, scene in enumerate(scenes) for c in scene.characters]
    boxes = torch.tensor([reading_box(len(scenes[i].characters), c.position) for i, c in places])
    crops = crop(tensor[[i for i, _ in places]], boxes, CROP_SIZE)
    found = character.read(crops)
    people = [
        Reading(
            len(scenes[i].characters),
            dict(zip(CHARACTER_HEADS, character_targets(c), strict=True)),
            {name: int(values[row]) for name, values in found.items()},
        )
        for row, (i, c) in enumerate(places)
    ]
    full = crop(tensor, torch.tensor([[0.0, 0.0, 1.0, 1.0]] * len(scenes)), SCENE_SIZE)
    found = whole.read(full)
    backgrounds = [
        Reading(
            len(scene.characters),
            dict(zip(SCENE_HEADS, scene_targets(scene), strict=True)),
            {name: int(values[row]) for name, values in found.items()},
        )
        for row, scene in enumerate(scenes)
    ]
    return people, backgrounds


def summarise(people: Sequence[Reading], backgrounds: Sequence[Reading]) -> dict[str, Any]:
    """Mean accuracy by number of people and by attribute, share of characters with everything right."""
    result: dict[str, Any] = {}
    for count in sorted({reading.people for reading in people}):
        chosen = [reading.right() for reading in people if reading.people == count]
        attributes = {
            name: float(np.mean([r[name] for r in chosen if name in r]))
            for name in CHARACTER_HEADS
            if any(name in r for r in chosen)
        }
        answers = [answer for r in chosen for answer in r.values()]
        result[f"{count}_characters"] = {
            "characters": len(chosen),
            "mean": float(np.mean(answers)),
            "all_right": float(np.mean([all(r.values()) for r in chosen])),
            "attributes": attributes,
        }
    scenes = [reading.right() for reading in backgrounds]
    result["scene"] = {
        name: float(np.mean([r[name] for r in scenes if name in r]))
        for name in SCENE_HEADS
        if any(name in r for r in scenes)
    }
    return result


def evaluate(
    pipeline: NewbiePipeline,
    character: Reader,
    whole: Reader,
    *,
    count: int = 300,
    form: str = "xml",
    progress: Callable[[int], None] = lambda done: None,
    keep: Path | None = None,
    references: bool = True,
    real: np.ndarray | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """The whole score of a bundle.

    Args:
        pipeline: the bundle, on its device.
        character, whole: the trained readers.
        count: prompts, half with one and half with two characters.
        form: `xml`, `tags` or `sentence`.
        keep: where to write the pictures as one array.
        references: also score the real renders and the autoencoder's round trip.
        real: the renders of `held_out_scenes(count)` at the bundle's size, where they were made before.
        settings: steps, guidance, shift, sampler for `generate`.
    """
    scenes = held_out_scenes(count)
    made = generate(pipeline, [CAPTIONS[form](scene) for scene in scenes], progress=progress, **settings)
    if keep is not None:
        np.save(keep, made)
    score: dict[str, Any] = {
        "prompts": count,
        "prompts_sha256": prompts_hash(scenes),
        "form": form,
        "settings": settings,
        "generated": summarise(*read_pictures(made, scenes, character, whole)),
    }
    if references:
        if real is None:
            real = np.stack([render(scene, pipeline.settings.defaults.width) for scene in scenes])
        back = round_trip(pipeline, real)
        error = ((real.astype(np.float64) - back) / 255) ** 2
        score["renders"] = summarise(*read_pictures(real, scenes, character, whole))
        score["round_trip"] = summarise(*read_pictures(back, scenes, character, whole))
        score["psnr"] = float(np.mean(-10 * np.log10(np.maximum(1e-10, error.mean((1, 2, 3))))))
    return score


def write_score(score: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(score, indent=2) + "\n")
