"""Arms: what is compared. An arm is a record of settings; whether it can be drawn on a set of prompts is
asked, never assumed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Final

from newbie_image.binding_modes import read_binding
from newbie_image.errors import RequestError
from newbie_image.nano.benchmark.prompt_sets import FORMS
from newbie_image.request import GenerationRequest


@dataclass(frozen=True)
class Arm:
    """One way to draw a prompt.

    Args:
        name: unique in a run; also the name of its folder of pictures.
        form: how the prompt is written: `xml`, `tags` or `sentence`.
        binding: the engine's binding mode (docs/binding.md); `off` is the plain path.
        parameters: numbers of the request by name (`cfg_renorm`), and whatever else is set behind the binding
            mode (`beta_minus`, `window`).
        shuffled_regions: each person gets the next one's region; must fail.
        weighed: weight by attribute (`hair_color`), on the first person's tag.
        words: what it is, in a line.
    """

    name: str
    form: str = "xml"
    binding: str = "off"
    parameters: Mapping[str, str] = field(default_factory=dict)
    shuffled_regions: bool = False
    weighed: Mapping[str, float] = field(default_factory=dict)
    words: str = ""

    def binding_setting(self) -> str:
        """The request's `binding`, as `region,beta_minus=5`."""
        settings = [f"{k}={v}" for k, v in self.parameters.items() if k not in request_numbers()]
        if self.weighed and self.binding == "off":
            settings.append("weights=on")
        return ",".join([self.binding, *settings])

    def request_settings(self) -> dict[str, float]:
        """The request's other settings."""
        return {k: float(v) for k, v in self.parameters.items() if k in request_numbers()}


def request_numbers() -> frozenset[str]:
    """Settings of a request that an arm may change: those that are a number or the bundle's default."""
    return frozenset(each.name for each in fields(GenerationRequest) if each.type == "float | None")


_ALL: Final = (
    Arm("tags", form="tags", words="one flat list of tags"),
    Arm("sentence", form="sentence", words="one sentence"),
    Arm("xml", words="the XML prompt, encoded whole, plain attention"),
    Arm("encode", binding="encode", words="groups encoded apart"),
    Arm("text", binding="text", words="and the text mask"),
    Arm("region", binding="region", words="and the image bias"),
    Arm(
        "full",
        binding="full",
        words="and no text reads a picture, no region another, the rest no person's text",
    ),
    Arm("sealed", binding="sealed", words="each region attends to itself and its own text alone"),
    Arm("shuffled", binding="region", shuffled_regions=True, words="region, with the regions of others"),
)
ARMS: Final[Mapping[str, Arm]] = {arm.name: arm for arm in _ALL}
_PARAMETER: Final = re.compile(r"([a-z_]+)=([A-Za-z0-9_.\-]+)")


def read_arms(text: str) -> list[Arm]:
    """Arms of a command line: names apart by commas, each with its own parameters behind colons.

    `xml,region:beta_minus=5:window=0-0.6` are two arms; the second is named as it is written, with `_` for
    the colons.

    Raises:
        RequestError: an unknown name or setting, a misshapen parameter, or an arm twice.
    """
    arms: list[Arm] = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, *pieces = part.split(":")
        if name not in ARMS:
            raise RequestError(f"unknown arm {name!r}; choose from {', '.join(ARMS)}")
        parameters = dict(ARMS[name].parameters)
        for piece in pieces:
            found = _PARAMETER.fullmatch(piece)
            if found is None:
                raise RequestError(
                    f"the parameter {piece!r} of the arm {name!r} is misshapen; write KEY=VALUE, as in "
                    f"{name}:beta_minus=3"
                )
            parameters[found[1]] = found[2]
        arm = replace(ARMS[name], name=part.replace(":", "_"), parameters=parameters)
        check_settings(arm)
        arms.append(arm)
    if not arms:
        raise RequestError(f"no arm is named in {text!r}; choose from {', '.join(ARMS)}")
    twice = sorted({arm.name for arm in arms if sum(arm.name == other.name for other in arms) > 1})
    if twice:
        raise RequestError(f"the arm {twice[0]!r} is named twice; name each once")
    return arms


def check_settings(arm: Arm) -> None:
    """Refuse (RequestError) settings that the engine does not have."""
    read_binding(arm.binding_setting())
    try:
        GenerationRequest("", **arm.request_settings())  # pyright: ignore[reportArgumentType]
    except ValueError:
        numbers = {k: v for k, v in arm.parameters.items() if k in request_numbers()}
        raise RequestError(f"the arm {arm.name!r} sets {numbers}; give numbers") from None


def dose_arms(arm: Arm, attribute: str, weights: Sequence[float]) -> list[Arm]:
    """The arm with one attribute's tag weighed, once for each weight."""
    return [
        replace(arm, name=f"{arm.name}_{attribute}={weight:g}", weighed={attribute: weight})
        for weight in weights
    ]


def unavailable(arm: Arm, kind: str) -> str | None:
    """Why an arm cannot be drawn on a set of prompts, in a few words; None if it can.

    Raises:
        RequestError: a form that there is not.
    """
    if arm.form not in FORMS:
        raise RequestError(f"unknown form {arm.form!r}; choose one of {', '.join(FORMS)}")
    if arm.form == "tags" and kind == "swapped":
        return "a list of tags says where people stand by their order alone"
    if arm.shuffled_regions and kind == "unplaced":
        return "without positions there are no regions to shuffle"
    if arm.weighed and arm.form != "xml":
        return f"weights stand in XML prompts, and its form is {arm.form}"
    return None
