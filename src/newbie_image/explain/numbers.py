"""An explanation as plain numbers: what stands in `explain.json`, and what the page reads."""

from __future__ import annotations

import re
from typing import Any, Final

from newbie_image.explain.looking import CharacterStep, Explanation, Heat, StepTrace

FORMAT: Final = 1
"""Of `explain.json`; raised when an entry changes its meaning."""


def numbers(explanation: Explanation) -> dict[str, Any]:
    """All that was measured, ready for JSON (docs/sight.md lists the entries)."""
    seen = explanation
    return {
        "format": FORMAT,
        "prompt": seen.request.prompt,
        **({"changes": _changes(seen.request.changes)} if seen.request.changes else {}),
        "seed": seen.picture.seed,
        "width": seen.picture.image.width,
        "height": seen.picture.image.height,
        "binding": seen.picture.settings.get("binding", seen.request.binding),
        "kind": seen.kind,
        "blocks": list(seen.blocks),
        "steps": list(seen.steps),
        "image_tokens": list(seen.tags[0].map.shape),
        "regions": {
            "source": seen.regions,
            "boxes": [_rounded(box) for box in seen.boxes],
            "areas": _inside(seen.areas, seen.labels),
        },
        "characters": [
            {"character": number, "name": name, "map": character_file(number), **_heat(heat, seen.labels)}
            for number, name, heat in zip(seen.labels, seen.names, seen.characters, strict=True)
        ],
        "tags": [
            {
                "text": span.text,
                "path": span.path,
                "character": seen.labels[span.group - 1] if span.group > 0 else None,
                "weight": span.weight,
                "map": tag_file(place, span.path, span.text),
                **_heat(heat, seen.labels),
            }
            for place, (span, heat) in enumerate(zip(seen.spans, seen.tags, strict=True), start=1)
        ],
        "trace": [_step(step) for step in seen.trace],
    }


def character_file(number: int) -> str:
    """The name of a character's heat map."""
    return f"character-{number}.png"


def tag_file(place: int, path: str, text: str) -> str:
    """The name of a tag's heat map: its place in the prompt, whose it is, and its text as file names go.

    Args:
        place: from 1.
        path: as `character_1.appearance[0]`.
        text: the tag.
    """
    owner = path.partition(".")[0]
    kept = re.sub(r"[^A-Za-z0-9_-]+", "_", f"{owner}-{text}")[:60].strip("_")
    return f"tag-{place:02d}-{kept}.png"


def _changes(changes: tuple[tuple[int, str], ...]) -> list[dict[str, Any]]:
    return [{"step": at + 1, "prompt": prompt} for at, prompt in changes]


def _heat(heat: Heat, labels: tuple[int, ...]) -> dict[str, Any]:
    return {
        "attention": None if heat.attention is None else _short(heat.attention),
        "inside": _inside(heat.inside, labels),
        "centre": None if heat.centre is None else _rounded(heat.centre),
    }


def _inside(shares: tuple[float, ...], labels: tuple[int, ...]) -> dict[str, float]:
    """By region: character_1, …, outside; nothing where no regions are known."""
    if not shares:
        return {}
    names = [*(f"character_{number}" for number in labels), "outside"]
    return {name: round(share, 4) for name, share in zip(names, shares, strict=True)}


def _step(step: StepTrace) -> dict[str, Any]:
    return {
        "step": step.index,
        "t": round(step.t, 4),
        "step_size": _short(step.step_size),
        "guidance_norm": None if step.guidance_norm is None else _short(step.guidance_norm),
        "characters": None if step.characters is None else [_character(each) for each in step.characters],
    }


def _character(where: CharacterStep) -> dict[str, Any]:
    return {
        "centre": None if where.centre is None else _rounded(where.centre),
        "inside": None if where.inside is None else round(where.inside, 4),
    }


def _rounded(values: tuple[float, ...]) -> list[float]:
    return [round(value, 4) for value in values]


def _short(value: float) -> float:
    """Five significant digits: what is measured says no more."""
    return float(f"{value:.5g}")
