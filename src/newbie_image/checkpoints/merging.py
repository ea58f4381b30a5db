"""A model's files with adapters in their weights for good, in any layout that is written.

Tensors are changed one by one on their way from the old files to the new ones, so that the model is never
built: memory holds the changed tensors and, mapped, the others. Each changed weight is computed in float32
and rounded once.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from newbie_image.bundle import BundleSettings
from newbie_image.checkpoints.adapter_files import read_adapter
from newbie_image.checkpoints.adapter_paths import adapter_file, adapter_name, fingerprint, shown_file
from newbie_image.checkpoints.adapter_updates import AdapterReport, AdapterUpdates, Update
from newbie_image.checkpoints.adapters import updates_for
from newbie_image.checkpoints.convert import WRITTEN, convert
from newbie_image.checkpoints.files import open_source
from newbie_image.checkpoints.foreign import MERGED_KEY, builder
from newbie_image.checkpoints.load import build_empty
from newbie_image.checkpoints.recognise import READERS, Checkpoint
from newbie_image.devices import dtype_name
from newbie_image.errors import CheckpointError, RequestError
from newbie_image.models.next_dit import NextDiT


@dataclass(frozen=True)
class MergeReport:
    """What a merge did.

    Args:
        files: the weight files written.
        adapters: what became of each adapter's keys.
        weights: how many tensors were changed.
        dtypes: in which they were written.
        rounding: ‖what rounding added‖ / ‖the change‖ over all of them; 1 and more means that the change is
            lost in it.
    """

    files: tuple[Path, ...]
    adapters: tuple[AdapterReport, ...]
    weights: int
    dtypes: tuple[str, ...]
    rounding: float


def merge_into_files(
    checkpoint: Checkpoint,
    adapters: Sequence[tuple[str | Path, float]],
    target: Path,
    layout: str | None = None,
    dtype: torch.dtype | None = None,
) -> MergeReport:
    """Write a model anew with adapters in its transformer's weights.

    The transformer's file says in its metadata what was merged (name, sha256, strength), after what it said
    before; the model's name gets the adapters' names.

    Args:
        checkpoint: what to read; it stays as it is.
        adapters: (folder or file, strength), in order.
        target: the folder to make; it must not exist, or be empty. It appears when it is complete.
        layout: one of WRITTEN; None for the checkpoint's own, or ``newbie`` where that is not written.
        dtype: of floating point tensors; None keeps each tensor's.

    Raises:
        CheckpointError: the model or an adapter is damaged or of another model, the model has no transformer,
            its weights are quantised and no dtype was given, or a weight overflows in the dtype.
        RequestError: no adapters.
        OutputError: the target is taken or cannot be written.
    """
    if not adapters:
        raise RequestError("no adapter is named, so there is nothing to merge; give --lora FILE[:SCALE]")
    change = _Changes(checkpoint, adapters)
    to = layout or (checkpoint.layout if checkpoint.layout in WRITTEN else "newbie")
    files = convert(checkpoint, target, to, dtype, change)
    return MergeReport(files, change.reports, len(change.kinds), change.dtypes, change.rounding)


class _Changes:
    """What `convert` asks while it writes: the transformer's tensors, its metadata, the model's settings."""

    def __init__(self, checkpoint: Checkpoint, adapters: Sequence[tuple[str | Path, float]]) -> None:
        path = checkpoint.parts.get("transformer")
        if path is None:
            raise CheckpointError(
                f"{checkpoint.path} ({checkpoint.layout}) has no transformer to merge adapters into; "
                "say where it is: --transformer FILE"
            )
        source = open_source(path)
        plan = READERS["transformer"](source.shapes)
        model = cast(NextDiT, build_empty(builder("transformer", path, source, plan)))
        self._entries: list[dict[str, Any]] = []
        self._names: list[str] = []
        ready: list[tuple[AdapterUpdates, float]] = []
        for place, scale in adapters:
            file = adapter_file(place)
            name = adapter_name(file)
            ready.append((updates_for(model, read_adapter(file), name), scale))
            sha256, config = fingerprint(file)
            entry = {"name": name, "file": shown_file(file), "sha256": sha256, "scale": scale}
            self._entries.append(entry if config is None else {**entry, "config_sha256": config})
            self._names.append(name)
        self.reports = tuple(updates.report for updates, _ in ready)
        self._updates = _by_parameter(ready)
        self.kinds: dict[str, torch.dtype] = {}
        self._lost: dict[str, float] = {}
        self._changed: dict[str, float] = {}
        self._last: tuple[str, Tensor] | None = None

    @property
    def dtypes(self) -> tuple[str, ...]:
        return tuple(sorted({dtype_name(kind) for kind in self.kinds.values()}))

    @property
    def rounding(self) -> float:
        changed = math.sqrt(sum(self._changed.values()))
        return math.sqrt(sum(self._lost.values())) / changed if changed else 0.0

    def tensor(self, part: str, name: str, original: Tensor, dtype: torch.dtype | None) -> Tensor:
        """The tensor as it is to be written, in its new dtype; the original where nothing changes it."""
        updates = self._updates.get(name, ()) if part == "transformer" else ()
        if not updates:
            return original
        if self._last is not None and self._last[0] == name:  # a projection that a layout splits in three
            return self._last[1]
        kind = dtype or original.dtype
        if kind.itemsize < 2 or not kind.is_floating_point:
            raise CheckpointError(
                f"{name} is {dtype_name(kind)}, in which most of a change would be lost; give --dtype bf16"
            )
        whole = original.to(torch.float32, copy=True)
        before = whole.clone()
        for update, strength in updates:
            rows = slice(update.target.start, update.target.stop)
            whole[rows] += update.copy_to(whole.device, None).matrix() * strength
        rounded = whole.to(kind)
        if not bool(torch.isfinite(rounded).all()):
            raise CheckpointError(
                f"{name} holds infinity or NaN in {dtype_name(kind)} once the adapters are in it; "
                "give --dtype bf16 or a smaller scale"
            )
        self.kinds[name] = kind
        self._lost[name] = float((rounded.float() - whole).double().square().sum())
        self._changed[name] = float((whole - before).double().square().sum())
        self._last = (name, rounded)
        return rounded

    def metadata(self, part: str, before: Mapping[str, str]) -> dict[str, str]:
        """What the part's file says besides: every merge, the latest last."""
        if part != "transformer":
            return {}
        history = merged_entries(before)
        return {MERGED_KEY: json.dumps([*history, *self._entries], ensure_ascii=False)}

    def settings(self, before: BundleSettings) -> BundleSettings:
        """The model's settings under its new name."""
        return before.model_copy(update={"name": "+".join([before.name, *self._names])})


def merged_entries(metadata: Mapping[str, str]) -> list[dict[str, Any]]:
    """What a transformer's file says of merges: name, file, sha256 and scale of each adapter; [] for none."""
    try:
        entries = json.loads(metadata.get(MERGED_KEY, "[]"))
    except ValueError:
        return []
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def _by_parameter(
    adapters: Sequence[tuple[AdapterUpdates, float]],
) -> dict[str, list[tuple[Update, float]]]:
    found: dict[str, list[tuple[Update, float]]] = {}
    for updates, strength in adapters:
        for parameter, update in updates.direct.items():
            found.setdefault(parameter, []).append((update, strength))
        for update in updates.linear:
            found.setdefault(f"{update.target.module}.weight", []).append((update, strength))
    return found
