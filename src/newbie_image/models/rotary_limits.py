"""How far the rotary tables reach: the largest picture and the longest caption of a model. No torch."""

from __future__ import annotations

from collections.abc import Sequence

from newbie_image.errors import RequestError


def token_grid(latent_size: Sequence[int], patch: int, axes_lens: Sequence[int]) -> tuple[int, int]:
    """Image tokens downwards and across for latents of (height/8, width/8).

    Args:
        latent_size: height/8 and width/8 of the picture.
        patch: latent pixels along the side of one token.
        axes_lens: rows of the rotary tables for caption index, row and column.

    Raises:
        RequestError: not two positive whole numbers, not multiples of the patch, or beyond the rotary tables.
    """
    if len(latent_size) != 2 or not all(isinstance(side, int) and side > 0 for side in latent_size):
        raise RequestError(
            f"latent size {latent_size!r}; give two positive whole numbers (height/8, width/8)"
        )
    height, width = latent_size
    if height % patch or width % patch:
        raise RequestError(
            f"latents of {height}×{width}; both sides must be multiples of {patch} (patch_size)"
        )
    rows, columns = height // patch, width // patch
    if rows > axes_lens[1] or columns > axes_lens[2]:
        raise RequestError(
            f"latents of {height}×{width} are {rows}×{columns} tokens; the model's rotary tables end at "
            f"{axes_lens[1]}×{axes_lens[2]} (axes_lens): choose a smaller picture"
        )
    return rows, columns


def check_caption_length(length: int, axes_lens: Sequence[int]) -> None:
    """Raises RequestError if the image's place behind the caption is beyond the rotary table."""
    if length >= axes_lens[0]:
        raise RequestError(
            f"caption of {length} tokens; the model's rotary table allows {axes_lens[0] - 1} (axes_lens): "
            "shorten it"
        )
