"""An adapter's alpha: where it may be said, and the factor that follows from it.

Trainers put it beside the tensors (LyCORIS, kohya), in `adapter_config.json` (PEFT) or in the safetensors
header (diffusers, some kohya files). That is also the order of precedence; said nowhere, it is the rank.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from newbie_image.checkpoints.adapter_files import AdapterFile
from newbie_image.checkpoints.adapter_paths import CONFIG_NAME
from newbie_image.errors import CheckpointError


class Alphas:
    """Where an adapter's alpha is said, and the factor that follows from it.

    Args:
        file: the adapter, with config and metadata.
    """

    def __init__(self, file: AdapterFile) -> None:
        self._settings = {**_metadata_settings(file.metadata), **file.config}
        # PEFT divides by its configured rank also where LyCORIS, with whole matrices, does not scale at all.
        self._always_scaled = self._settings.get("peft_type") in ("LOKR", "LOHA")
        self._assumed = 0

    @property
    def default(self) -> float | None:
        """What config or metadata say for every layer; None where they say nothing."""
        return self._configured(())

    def scale(self, paths: tuple[str, ...], alpha: Tensor | None, rank: int | None) -> float:
        """Factor of one layer's update.

        Args:
            paths: names of the layer, to be looked up among the config's patterns.
            alpha: the layer's own, one number; None where the file has none.
            rank: inner size of the factors; None where both are whole matrices.
        """
        if rank is None and self._always_scaled:
            rank = int(self._pattern("rank_pattern", paths, self._settings.get("r") or 1))
        if rank is None:
            return 1.0
        value = float(alpha) if alpha is not None else self._configured(paths)
        if value is None:
            self._assumed += 1
        divisor = math.sqrt(rank) if alpha is None and self._settings.get("use_rslora") else float(rank)
        return 1.0 if value is None else value / divisor

    def notices(self) -> list[str]:
        """What had to be assumed."""
        if not self._assumed:
            return []
        return [f"alpha is given nowhere for {self._assumed} layers and taken as the rank (scale 1)"]

    def _configured(self, paths: tuple[str, ...]) -> float | None:
        names = ("lora_alpha", "alpha", "network_alpha", "ss_network_alpha")
        default = next((self._settings[name] for name in names if self._settings.get(name) is not None), None)
        value = self._pattern("alpha_pattern", paths, default)
        try:
            return None if value is None else float(value)
        except (TypeError, ValueError) as error:
            raise CheckpointError(
                f"adapter config has lora_alpha {value!r}, which is no number; mend {CONFIG_NAME}"
            ) from error

    def _pattern(self, setting: str, paths: tuple[str, ...], default: Any) -> Any:
        """PEFT's exceptions by layer: a regular expression that ends the layer's path, or a path."""
        for pattern, value in dict(self._settings.get(setting) or {}).items():
            try:
                if any(re.match(rf"(?:.*\.)?(?:{pattern})$", path) for path in paths):
                    return value
            except re.error:
                if pattern in paths:
                    return value
        return default


def _metadata_settings(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Settings in a safetensors header: one by one, or in diffusers' JSON with the component's name first."""
    settings: dict[str, Any] = dict(metadata)
    try:
        packed = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    except ValueError:
        packed = {}
    for name, value in packed.items() if isinstance(packed, dict) else ():
        settings[name.removeprefix("transformer.")] = value
    return settings
