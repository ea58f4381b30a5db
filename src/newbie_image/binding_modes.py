"""How strongly each character is kept in its own channel: modes, their parts, and how they are written.

A mode is a name for parts that are switched together; any part and any number can be set apart from it:
`full`, `region,beta_minus=5`, `full,background=off,window=0-0.4`. Nothing here imports torch.

Source of the parts: attention masks and biases by region as in Regional-Prompting-FLUX, EliGen and
DenseDiffusion (docs/binding.md says which of them this project measured).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Final, Literal

from newbie_image.errors import RequestError

Layers = Literal["all", "middle"]
Mode = Literal["off", "encode", "text", "region", "full", "sealed"]


@dataclass(frozen=True)
class BindingParts:
    """What is done to keep characters apart. With no part on, nothing is: the plain path.

    Args:
        encode: each character's block and the general tags are encoded apart, each behind the system prompt;
            the pooled text is that of the general tags.
        text: among the caption's tokens a character's are read by its own alone.
        region: the picture reads a character's text more inside its region and less outside.
        blind: the caption's tokens do not read the picture.
        apart: a character's part of the picture does not read another character's.
        background: the picture outside all regions reads no character's text.
        sealed: each region reads itself, its own and the general text, and nothing else, at every step and
            in every layer: exact, at the price of coherence.
        weights: weights of tags act on how gladly the picture reads them.
        beta_plus, beta_minus: added inside and taken away outside a region, in scores before the softmax;
            beta_minus may be infinite.
        start, end: part of the steps in which the picture's parts (region, apart, background) act.
        layers: blocks in which they act: all, or the middle third.
    """

    encode: bool = False
    text: bool = False
    region: bool = False
    blind: bool = False
    apart: bool = False
    background: bool = False
    sealed: bool = False
    weights: bool = False
    beta_plus: float = 0.3
    beta_minus: float = 3.0
    start: float = 0.0
    end: float = 1.0
    layers: Layers = "all"

    @property
    def regional(self) -> bool:
        """Whether anything depends on where characters stand."""
        return self.region or self.apart or self.background or self.sealed

    @property
    def changes(self) -> bool:
        """Whether anything is on."""
        return self.encode or self.text or self.blind or self.weights or self.regional

    @property
    def switched(self) -> frozenset[str]:
        """The parts that are on, but for weights, which a model need not be trained with."""
        return frozenset(name for name in _SWITCHES if name != "weights" and getattr(self, name))


UNTIL: Final = 0.6
"""Part of the steps after which regions rest: who is where is settled, and what crosses a border can still be
finished (docs/binding.md, the sweep)."""
_TEXT: Final = BindingParts(encode=True, text=True, weights=True)
_FULL: Final = replace(_TEXT, region=True, blind=True, apart=True, background=True, end=UNTIL)
MODES: Final[dict[str, BindingParts]] = {
    "off": BindingParts(),
    "encode": BindingParts(encode=True, weights=True),
    "text": _TEXT,
    "region": replace(_TEXT, region=True, end=UNTIL),
    "full": _FULL,
    "sealed": replace(_FULL, sealed=True, beta_minus=math.inf, end=1.0),
}
AUTO: Final = "auto"
_SWITCHES: Final = tuple(f.name for f in fields(BindingParts) if f.type == "bool")


def read_binding(text: str) -> BindingParts | None:
    """The parts that a setting names; None for `auto`, which prompt and bundle decide.

    Raises:
        RequestError: an unknown mode, part or number, and what there is.
    """
    mode, *settings = [piece.strip() for piece in text.split(",")]
    if mode == AUTO and not settings:
        return None
    if mode == AUTO:
        raise RequestError(
            f"binding {text!r}: auto chooses its parts itself; give one of {', '.join(MODES)} before them"
        )
    if mode not in MODES:
        raise RequestError(
            f"unknown binding {mode!r}; choose one of auto, {', '.join(MODES)}, and after it, if wanted, "
            f"part=on|off ({', '.join(_SWITCHES)}), beta_plus=, beta_minus=, window=0-0.6, layers=all|middle"
        )
    parts = MODES[mode]
    for setting in settings:
        parts = _set(parts, setting, text)
    if parts.sealed and not any(setting.startswith("window") for setting in settings):
        parts = replace(parts, start=0.0, end=1.0)
    if parts.sealed and (parts.start, parts.end, parts.layers) != (0.0, 1.0, "all"):
        raise RequestError(
            f"binding {text!r}: sealed holds in all steps and layers; leave window and layers away"
        )
    held = ("encode", "text", "region", "blind", "apart", "background")
    if parts.sealed and not all(getattr(parts, name) for name in held):
        raise RequestError(
            f"binding {text!r}: sealed holds only with all of {', '.join(held)} on; give sealed alone, or "
            "full without some of them"
        )
    return parts


def _set(parts: BindingParts, setting: str, whole: str) -> BindingParts:
    name, _, value = (piece.strip() for piece in setting.partition("="))
    try:
        if name in _SWITCHES and value in ("on", "off"):
            return replace(parts, **{name: value == "on"})
        if name in ("beta_plus", "beta_minus"):
            number = float(value)
            if 0 <= number <= 100 or (number == math.inf and name == "beta_minus"):
                return replace(parts, **{name: number})
        if name == "window":
            start, end = (float(piece) for piece in value.split("-"))
            if 0 <= start < end <= 1:
                return replace(parts, start=start, end=end)
        if name == "layers" and value in ("all", "middle"):
            return replace(parts, layers=value)
    except ValueError:
        pass
    raise RequestError(
        f"binding {whole!r}: {setting!r} is not understood; give part=on|off ({', '.join(_SWITCHES)}), "
        "beta_plus=0…100, beta_minus=0…100|inf, window=START-END in 0…1, or layers=all|middle"
    )
