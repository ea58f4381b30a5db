"""An explanation in a folder: picture, heat maps, numbers and page."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Final

from PIL import Image

from newbie_image.errors import OutputError
from newbie_image.explain.looking import Explanation
from newbie_image.explain.numbers import numbers
from newbie_image.explain.overlay import heat_picture
from newbie_image.explain.page import page
from newbie_image.provenance import check_writable, replace_file, save_picture
from newbie_image.request import GenerationRequest

PAGE: Final = "index.html"
NUMBERS: Final = "explain.json"
PICTURE: Final = "picture.png"


def prepare_folder(folder: Path) -> None:
    """Makes the folder and looks whether it can be written, before any work is done.

    Raises:
        OutputError: it holds something else than an earlier explanation, or cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        others = any(folder.iterdir()) and not (folder / NUMBERS).exists()
    except (OSError, ValueError) as error:
        number = error.errno if isinstance(error, OSError) else None
        reason = os.strerror(number).lower() if number else str(error)
        raise OutputError(f"cannot make the folder {folder}: {reason}; give another path") from None
    if others:
        raise OutputError(
            f"the folder {folder} holds other files; give an empty one, or one that is not there"
        )
    check_writable(folder / PICTURE)


def write_folder(explanation: Explanation, request: GenerationRequest, folder: Path) -> Path:
    """Writes all files, in place of those of an earlier explanation, and gives back the page's path.

    Args:
        explanation: of a picture.
        request: what was asked for, for the picture's record.
        folder: of :func:`prepare_folder`.

    Raises:
        OutputError: a file cannot be written.
    """
    for old in (*folder.glob("tag-*.png"), *folder.glob("character-*.png")):
        old.unlink()
    data = numbers(explanation)
    save_picture(folder / PICTURE, explanation.picture, request)
    heats = (*explanation.characters, *explanation.tags)
    for entry, heat in zip((*data["characters"], *data["tags"]), heats, strict=True):
        replace_file(folder / entry["map"], png_bytes(heat_picture(explanation.picture.image, heat.map)))
    text = json.dumps(data, ensure_ascii=False, indent=1) + "\n"
    replace_file(folder / NUMBERS, text.encode("utf-8", "replace"))
    replace_file(folder / PAGE, page(explanation).encode())
    return folder / PAGE


def png_bytes(image: Image.Image) -> bytes:
    """A picture as a PNG file without any text."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
