"""The part of the pipeline that puts adapters on its transformer, under the names that diffusers' users know.

Two things are other than there. All loaded adapters are at work until :meth:`AdaptedPipeline.set_adapters`
says otherwise, and taking one off always gives back the weights to the bit, also when it was fused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from newbie_image.adapter_use import AdapterUse
from newbie_image.checkpoints.adapter_files import read_adapter
from newbie_image.checkpoints.adapter_paths import adapter_file, fingerprint, shown_file
from newbie_image.checkpoints.adapter_updates import AdapterReport
from newbie_image.checkpoints.adapters import AdapterStack
from newbie_image.errors import DeviceError, RequestError
from newbie_image.memory.placement import PlacedPipeline
from newbie_image.memory.sizes import ModelSizes

MAX_SCALE = 100.0


class AdaptedPipeline(PlacedPipeline):
    """A pipeline whose transformer takes adapters, under every kind of offloading.

    Nothing of a picture is kept from one to the next (prepared captions and AdaLN factors belong to one run),
    so that a change counts from the next picture on; while one is being drawn, it is refused.
    """

    _adapters: AdapterStack | None = None
    _adapter_files: Mapping[str, AdapterUse] = {}

    @property
    def adapters(self) -> tuple[AdapterUse, ...]:
        """Every loaded adapter in the order of loading, with its file, hash and strength; 0 is off."""
        if self._adapters is None:
            return ()
        fused = self._adapters.fused
        files = self._adapter_files
        return tuple(replace(files[name], scale=s, fused=fused) for name, s in self._adapters.scales.items())

    @property
    def adapters_at_work(self) -> tuple[AdapterUse, ...]:
        """Those that change the picture: with a strength other than 0."""
        return tuple(use for use in self.adapters if use.scale != 0.0)

    def load_lora_weights(
        self,
        pretrained_model_name_or_path: str | Path,
        adapter_name: str | None = None,
        scale: float = 1.0,
        *,
        weight_name: str | None = None,
    ) -> AdapterReport:
        """Put an adapter of any known kind (LoRA, LoKr, LoHa, full differences) on the transformer.

        Args:
            pretrained_model_name_or_path: its folder or file. Nothing is downloaded.
            adapter_name: by which it is scaled and taken off; the file's or folder's name if None.
            scale: strength, −100 … 100; 0 is off, negative goes the other way.
            weight_name: the file inside the folder, where there are several.

        Returns:
            Which layers it changes and which keys were left out (`AdapterReport.lines`).

        Raises:
            CheckpointError: it cannot be read, fits no layer, or is of an unsupported kind; nothing changed.
            RequestError: the name is in use, a scale out of range, or a picture is being drawn.
        """
        scale = _checked_scale(adapter_name or "it", scale)
        place = Path(pretrained_model_name_or_path)
        file = adapter_file(place if weight_name is None else place / weight_name)
        sha256, config = fingerprint(file)
        with self._adapters_at_rest() as stack:
            report = stack.load(read_adapter(file), scale=scale, name=adapter_name)
        use = AdapterUse(report.name, shown_file(file), sha256, config_sha256=config)
        self._adapter_files = {**self._adapter_files, report.name: use}
        return report

    def set_adapters(
        self, adapter_names: str | Sequence[str], adapter_weights: float | Sequence[float] | None = None
    ) -> None:
        """Say which adapters are at work and how strongly; those not named are off until they are named.

        Args:
            adapter_names: one or several of the loaded.
            adapter_weights: one for all, or one each; None for 1.

        Raises:
            RequestError: a name is not loaded, or weights that do not belong to the names.
        """
        names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
        weights = [1.0 if adapter_weights is None else adapter_weights] * len(names)
        if isinstance(adapter_weights, Sequence) and not isinstance(adapter_weights, str):
            weights = list(adapter_weights)
        if len(weights) != len(names) or len(set(names)) != len(names):
            raise RequestError(
                f"{len(weights)} weights for {len(names)} adapters ({', '.join(names)}); give one each, once"
            )
        asked = {name: _checked_scale(name, s) for name, s in zip(names, weights, strict=True)}
        with self._adapters_at_rest() as stack:
            off = {name: 0.0 for name in stack.scales if name not in asked}
            stack.set_scales({**asked, **off})

    def get_active_adapters(self) -> list[str]:
        """Names of the adapters that are at work."""
        return [use.name for use in self.adapters_at_work]

    def get_list_adapters(self) -> dict[str, list[str]]:
        """Names of all loaded adapters by component; the transformer is the only one that takes any."""
        names = [use.name for use in self.adapters]
        return {"transformer": names} if names else {}

    def fuse_lora(self) -> None:
        """Add the adapters to the weights: no cost a step from now on, each weight rounded once.

        A copy of the changed weights stays in host memory. Adapters that are loaded or scaled later are fused
        too.

        Raises:
            CheckpointError: a changed weight is quantised.
            RequestError: no adapter is loaded, or a picture is being drawn.
        """
        with self._adapters_at_rest() as stack:
            if not stack.scales:
                raise RequestError(
                    "no adapter is loaded, so there is nothing to fuse; load_lora_weights first"
                )
            stack.fuse()

    def unfuse_lora(self) -> None:
        """Give the weights back to the bit and let the adapters run beside them again."""
        with self._adapters_at_rest() as stack:
            stack.unfuse()

    def unload_lora_weights(self, *names: str) -> None:
        """Take adapters off; without names, all. Weights, fused or not, are then what they were, to the bit.

        Raises:
            RequestError: a name is not loaded, or a picture is being drawn.
        """
        with self._adapters_at_rest() as stack:
            stack.unload(*names)
        self._adapter_files = {name: use for name, use in self._adapter_files.items() if name in stack.scales}

    def sizes(self) -> ModelSizes:
        """Numbers of weights of the components, those of adapters that run beside included."""
        sizes = super().sizes()
        if self._adapters is None or not self._adapters.weights:
            return sizes
        rest = sizes.transformer.rest + self._adapters.weights
        return replace(sizes, transformer=replace(sizes.transformer, rest=rest))

    def refresh_adapters(self) -> None:
        """Make the adapters again from their files, after the transformer was cast to another dtype."""
        if self._adapters is not None:
            self._adapters.refresh()

    def check_savable(self) -> None:
        """Refuse to write weights of which it could not be said what they are.

        Raises:
            RequestError: adapters run beside the weights, of which only norms and biases would be written.
        """
        if self.adapters_at_work and not self.adapters[0].fused:
            raise RequestError(
                f"adapters are on the transformer ({', '.join(self.get_active_adapters())}) and would be "
                "written in part; fuse_lora() first to write them in, or unload_lora_weights()"
            )

    @contextmanager
    def _adapters_at_rest(self) -> Iterator[AdapterStack]:
        """The stack, while nothing runs and all weights are in their place."""
        if self._drawing:
            raise RequestError(
                "adapters cannot change while a picture is being drawn, because its caption and AdaLN "
                "factors were made with the old ones; finish its stream or close() it first"
            )
        if any(parameter.is_meta for parameter in self.components["transformer"].parameters()):
            raise DeviceError(
                "the transformer's weights are away by sequential offloading, where adapters do not reach "
                "them; use offload('blocks') instead, which takes adapters"
            )
        if self._adapters is None:
            self._adapters = AdapterStack(self.components["transformer"])
        with self._unstaged():
            yield self._adapters


def _checked_scale(name: str, scale: object) -> float:
    number = isinstance(scale, (int, float)) and not isinstance(scale, bool)
    if not number or not math.isfinite(scale) or abs(scale) > MAX_SCALE:  # pyright: ignore[reportArgumentType]
        raise RequestError(
            f"scale {scale!r} of adapter {name} is not allowed; give a number from {-MAX_SCALE:g} to "
            f"{MAX_SCALE:g}"
        )
    return float(scale)  # pyright: ignore[reportArgumentType]
