"""Work and weights that a picture can do without, by name, so that each can be switched off. No torch.

==========  =================================================================  =======================
name        what is left out                                                   where it is at work
==========  =================================================================  =======================
adaln       AdaLN factors are computed once for the whole time grid, not step  every run
            by step
refiner     the context refiners run once a prompt, not in every step          every run
last-layer  Gemma's last layer and final norm, which nobody reads, do not run  every run
tables      the text encoders' token tables stay on the host                   offload mode ``blocks``
chunks      projections and feed-forward take so many tokens at a time         where a plan says so
==========  =================================================================  =======================

The first four change no bit of a picture (on one device, in one dtype). Chunks change the shape of products
of matrices and with it, on most devices, how they are rounded.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from newbie_image.errors import RequestError

TRIMS: Final = ("adaln", "refiner", "last-layer", "tables", "chunks")


def check_trims(names: Iterable[str]) -> tuple[str, ...]:
    """Names of trims in their usual order, each once.

    Raises:
        RequestError: an unknown one.
    """
    given = tuple(names)
    unknown = [name for name in given if name not in TRIMS]
    if unknown:
        raise RequestError(
            f"unknown trim {unknown[0]!r}; give all, none, or some of {', '.join(TRIMS)} with commas between"
        )
    return tuple(name for name in TRIMS if name in given)


def read_trims(text: str) -> tuple[str, ...]:
    """Trims from a text: ``all``, ``none``, or names with commas between.

    Raises:
        RequestError: an unknown name, or none at all.
    """
    words = [word.strip().lower() for word in text.split(",")]
    if words == ["all"]:
        return TRIMS
    return () if words == ["none"] else check_trims(words)


def trims_text(trims: Iterable[str]) -> str:
    """The text that :func:`read_trims` reads back."""
    names = check_trims(trims)
    return "all" if names == TRIMS else ",".join(names) or "none"
