"""The prompt language: read, checked, weighed, converted, compared. Nothing here imports torch.

>>> from newbie_image.prompt import parse
>>> prompt = parse("<character_1><n>miku</n><appearance>blue_hair, long_twintails</appearance></character_1>")
>>> prompt.character(1).get("appearance")
('blue_hair', 'long_twintails')
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from newbie_image.errors import PromptError
from newbie_image.prompt.diagnostics import Diagnostic, Edit, Fix, apply_edits, excerpt
from newbie_image.prompt.document import (
    Character,
    Comment,
    Element,
    Group,
    Prompt,
    Section,
    Span,
    Tag,
)
from newbie_image.prompt.flatten import (
    PlacedText,
    TagPlace,
    TextForm,
    encoder_text,
    flatten,
    group_texts,
    whole_text,
)
from newbie_image.prompt.parse import parse

if TYPE_CHECKING:
    from newbie_image.prompt.convert import convert
    from newbie_image.prompt.diff import Patch, apply, diff
    from newbie_image.prompt.lint import check, fix
    from newbie_image.prompt.schema import schema
    from newbie_image.prompt.write import format_prompt, write

_LAZY = {
    "Patch": "diff",
    "apply": "diff",
    "check": "lint",
    "convert": "convert",
    "diff": "diff",
    "fix": "lint",
    "format_prompt": "write",
    "schema": "schema",
    "write": "write",
}
"""Name → the module that has it, imported when the name is first asked for."""

__all__ = [
    "Character",
    "Comment",
    "Diagnostic",
    "Edit",
    "Element",
    "Fix",
    "Group",
    "Patch",
    "PlacedText",
    "Prompt",
    "PromptError",
    "Section",
    "Span",
    "Tag",
    "TagPlace",
    "TextForm",
    "apply",
    "apply_edits",
    "check",
    "convert",
    "diff",
    "encoder_text",
    "excerpt",
    "fix",
    "flatten",
    "format_prompt",
    "group_texts",
    "parse",
    "schema",
    "whole_text",
    "write",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        module = importlib.import_module(f"{__name__}.{_LAZY[name]}")
        value = globals()[name] = getattr(module, name)
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Language(ModuleType):
    """The package: `convert`, `diff`, `schema` and `write` are the functions, also after an import of the
    modules that have their names (from which other names are imported in full: `from
    newbie_image.prompt.diff import words`).
    """

    def __setattr__(self, name: str, value: object) -> None:
        if isinstance(value, ModuleType) and _LAZY.get(name) == name:
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Language
