"""Which adapters made a picture, as its record says it. Nothing here imports torch."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass

_HASH = re.compile(r"[0-9a-f]{64}")
_NOT_IN_A_NOTE = re.compile(r"[<>:,\r\n]")


@dataclass(frozen=True)
class AdapterUse:
    """An adapter that was at work when a picture was made.

    Args:
        name: by which it is scaled and taken off.
        file: the weight file's name; with its folder's name where all trainers call the file the same.
        sha256: of the weight file, 64 hexadecimal digits.
        scale: strength.
        config_sha256: of the `adapter_config.json` beside it, which can hold its alpha; None without one.
        fused: it was in the weights, and rounded with them; otherwise it ran beside them.
    """

    name: str
    file: str
    sha256: str
    scale: float = 1.0
    config_sha256: str | None = None
    fused: bool = False

    @property
    def note(self) -> str:
        """As `<lora:name:scale>`, the form that A1111's web UI introduced."""
        return f"<lora:{self._plain_name}:{self.scale:g}>"

    @property
    def short_hash(self) -> str:
        """As `name: 0123456789`, for A1111's entry `Lora hashes`."""
        return f"{self._plain_name}: {self.sha256[:10]}"

    @property
    def _plain_name(self) -> str:
        return _NOT_IN_A_NOTE.sub("_", self.name)


def adapter_entries(adapters: Iterable[AdapterUse]) -> list[dict[str, object]]:
    """The adapters as JSON holds them."""
    return [{key: value for key, value in asdict(use).items() if value is not None} for use in adapters]


def read_adapter_entries(entries: object) -> tuple[AdapterUse, ...]:
    """The adapters in a picture's JSON.

    Raises:
        TypeError: an entry is missing or misshapen.
    """
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise TypeError("adapters is no list of objects")
    return tuple(_checked(AdapterUse(**entry)) for entry in entries)


def _checked(use: AdapterUse) -> AdapterUse:
    hashes = [use.sha256] if use.config_sha256 is None else [use.sha256, use.config_sha256]
    if not all(isinstance(text, str) and _HASH.fullmatch(text) for text in hashes):
        raise TypeError("an adapter's sha256 is no 64 hexadecimal digits")
    if not isinstance(use.name, str) or not isinstance(use.file, str) or not isinstance(use.fused, bool):
        raise TypeError("an adapter's name, file or fused has another kind")
    if isinstance(use.scale, bool) or not isinstance(use.scale, (int, float)) or not math.isfinite(use.scale):
        raise TypeError(f"an adapter's scale is {use.scale!r}")
    return use
