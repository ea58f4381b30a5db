"""An XML prompt goes in, a picture goes out, and every step between can be read, changed and repeated."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from newbie_image.errors import NewbieError
    from newbie_image.pipeline import NewbiePipeline
    from newbie_image.request import GeneratedImage, GenerationRequest

__version__ = "0.1.0"

_LAZY = {
    "NewbiePipeline": "newbie_image.pipeline",
    "GenerationRequest": "newbie_image.request",
    "GeneratedImage": "newbie_image.request",
    "NewbieError": "newbie_image.errors",
    "NextDiT": "newbie_image.models.next_dit",
    "GemmaTextModel": "newbie_image.models.gemma_text",
    "JinaTextModel": "newbie_image.models.jina_text",
}

__all__ = ["GeneratedImage", "GenerationRequest", "NewbieError", "NewbiePipeline", "__version__"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
