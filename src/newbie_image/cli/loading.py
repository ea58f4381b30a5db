"""From the options to a model that is ready to draw, with what the record in a picture says of it."""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from newbie_image.bundle import BundleSettings, content_hash, find_bundle, read_settings
from newbie_image.cli.options import ModelChoice
from newbie_image.provenance import BundleIdentity

if TYPE_CHECKING:
    from newbie_image.pipeline import NewbiePipeline


@dataclass(frozen=True)
class LoadedModel:
    """A model on its device.

    Args:
        pipeline: ready to draw.
        settings: the bundle's own.
        bundle: name and content hash.
        environment: device, dtype, attention, as the record has them.
        reason: one line: why this device and dtype.
        seconds: what loading took, importing torch included.
    """

    pipeline: NewbiePipeline
    settings: BundleSettings
    bundle: BundleIdentity
    environment: dict[str, str]
    reason: str
    seconds: float


def load_model(choice: ModelChoice) -> LoadedModel:
    """Load what was chosen.

    Raises:
        CheckpointError, ConfigError: the bundle is missing or damaged.
        DeviceError: this machine does not have the device, dtype or attention backend.
    """
    start = time.perf_counter()
    folder = find_bundle(choice.model)
    settings = read_settings(folder)

    from newbie_image.devices import choose_device, dtype_name
    from newbie_image.pipeline import NewbiePipeline

    chosen = choose_device(choice.device, choice.dtype)
    pipeline = NewbiePipeline.from_pretrained(str(folder), torch_dtype=chosen.dtype)
    if choice.vae is not None:
        pipeline.use_vae(choice.vae)
    pipeline.set_attention_backend(choice.attention)
    pipeline.place(chosen.device, chosen.dtype, offload=choice.offload)
    environment = {
        "device": str(chosen.device),
        "device_name": device_name(chosen.device.type),
        "dtype": dtype_name(chosen.dtype),
        "attention": choice.attention,
        "offload": choice.offload,
    }
    if choice.vae is not None:
        environment["vae"] = Path(choice.vae).name
    return LoadedModel(
        pipeline=pipeline,
        settings=settings,
        bundle=BundleIdentity(settings.name, content_hash(folder)),
        environment=environment,
        reason=chosen.reason,
        seconds=time.perf_counter() - start,
    )


def device_name(kind: str) -> str:
    """What the processor that draws is called."""
    if kind == "cuda":
        import torch

        return torch.cuda.get_device_name(0)
    return processor_name()


def processor_name() -> str:
    """The CPU's name, as far as the system says it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
