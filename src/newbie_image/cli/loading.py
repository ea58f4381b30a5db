"""From the options to a model that is ready to draw."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from newbie_image.cli.lora import LoraChoice, put_on
from newbie_image.cli.options import ModelChoice

if TYPE_CHECKING:
    from newbie_image.pipeline import NewbiePipeline


@dataclass(frozen=True)
class LoadedModel:
    """A model on its device.

    Args:
        pipeline: ready to draw.
        reason: one line: why this device and dtype.
        seconds: what loading took, importing torch included.
        loras: the adapters on it, with their names there.
        warnings: a line for each thing worth saying of the adapters (keys left out, …).
    """

    pipeline: NewbiePipeline
    reason: str
    seconds: float
    loras: tuple[LoraChoice, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The model's name in its bundle."""
        return self.pipeline.settings.name


def load_model(choice: ModelChoice, loras: Sequence[LoraChoice] = ()) -> LoadedModel:
    """Load what was chosen, and put the adapters on it.

    Raises:
        CheckpointError, ConfigError: the bundle or an adapter is missing, damaged or of another model.
        RequestError: a memory size that is not understood.
        DeviceError: this machine does not have the device, dtype or attention backend, or a quantisation does
            not work with them.
        MissingDependencyError: quantised weights without torchao.
    """
    from newbie_image.bundle import find_bundle

    start = time.perf_counter()
    folder = find_bundle(choice.model)  # a wrong name is said before torch is imported
    if choice.vae is not None:
        from newbie_image.checkpoints.vae_registry import find_vae

        find_vae(choice.vae)

    from newbie_image.memory.plan import read_memory

    memory = None if choice.vram is None else read_memory(choice.vram)

    from newbie_image.devices import choose_device
    from newbie_image.memory.quantisation import check_quantisation
    from newbie_image.memory.trims import read_trims
    from newbie_image.models.attention import check_backend
    from newbie_image.pipeline import NewbiePipeline

    chosen = choose_device(choice.device, choice.dtype)
    check_backend(choice.attention, chosen.device)
    for kind in (choice.quantise, choice.quantise_encoders):
        check_quantisation(kind, chosen.dtype, chosen.device)
    pipeline = NewbiePipeline.from_pretrained(
        folder,
        torch_dtype=chosen.dtype,
        vae=choice.vae,
        parts=choice.parts,
        attention=choice.attention,
        quantisation=choice.quantise,
        encoder_quantisation=choice.quantise_encoders,
    )
    pipeline.trims = read_trims(choice.trims)
    pipeline.offload(choice.offload, chosen.device, memory=memory)
    named, warnings = put_on(pipeline, loras)
    return LoadedModel(pipeline, chosen.reason, time.perf_counter() - start, named, warnings)
