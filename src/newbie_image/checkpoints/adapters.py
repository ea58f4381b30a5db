"""Adapters on a transformer: load, stack, scale, fuse, unload, merge.

A loaded adapter runs beside the layers that it changes, from its small factors, so that its strength can
change between two pictures at no cost. Fusing adds it to the weights instead: no cost a step, and a copy of
the changed weights in CPU memory, from which unfusing restores them to the bit. Norm weights and biases are
vectors that blocks read directly, so these are always added, with the originals kept.

Neither peft nor lycoris-lora is needed to run an adapter: both wrap or replace layers, which would rename
the published keys, each reads its own files only, and norms and fused projections fall between them. They are
what the tests compare with.

After any change, captions have to be prepared again (`NextDiT.prepare_text`): their layers may have changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from torch.utils.hooks import RemovableHandle

from newbie_image.checkpoints.adapter_files import AdapterFile, read_adapter
from newbie_image.checkpoints.adapter_keys import target_table
from newbie_image.checkpoints.adapter_paths import adapter_name
from newbie_image.checkpoints.adapter_updates import AdapterReport, AdapterUpdates, Update, build_updates
from newbie_image.errors import CheckpointError, RequestError
from newbie_image.models.next_dit import NextDiT


@dataclass
class _Loaded:
    updates: AdapterUpdates
    strength: float


class AdapterStack:
    """The adapters of one transformer, in the order in which they were loaded. Their changes add up.

    Args:
        transformer: the model; its own state dict keeps its keys throughout.
    """

    def __init__(self, transformer: NextDiT) -> None:
        self._transformer = transformer
        self._adapters: dict[str, _Loaded] = {}
        self._hooks: list[RemovableHandle] = []
        self._beside: dict[str, list[Update]] = {}
        self._originals: dict[str, Tensor] = {}
        self._fused = False

    @property
    def scales(self) -> dict[str, float]:
        """Name → strength of every loaded adapter."""
        return {name: loaded.strength for name, loaded in self._adapters.items()}

    @property
    def weights(self) -> int:
        """Numbers that run beside the layers at present."""
        beside = (update for updates in self._beside.values() for update in updates)
        return sum(factor.numel() for update in beside for factor in update.buffers())

    @property
    def fused(self) -> bool:
        """Whether the adapters are in the weights at present."""
        return self._fused

    def load(
        self, source: str | Path | AdapterFile, *, scale: float = 1.0, name: str | None = None
    ) -> AdapterReport:
        """Put an adapter on the model.

        Args:
            source: a folder, a file, or what `read_adapter` gave.
            scale: strength; 0 is off, negative goes the other way.
            name: by which it is scaled and unloaded; the file's or folder's name if None.

        Returns:
            Which layers it changes and which keys were left out.

        Raises:
            CheckpointError: it cannot be read, fits no layer, or is of an unsupported kind.
            RequestError: the name is in use.
        """
        file = source if isinstance(source, AdapterFile) else read_adapter(source)
        name = name or self._free_name(file.path)
        if name in self._adapters:
            raise RequestError(f"adapter {name!r} is loaded already; unload it first or give another name")
        updates = updates_for(self._transformer, file, name)
        self._adapters[name] = _Loaded(updates, float(scale))
        self.refresh()
        return updates.report

    def set_scales(self, scales: Mapping[str, float]) -> None:
        """Change the strength of loaded adapters; those not named keep theirs.

        Args:
            scales: name → strength.

        Raises:
            RequestError: a name is not loaded.
        """
        for name in scales:
            self._check(name)
        for name, scale in scales.items():
            self._adapters[name].strength = float(scale)
            for update in self._beside.get(name, ()):
                update.strength = float(scale)
        self._write(self._changes(linear=self._fused), keep=True)

    def fuse(self) -> None:
        """Add the adapters to the weights, each weight rounded once; a CPU copy of the changed ones is kept.

        Raises:
            CheckpointError: a changed weight is quantised.
        """
        self._check_plain_weights()
        self._fused = True
        self.refresh()

    def unfuse(self) -> None:
        """Restore the weights to the bit and let the adapters run beside them again."""
        self._fused = False
        self.refresh()

    def unload(self, *names: str) -> None:
        """Take adapters off; without names, all of them. The weights are then what they were, to the bit.

        Raises:
            RequestError: a name is not loaded.
        """
        for name in names:
            self._check(name)
        for name in names or tuple(self._adapters):
            del self._adapters[name]
        self._fused = self._fused and bool(self._adapters)
        self.refresh()

    def merge(self) -> None:
        """Make the adapters part of the weights for good and forget them."""
        self._check_plain_weights()
        self._detach()
        self._write(self._changes(linear=True), keep=False)
        self._originals.clear()
        self._adapters.clear()
        self._fused = False

    def _check(self, name: str) -> None:
        if name not in self._adapters:
            loaded = ", ".join(self._adapters) or "none"
            raise RequestError(f"no adapter {name!r} is loaded; loaded are: {loaded}")

    def _check_plain_weights(self) -> None:
        for loaded in self._adapters.values():
            for update in loaded.updates.linear:
                weight = cast(Tensor, self._transformer.get_submodule(update.target.module).weight)
                # A quantised weight wraps the tensors that hold it, and says the dtype that it stands for.
                plain = weight.is_floating_point() and weight.element_size() > 1
                if plain and not is_traceable_wrapper_subclass(weight):
                    continue
                raise CheckpointError(
                    f"the weight of {update.target.module} is quantised and nothing can be fused into it; "
                    "leave the adapter beside it, or write it into the model (`newbie weights merge`)"
                )

    def _free_name(self, path: Path) -> str:
        stem = adapter_name(path)
        name, number = stem, 2
        while name in self._adapters:
            name, number = f"{stem}-{number}", number + 1
        return name

    def refresh(self) -> None:
        """Bring hooks and weights into the state that adapters, strengths and `fused` ask for.

        To be called after the transformer was cast or moved by others: factors are read from the files again.
        """
        self._detach()
        if not self._fused:
            self._attach()
        self._write(self._changes(linear=self._fused), keep=True)

    def _attach(self) -> None:
        dtype = self._transformer.norm_final.weight.dtype  # a norm's, because linear weights may be quantised
        layers: dict[str, list[Update]] = {}
        for name, loaded in self._adapters.items():
            self._beside[name] = []
            for update in loaded.updates.linear:
                weight = cast(Tensor, self._transformer.get_submodule(update.target.module).weight)
                device = torch.device("cpu") if weight.is_meta else weight.device
                copy = update.copy_to(device, dtype)
                copy.strength = loaded.strength
                self._beside[name].append(copy)
                layers.setdefault(update.target.module, []).append(copy)
        for module, updates in layers.items():
            layer = self._transformer.get_submodule(module)
            layer.add_module(_BESIDE, nn.ModuleList(updates))
            self._hooks.append(layer.register_forward_hook(_add_updates))

    def _detach(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        self._beside.clear()
        for module in self._transformer.modules():
            if _BESIDE in module._modules:
                del module._modules[_BESIDE]

    def _changes(self, *, linear: bool) -> dict[str, list[tuple[Update, float]]]:
        """Parameter name → the updates that are to be in it."""
        changes: dict[str, list[tuple[Update, float]]] = {}
        for loaded in self._adapters.values():
            for parameter, update in loaded.updates.direct.items():
                changes.setdefault(parameter, []).append((update, loaded.strength))
            for update in loaded.updates.linear if linear else ():
                changes.setdefault(f"{update.target.module}.weight", []).append((update, loaded.strength))
        return changes

    @torch.no_grad()
    def _write(self, changes: Mapping[str, list[tuple[Update, float]]], *, keep: bool) -> None:
        for name in [name for name in self._originals if name not in changes]:
            parameter = self._transformer.get_parameter(name)
            parameter.copy_(self._originals.pop(name))
        for name, updates in changes.items():
            parameter = self._transformer.get_parameter(name)
            original = self._originals.get(name)
            if original is None:
                original = parameter.detach().to("cpu", copy=True) if keep else parameter.detach()
                self._originals[name] = original
            total = original.to(parameter.device, torch.float32, copy=True)
            for update, strength in updates:
                rows = slice(update.target.start, update.target.stop)
                total[rows] += update.copy_to(parameter.device, None).matrix() * strength
            parameter.copy_(total)


def merge_adapters(
    transformer: NextDiT, adapters: Iterable[tuple[str | Path | AdapterFile, float]]
) -> list[AdapterReport]:
    """Add adapters to a transformer's weights for good, each weight rounded once.

    Args:
        transformer: changed in place.
        adapters: (folder, file or what `read_adapter` gave; strength), in order.

    Returns:
        A report for each.

    Raises:
        CheckpointError: one of them cannot be read or fits no layer; the weights are then as before.
    """
    stack = AdapterStack(transformer)
    try:
        reports = [stack.load(source, scale=scale) for source, scale in adapters]
    except CheckpointError:
        stack.unload()
        raise
    stack.merge()
    return reports


_BESIDE = "adapter_updates"


def _add_updates(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    for update in cast("Iterable[Update]", layer.get_submodule(_BESIDE).children()):
        factor = update.scale * update.strength
        if factor == 0.0:
            continue
        part = (update(inputs[0]) * factor).to(output)
        start, stop = update.target.start, update.target.stop
        if start or stop is not None:
            part = F.pad(part, (start, 0 if stop is None else output.shape[-1] - stop))
        output = output + part
    return output


def updates_for(transformer: NextDiT, file: AdapterFile, name: str) -> AdapterUpdates:
    """An adapter made ready for a transformer, of which only names, shapes and config are read.

    Raises:
        CheckpointError: it fits no layer, is damaged, or of an unsupported kind.
    """
    config = cast(Any, transformer.config)
    head = config.dim // config.n_heads
    kv_heads = config.n_heads if config.n_kv_heads is None else config.n_kv_heads
    parameters = {name: parameter.shape for name, parameter in transformer.named_parameters()}
    layers = [name.removesuffix(".weight") for name in parameters if name.endswith(".weight")]
    table = target_table(layers, config.n_heads * head, kv_heads * head)
    return build_updates(file, table, parameters, name)
