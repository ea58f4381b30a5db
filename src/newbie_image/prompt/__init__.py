"""The prompt language: read, checked, weighed, converted, compared. Nothing here imports torch.

>>> from newbie_image.prompt import parse
>>> prompt = parse("<character_1><n>miku</n><appearance>blue_hair, long_twintails</appearance></character_1>")
>>> prompt.character(1).get("appearance")
('blue_hair', 'long_twintails')
"""

from __future__ import annotations

import importlib
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
    pass

_LAZY: dict[str, str] = {}

__all__ = [
    "Character",
    "Comment",
    "Diagnostic",
    "Edit",
    "Element",
    "Fix",
    "Group",
    "PlacedText",
    "Prompt",
    "PromptError",
    "Section",
    "Span",
    "Tag",
    "TagPlace",
    "TextForm",
    "apply_edits",
    "encoder_text",
    "excerpt",
    "flatten",
    "group_texts",
    "parse",
    "whole_text",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
