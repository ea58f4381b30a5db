"""Hair in twelve styles, as the two layers a figure is put together from."""

from __future__ import annotations

from newbie_image.nano.world.hair_back import draw_back
from newbie_image.nano.world.hair_front import draw_front

__all__ = ["draw_back", "draw_front"]
