"""The language's one definition: which elements there are, where they stand and what they hold.

The parser, the checks, the conversions and the schemas (RELAX NG, XSD, JSON Schema) all read the tables of
this file;
an element that is added here is known everywhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_BYTES = 256 * 1024
MAX_DEPTH = 32
MIN_WEIGHT, SOFT_MIN_WEIGHT, MAX_WEIGHT = 0.0, 0.1, 3.0


@dataclass(frozen=True, slots=True)
class Field:
    """An element that holds a list of tags.

    Args:
        name: the canonical element name.
        doc: one line that says what belongs in it.
        aliases: other names that are read as this one.
        suggested: its absence is worth a hint.
        prose: holds natural language, which is never split into tags.
    """

    name: str
    doc: str
    aliases: tuple[str, ...] = ()
    suggested: bool = False
    prose: bool = False


@dataclass(frozen=True, slots=True)
class Block:
    """An element that holds fields.

    Args:
        name: the canonical element name; a character's number follows it as `_1`.
        doc: one line that says what it is.
        fields: what may stand in it.
        suggested: its absence is worth a hint.
    """

    name: str
    doc: str
    fields: tuple[Field, ...]
    suggested: bool = False


ROOTS = ("scene", "image", "img", "prompt", "document")

CAPTION = Field(
    "caption", "Natural language about the whole picture; commas and newlines are part of it.", prose=True
)
CHARACTER = Block(
    "character",
    "One person of the picture; everything in it belongs to this person alone.",
    (
        Field("n", "The name of a known figure.", ("name",)),
        Field("gender", "1girl, 1boy or 1other.", suggested=True),
        Field("appearance", "Hair, eyes, ears, skin: what is there without clothes.", suggested=True),
        Field("clothing", "Garments, legwear, headwear and ornaments."),
        Field("body_type", "Build, height and age."),
        Field("expression", "What the face shows."),
        Field("pose", "How the body is held and where it looks."),
        Field("action", "What the person does, and with which thing."),
        Field("interaction", "What the person does with another person."),
        Field(
            "position", "A place word such as center_left, or a box x0,y0,x1,y1 in fractions of the picture."
        ),
    ),
)
GENERAL = Block(
    "general_tags",
    "What belongs to the picture and to no person.",
    (
        Field("count", "How many people: 2girls, 1boy, solo."),
        Field("artists", "Artists whose manner is asked for."),
        Field("style", "Medium and manner of drawing."),
        Field("background", "What stands behind the people."),
        Field("environment", "Place, season and time of day."),
        Field("perspective", "Where the viewer stands: from_above, dutch_angle."),
        Field("composition", "Framing: upper_body, close-up."),
        Field("atmosphere", "Mood."),
        Field("lighting", "Light."),
        Field("weather", "Weather."),
        Field("resolution", "A tag such as highres; it never sets the picture's size."),
        Field("quality", "masterpiece, best_quality and the like."),
        Field("objects", "Things that nobody holds."),
        Field("other", "Whatever has no better place."),
    ),
    suggested=True,
)
ENVIRONMENT = Block(
    "environment",
    "The surroundings, beside the general tags.",
    (
        Field("weather", "Weather."),
        Field("lighting", "Light."),
        Field("time", "Time of day or year."),
        Field("location", "Place."),
    ),
)
KEPT = ("danbooru_tags", "e621_tags")

BLOCKS = (CHARACTER, GENERAL, ENVIRONMENT)
CHARACTER_FIELDS = {f.name: f for f in CHARACTER.fields}
GENERAL_FIELDS = {f.name: f for f in GENERAL.fields}
ENVIRONMENT_FIELDS = {f.name: f for f in ENVIRONMENT.fields}
FIELDS = {f.name: f for block in BLOCKS for f in block.fields} | {CAPTION.name: CAPTION}
ALIASES = {alias: f.name for block in BLOCKS for f in block.fields for alias in f.aliases}
CONTAINERS = frozenset({*ROOTS, GENERAL.name, ENVIRONMENT.name})
PROSE = frozenset(f.name for f in FIELDS.values() if f.prose)

ROWS = {"upper": 0.25, "": 0.5, "lower": 0.75}
COLUMNS = {
    "far_left": 0.08,
    "left": 0.2,
    "center_left": 0.35,
    "center": 0.5,
    "center_right": 0.65,
    "right": 0.8,
    "far_right": 0.92,
}
POSITIONS: dict[str, tuple[float, float]] = {
    f"{row}_{column}" if row else column: (x, y) for row, y in ROWS.items() for column, x in COLUMNS.items()
} | {"top": (0.5, 0.25), "bottom": (0.5, 0.75), "foreground": (0.5, 0.6), "background": (0.5, 0.4)}
"""Place words → the middle of the place, (x, y) in fractions of the picture from its upper left corner."""

POSITION_NAMES = {
    name: position
    for position, names in {
        "left": "左 左边 左側 左侧 左面 左方 左の方 画面左 靠左",
        "right": "右 右边 右側 右侧 右面 右方 右の方 画面右 靠右",
        "center": "中 中央 中间 中間 正中 正中间 中心 真ん中 真中 居中",
        "center_left": "中左 左中 中央左 中间偏左 中央偏左 偏左 中央左寄り 左寄り",
        "center_right": "中右 右中 中央右 中间偏右 中央偏右 偏右 中央右寄り 右寄り",
        "far_left": "最左 最左边 最左侧 一番左 左端",
        "far_right": "最右 最右边 最右侧 一番右 右端",
        "upper_left": "左上 左上方 左上角 上左",
        "upper_right": "右上 右上方 右上角 上右",
        "lower_left": "左下 左下方 左下角 下左",
        "lower_right": "右下 右下方 右下角 下右",
        "top": "上 上方 上边 上面 上部 上側",
        "bottom": "下 下方 下边 下面 下部 下側",
        "foreground": "前景 前面 手前",
        "background": "背景 后面 後ろ 奥 远处",
    }.items()
    for name in names.split()
}
"""Chinese and Japanese names of places → the place word."""

_CHARACTER_NAME = re.compile(r"character(?:([_-]?)(\d{1,6}))?\Z")
_FOUR = re.compile(r"[-+.\d]{1,24}(?:\s{0,8}[,，]\s{0,8}[-+.\d]{1,24}){3}\Z")
_BOX = re.compile(r"\s*".join([r"", *[r"(\d*\.?\d+)", "[,，]"] * 3, r"(\d*\.?\d+)", r"\Z"]))


def character_number(name: str) -> int | None:
    """The number in `character_2`, 0 for a bare `character`, None for any other name."""
    match = _CHARACTER_NAME.match(name)
    if match is None:
        return None
    return int(match.group(2)) if match.group(2) else 0


def canonical(name: str) -> str | None:
    """The canonical name of a known element, None for an unknown one.

    Letters' case does not matter; `name` becomes `n` and `character1` becomes `character_1`.
    """
    name = name.lower()
    name = ALIASES.get(name, name)
    if name in FIELDS or name in CONTAINERS or name in KEPT:
        return name
    match = _CHARACTER_NAME.match(name)
    if match is None:
        return None
    return f"character_{int(match.group(2))}" if match.group(2) else "character"


def is_box(text: str) -> bool:
    """Whether a position is written as four numbers, right or wrong."""
    return _FOUR.match(text.strip()) is not None


def position_box(text: str) -> tuple[float, float, float, float] | None:
    """A box `x0,y0,x1,y1` in fractions of the picture, its commas of either width; None where the text is no
    box with 0 ≤ x0 < x1 ≤ 1 (y alike).
    """
    match = _BOX.match(text)
    if match is None:
        return None
    x0, y0, x1, y1 = (float(v) for v in match.groups())
    return (x0, y0, x1, y1) if 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1 else None
