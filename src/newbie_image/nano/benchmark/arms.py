"""Arms: what is compared. An arm is a record of settings; whether this version can draw it is asked, never
assumed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Final

from newbie_image.errors import RequestError
from newbie_image.nano.benchmark.prompt_sets import FORMS
from newbie_image.request import GenerationRequest

Value = str | float


@dataclass(frozen=True)
class Arm:
    """One way to draw a prompt.

    Args:
        name: unique in a run; also the name of its folder of pictures.
        form: how the prompt is written: `xml`, `tags` or `sentence`.
        binding: the engine's binding mode; `off` is the plain path.
        parameters: further settings of the request, by name, as `region_strength`.
        shuffled_regions: each person gets another person's region; must fail.
        weighed: weight by attribute (`hair_color`), on the first person's tag.
        words: what it is, in a line.
    """

    name: str
    form: str = "xml"
    binding: str = "off"
    parameters: Mapping[str, Value] = field(default_factory=dict)
    shuffled_regions: bool = False
    weighed: Mapping[str, float] = field(default_factory=dict)
    words: str = ""


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
        words="and no text reads an image, no region another, the rest no person's text",
    ),
    Arm("sealed", binding="sealed", words="each region attends to itself and its own text alone"),
    Arm("shuffled", binding="region", shuffled_regions=True, words="region, with the regions of others"),
)
ARMS: Final[Mapping[str, Arm]] = {arm.name: arm for arm in _ALL}
_PARAMETER: Final = re.compile(r"([a-z_]+)=([A-Za-z0-9_.\-]+)")


def read_arms(text: str) -> list[Arm]:
    """Arms of a command line: names apart by commas, each with its own parameters behind colons.

    `xml,region:region_strength=3:region_until=0.6` are two arms; the second is named as it is written, with
    `_` for the colons.

    Raises:
        RequestError: an unknown name, a misshapen parameter, or an arm twice.
    """
    arms: list[Arm] = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, *pieces = part.split(":")
        if name not in ARMS:
            raise RequestError(f"unknown arm {name!r}; choose from {', '.join(ARMS)}")
        arm, parameters = ARMS[name], dict(ARMS[name].parameters)
        for piece in pieces:
            found = _PARAMETER.fullmatch(piece)
            if found is None:
                raise RequestError(
                    f"the parameter {piece!r} of the arm {name!r} is misshapen; write KEY=VALUE, as in "
                    f"{name}:region_strength=3"
                )
            parameters[found[1]] = _value(found[2])
        arms.append(replace(arm, name=part.replace(":", "_"), parameters=parameters))
    if not arms:
        raise RequestError(f"no arm is named in {text!r}; choose from {', '.join(ARMS)}")
    twice = sorted({arm.name for arm in arms if sum(arm.name == other.name for other in arms) > 1})
    if twice:
        raise RequestError(f"the arm {twice[0]!r} is named twice; name each once")
    return arms


def _value(text: str) -> Value:
    try:
        return float(text)
    except ValueError:
        return text


def dose_arms(arm: Arm, attribute: str, weights: Sequence[float]) -> list[Arm]:
    """The arm with one attribute's tag weighed, once for each weight."""
    return [
        replace(arm, name=f"{arm.name}_{attribute}={weight:g}", weighed={attribute: weight})
        for weight in weights
    ]


def unavailable(arm: Arm, kind: str) -> str | None:
    """Why this version cannot draw an arm on a set of prompts, in a few words; None if it can.

    Raises:
        RequestError: a form that there is not.
    """
    if arm.form not in FORMS:
        raise RequestError(f"unknown form {arm.form!r}; choose one of {', '.join(FORMS)}")
    if arm.form == "tags" and kind == "swapped":
        return "a list of tags says where people stand by their order alone"
    settings = {each.name for each in fields(GenerationRequest)}
    if arm.binding != "off" and "binding" not in settings:
        return f"the engine has no binding {arm.binding!r} yet"
    if arm.shuffled_regions and "regions" not in settings:
        return "the engine takes no regions yet"
    if arm.weighed and "binding" not in settings:
        return "the engine does not weigh tags yet"
    unknown = [name for name in arm.parameters if name not in settings]
    if unknown:
        return f"the engine has no setting {unknown[0]!r}"
    return None
