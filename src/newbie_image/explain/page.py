"""One page that shows an explanation: everything inlined, nothing loaded from anywhere."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any, Final

from PIL import Image

from newbie_image.explain.looking import Explanation
from newbie_image.explain.numbers import numbers
from newbie_image.explain.overlay import character_colour, colours, heat_layer

_TEMPLATE: Final = Path(__file__).with_name("page.html")


def page(explanation: Explanation) -> str:
    """The page's HTML."""
    import numpy as np

    data: dict[str, Any] = numbers(explanation)
    data["picture"] = _inlined(explanation.picture.image)
    for entries, heats in (
        (data["characters"], explanation.characters),
        (data["tags"], explanation.tags),
    ):
        for entry, heat in zip(entries, heats, strict=True):
            entry["layer"] = _inlined(heat_layer(heat.map))
    for entry, step in zip(data["trace"], explanation.trace, strict=True):
        entry["preview"] = None if step.preview is None else _inlined(step.preview)
    data["colours"] = [f"rgb{character_colour(place)}" for place in range(len(data["characters"]))]
    data["scale"] = _inlined(Image.fromarray(colours(np.linspace(0, 1, 64))[None, :, :]))
    text = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
    text = text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    whole = _TEMPLATE.read_text(encoding="utf-8")
    return whole.replace("/*DATA*/null", text, 1).encode("utf-8", "replace").decode()


def _inlined(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
