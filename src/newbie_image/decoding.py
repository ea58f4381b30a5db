"""Latents to pictures: normalisation undone, decoded one picture at a time, rounded to bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from newbie_image.bundle import VaeSettings
from newbie_image.devices import bring_to_device, compute_device, dtype_name
from newbie_image.errors import CheckpointError, NumericsError
from newbie_image.latents import denormalise


def decode_latents(
    latents: Tensor, vae: Any, settings: VaeSettings, *, tiled: bool = False, batch: int = 1
) -> Tensor:
    """Decode, one picture at a time unless more are asked for, so that a picture does not depend on its
    neighbours and memory stays small.

    Args:
        latents: (batch, channels, height/8, width/8) as the transformer gives them.
        vae: a diffusers autoencoder.
        settings: the bundle's normalisation.
        tiled: in overlapping tiles, where the autoencoder can.
        batch: pictures at a time.

    Returns:
        (batch, 3, height, width) float32 in [0, 1], on the CPU.

    Raises:
        NumericsError: the decoder gave NaN or infinity.
        CheckpointError: tiles were asked for, and the autoencoder cannot.
    """
    with _tiling(vae, tiled):
        bring_to_device(vae)
        device = compute_device(vae) or latents.device
        return torch.cat([_decoded(each.to(device), vae, settings) for each in latents.split(batch)])


def _decoded(latents: Tensor, vae: Any, settings: VaeSettings) -> Tensor:
    """(any, channels, height/8, width/8) on the autoencoder's device → (any, 3, height, width) on the CPU."""
    dtype = next(vae.parameters()).dtype
    pixels = vae.decode(denormalise(latents, vae, settings).to(dtype), return_dict=False)[0].float()
    if not bool(torch.isfinite(pixels).all()):
        raise NumericsError(
            f"the autoencoder gave NaN or infinity in {dtype_name(dtype)}; use bf16 or fp32 (--dtype)"
        )
    return (pixels * 0.5 + 0.5).clamp_(0.0, 1.0).cpu()


def to_images(pixels: Tensor) -> list[Image.Image]:
    """(batch, 3, height, width) in [0, 1] → RGB pictures, rounded to the nearest byte."""
    bytes_ = (pixels * 255.0).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    return [Image.fromarray(picture) for picture in bytes_]


def asks_for_tiles(vae: Any) -> bool:
    """Whether its owner said `enable_tiling()` to an autoencoder, which is diffusers' way of asking."""
    return bool(getattr(vae, "use_tiling", False))


@contextmanager
def _tiling(vae: Any, tiled: bool) -> Iterator[None]:
    """While it lasts, the autoencoder decodes in tiles or whole; afterwards as its owner had set it."""
    before = asks_for_tiles(vae)
    if tiled and not hasattr(vae, "use_tiling"):
        raise CheckpointError(f"{type(vae).__name__} cannot decode in tiles; leave tiled decoding out")
    if tiled != before:
        _set_tiling(vae, tiled)
    try:
        yield
    finally:
        if tiled != before:
            _set_tiling(vae, before)


def _set_tiling(vae: Any, tiled: bool) -> None:
    if tiled:
        vae.enable_tiling()
    else:
        vae.disable_tiling()
