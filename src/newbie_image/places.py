"""Where a user's own files lie: settings, and models that were downloaded. Nothing is made by asking."""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = "newbie-image"


def settings_folder() -> Path:
    """``$XDG_CONFIG_HOME/newbie-image``, else ``~/.config/newbie-image``."""
    return _base("XDG_CONFIG_HOME", ".config") / FOLDER


def models_folder() -> Path:
    """``$NEWBIE_MODELS``, else ``newbie-image/models`` in ``$XDG_DATA_HOME`` or ``~/.local/share``."""
    given = os.environ.get("NEWBIE_MODELS")
    return Path(given).expanduser() if given else _base("XDG_DATA_HOME", ".local/share") / FOLDER / "models"


def _base(variable: str, fallback: str) -> Path:
    given = os.environ.get(variable)
    return Path(given).expanduser() if given else Path.home() / fallback
