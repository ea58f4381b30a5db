"""The light of a scene: what an hour and a weather do to the colours of what stands behind the people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from newbie_image.nano.world.drawing import CANVAS, gradient, rect
from newbie_image.nano.world.palette import mix

SKIES: Final = {
    "day": ("#6fb4f2", "#a9d6fa", "#e4f4fd"),
    "sunset": ("#8a6fc0", "#f58f78", "#ffd58a"),
    "night": ("#141a4a", "#28357c", "#4f5fa8"),
}
"""Colours of the sky at its top, its middle and its lower end."""
TINTS: Final = {"day": ("#ffffff", 0.0), "sunset": ("#ff9c5c", 0.34), "night": ("#1d2560", 0.62)}
RAIN_SKY: Final = ("#8b97a8", 0.62)
WET_SUNSET: Final = "#dd8fa6"
RAIN_TINT: Final = ("#8b98a8", 0.3)


@dataclass(frozen=True)
class Light:
    """How a backdrop is lit. Calling it turns a colour as by day into the colour as seen now.

    `time` and `weather` are as in Scene; a time of None is plain daylight.
    """

    time: str | None
    weather: str | None

    @property
    def hour(self) -> str:
        """The time of day, `day` where the scene has none."""
        return self.time or "day"

    def __call__(self, color: str, strength: float = 1.0) -> str:
        """The `#rrggbb` colour under this light; strength 0 leaves it as it is."""
        tint, amount = TINTS[self.hour]
        seen = mix(color, tint, amount * strength)
        if self.weather == "rain":
            veil = (
                mix(RAIN_TINT[0], WET_SUNSET, 0.4)
                if self.hour == "sunset"
                else mix(RAIN_TINT[0], tint, amount)
            )
            seen = mix(seen, veil, RAIN_TINT[1] * strength)
        return seen

    def sky(self) -> tuple[str, str, str]:
        """The sky's colours from its top to its lower end."""
        top, middle, low = SKIES[self.hour]
        if self.weather == "rain":
            grey, amount = RAIN_SKY
            tint, tinted = TINTS[self.hour]
            wet = mix(grey, WET_SUNSET, 0.5) if self.hour == "sunset" else mix(grey, tint, tinted * 0.8)
            amount *= 0.75 if self.hour == "sunset" else 1
            return mix(top, wet, amount), mix(middle, wet, amount), mix(low, wet, amount)
        if self.weather == "snowing" and self.hour == "day":
            return mix(top, "#93a9c4", 0.55), mix(middle, "#a5b8cf", 0.5), mix(low, "#bccbdd", 0.5)
        return top, middle, low


def ground(light: Light, uid: str, y: float, far: str, near: str) -> str:
    """A lit ground from `y` to the lower edge (canvas units), from `far` at its horizon to `near`."""
    stops = [(0.0, light(far), 1.0), (1.0, light(near), 1.0)]
    return f"<defs>{gradient(uid + 'ground', stops)}</defs>" + rect(
        0, y, CANVAS, CANVAS - y, f"url(#{uid}ground)"
    )
