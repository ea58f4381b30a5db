"""Prompts with blanks: `{{name}}` must be filled, `{{name=blue_hair}}` may be.

The templates are the files of assets/templates. Their first comment says what they are for and is left out of
the result.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from newbie_image.errors import PromptError
from newbie_image.prompt.document import Prompt
from newbie_image.prompt.parse import parse

_BLANK = re.compile(r"\{\{\s*([A-Za-z_]\w*)\s*(?:=\s*(.*?)\s*)?\}\}", re.DOTALL)
_ABOUT = re.compile(r"\A\s*<!--\s*template:\s*(.*?)\s*-->\s*", re.DOTALL)


@dataclass(frozen=True)
class Template:
    """A prompt with blanks.

    Args:
        name: the file's name without its ending.
        about: one line on what it is for.
        text: the prompt, blanks included.
        variables: blank → its default; None where it must be filled.
    """

    name: str
    about: str
    text: str
    variables: Mapping[str, str | None]

    def fill(self, values: Mapping[str, str] | None = None) -> Prompt:
        """The prompt with its blanks filled.

        Args:
            values: blank → text, as one would type it there.

        Raises:
            PromptError: a value for a blank that is not there, a blank without a value, or a result that
                cannot be read.
        """
        values = dict(values or {})
        unknown = [name for name in values if name not in self.variables]
        if unknown:
            known = ", ".join(self.variables) or "none"
            raise PromptError(f"template {self.name} has no {unknown[0]!r}; it has {known}")
        missing = [name for name, default in self.variables.items() if default is None and name not in values]
        if missing:
            raise PromptError(f"template {self.name} needs {', '.join(missing)}; give {missing[0]}=…")

        def value(match: re.Match[str]) -> str:
            name = match.group(1)
            return values[name] if name in values else self.variables[name] or ""

        return parse(_BLANK.sub(value, self.text))


def read_template(name: str, text: str) -> Template:
    """A template from a file's text."""
    about = _ABOUT.match(text)
    body = text[about.end() :] if about else text
    variables: dict[str, str | None] = {}
    for match in _BLANK.finditer(body):
        blank, default = match.group(1), match.group(2)
        if variables.get(blank) is None:
            variables[blank] = default
    return Template(name, " ".join(about.group(1).split()) if about else "", body, variables)


def folder(kind: str = "templates") -> Path:
    """The folder of the templates (or `mistakes`): beside the package in a wheel, in assets/ in a checkout.

    Raises:
        PromptError: this installation has none.
    """
    package = Path(__file__).resolve().parents[1]
    for place in (package / "assets" / kind, package.parents[1] / "assets" / kind):
        if place.is_dir():
            return place
    raise PromptError(f"this installation has no assets/{kind}; install the wheel or run in a checkout")


def template_names() -> tuple[str, ...]:
    """The names of all templates."""
    return tuple(sorted(path.stem for path in folder().glob("*.xml")))


def template(name: str) -> Template:
    """A template by name.

    Raises:
        PromptError: there is none of that name.
    """
    names = template_names()
    if name not in names:
        import difflib

        near = difflib.get_close_matches(name[:60], names, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
        raise PromptError(f"no template {name[:60]!r}; {hint}")
    return read_template(name, (folder() / f"{name}.xml").read_text(encoding="utf-8"))


def skeleton(characters: int = 1) -> str:
    """An empty prompt for that many people, with a note in each field.

    Raises:
        PromptError: fewer than 1 or more than 16 people.
    """
    if not 1 <= characters <= 16:
        raise PromptError(f"{characters} characters are not possible; choose 1 to 16")
    places = (
        ("center",),
        ("left", "right"),
        ("left", "center", "right"),
        ("left", "center_left", "center_right", "right"),
    )
    lines: list[str] = []
    for number in range(1, characters + 1):
        place = places[characters - 1][number - 1] if characters <= 4 else "center"
        lines += [
            f"<character_{number}>",
            "  <gender>1girl</gender>",
            "  <appearance>long_hair <!-- hair and eyes, apart by commas --></appearance>",
            "  <clothing>dress <!-- what the person wears --></clothing>",
            "  <expression>smile</expression>",
            "  <pose>standing</pose>",
            *([f"  <position>{place}</position>"] if characters <= 4 else []),
            f"</character_{number}>",
        ]
    count = "1girl, solo" if characters == 1 else f"{characters}girls"
    lines += [
        "<general_tags>",
        f"  <count>{count}</count>",
        "  <style>anime_style</style>",
        "  <background>simple_background</background>",
        "  <quality>masterpiece, best_quality</quality>",
        "</general_tags>",
    ]
    return "\n".join(lines) + "\n"
