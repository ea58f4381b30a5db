"""Latents: their shape, their scale, and the noise that they begin as."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from newbie_image.bundle import VaeSettings
from newbie_image.errors import CheckpointError, RequestError


def latent_channels(vae: Any) -> int:
    """Channels of the autoencoder's latents."""
    return int(vae.config.latent_channels)


def latent_scale(vae: Any) -> int:
    """How many pixels of a picture's side one latent covers."""
    ratio = getattr(vae, "spatial_compression_ratio", None)
    if ratio is None:
        widths = getattr(vae.config, "block_out_channels", None) or vae.config.encoder_block_out_channels
        ratio = 2 ** (len(widths) - 1)
    return int(ratio)


def normalise(latents: Tensor, vae: Any, settings: VaeSettings) -> Tensor:
    """The autoencoder's latents as the transformer sees them: ``((z − mean) / std − shift) · scale``.

    Args:
        latents: (batch, channels, height/8, width/8), as the encoder gives them.
        vae: its config says what the settings leave open.
        settings: the bundle's.

    Returns:
        The same shape, float32.
    """
    mean, std = _statistics(vae, settings, latents)
    scale, shift = _scale_and_shift(vae, settings)
    return ((latents.float() - mean) / std - shift) * scale


def denormalise(latents: Tensor, vae: Any, settings: VaeSettings) -> Tensor:
    """The inverse of :func:`normalise`, float32."""
    mean, std = _statistics(vae, settings, latents)
    scale, shift = _scale_and_shift(vae, settings)
    return (latents.float() / scale + shift) * std + mean


def latent_shape(vae: Any, width: int, height: int) -> tuple[int, int, int]:
    """(channels, height/8, width/8) of one picture's latents; width and height in pixels."""
    scale = latent_scale(vae)
    return latent_channels(vae), height // scale, width // scale


def seeded_noise(seed: int, count: int, shape: tuple[int, int, int]) -> Tensor:
    """Noise of ``count`` pictures; picture i is drawn from seed + i alone.

    It is drawn on the CPU in float32, so that it is the same for every device, dtype and batch.

    Args:
        seed: 0 … 2^63 − count.
        count: pictures.
        shape: of one, (channels, height/8, width/8).

    Returns:
        (count, channels, height/8, width/8) float32 on the CPU.
    """
    seeds = range(seed, seed + count)
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(each)) for each in seeds])


def drawn_noise(
    generator: torch.Generator | Sequence[torch.Generator],
    first: int,
    count: int,
    shape: tuple[int, int, int],
) -> Tensor:
    """Noise of pictures first … first + count − 1 by the caller's generators, each on its own device.

    Raises:
        RequestError: a list that is too short.
    """
    if isinstance(generator, torch.Generator):
        chosen = [generator] * count
    else:
        chosen = list(generator)[first : first + count]
        if len(chosen) < count:
            raise RequestError(
                f"{len(generator)} generators do not suffice for picture {first + count}; "
                "give one for all, or one a picture"
            )
    return torch.stack([torch.randn(shape, generator=each, device=each.device).cpu() for each in chosen])


def check_noise(noise: Tensor, wanted: tuple[int, ...]) -> None:
    """Refuse latents of another shape than the request's (RequestError)."""
    if tuple(noise.shape) != wanted:
        raise RequestError(
            f"latents of shape {tuple(noise.shape)} do not fit the request; {wanted} is needed "
            "(count, channels, height/8, width/8)"
        )


def check_noise_count(noise: Tensor, pictures: int) -> None:
    """Refuse latents for another number of pictures than all prompts together have (RequestError)."""
    if len(noise) != pictures:
        raise RequestError(
            f"latents for {len(noise)} pictures were given, but {pictures} are asked for; "
            "give (prompts · num_images_per_prompt, channels, height/8, width/8)"
        )


def _statistics(vae: Any, settings: VaeSettings, like: Tensor) -> tuple[Tensor | float, Tensor | float]:
    mean = settings.latents_mean or getattr(vae.config, "latents_mean", None)
    std = settings.latents_std or getattr(vae.config, "latents_std", None)
    if mean is None or std is None:
        return 0.0, 1.0
    if len(mean) != like.shape[1] or len(std) != like.shape[1]:
        raise CheckpointError(
            f"latents_mean and latents_std have {len(mean)} and {len(std)} values for latents of "
            f"{like.shape[1]} channels; correct newbie.json"
        )
    shape = (1, -1, 1, 1)
    return (
        torch.tensor(mean, device=like.device, dtype=torch.float32).view(shape),
        torch.tensor(std, device=like.device, dtype=torch.float32).view(shape),
    )


def _scale_and_shift(vae: Any, settings: VaeSettings) -> tuple[float, float]:
    scale, shift = settings.scaling_factor, settings.shift_factor
    scale = getattr(vae.config, "scaling_factor", None) if scale is None else scale
    shift = getattr(vae.config, "shift_factor", None) if shift is None else shift
    return (1.0 if scale is None else float(scale)), (0.0 if shift is None else float(shift))
