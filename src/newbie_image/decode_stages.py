"""The last stage, latents to pictures, as a part that can be replaced.

A stage is a function with the arguments of :func:`newbie_image.decoding.decode_latents`. One's own goes to
``pipeline.decode_stage``, or is registered by an installed package under the entry point group
``newbie_image.decode_stages`` and then has a name that ``--decode`` takes. Names lead to installed packages
and nowhere else, because a name can also come out of a picture's metadata.
"""

from __future__ import annotations

import difflib
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, Protocol, cast

import torch
from torch import Tensor

from newbie_image.bundle import VaeSettings
from newbie_image.decoding import decode_latents
from newbie_image.devices import bring_to_device, compute_device
from newbie_image.errors import NumericsError, RequestError
from newbie_image.latents import latent_scale, normalise

GROUP: Final = "newbie_image.decode_stages"


class DecodeStage(Protocol):
    """What makes pictures of latents."""

    def __call__(self, latents: Tensor, vae: Any, settings: VaeSettings, *, tiled: bool = False) -> Tensor:
        """Decode.

        Args:
            latents: (batch, channels, height/8, width/8) as the transformer gives them, on its device.
            vae: a diffusers autoencoder, perhaps on another device (:func:`bring_to_device`).
            settings: how latents are normalised (:func:`newbie_image.latents.denormalise`).
            tiled: decode in tiles, to need less memory.

        Returns:
            (batch, 3, height, width) float32 in [0, 1], on the CPU.
        """
        ...


def decode_edges(
    latents: Tensor,
    vae: Any,
    settings: VaeSettings,
    *,
    tiled: bool = False,
    rounds: int = 3,
    step: float = 0.7,
) -> Tensor:
    """Decode so that the picture, encoded again, gives the latents that were asked for.

    A decoder that learnt on noisy latents blurs what it is unsure of, edges first; encoded again, its picture
    gives latents a little nearer to the middle than those it was made of. Here that shortfall is added back,
    z ← z + step · (asked − encode(decode(z))), the fixed-point iteration that makes the round trip exact.
    A round that does not bring a picture's round trip nearer ends it, so that latents which no picture has
    are left as they were. Costs `rounds` more decodings and `rounds` + 1 encodings.

    Args:
        latents, vae, settings, tiled: as in :class:`DecodeStage`; the autoencoder needs its encoder.
        rounds: at most this many corrections, at least 0.
        step: share of the shortfall that is added back, in (0, 1].

    Returns:
        (batch, 3, height, width) float32 in [0, 1], on the CPU.
    """
    pictures: list[Tensor] = []
    for index in range(latents.shape[0]):
        asked = latents[index : index + 1].float()
        tried = asked
        best = decode_latents(tried, vae, settings, tiled=tiled)
        shortfall = asked - encode_pictures(best, vae, settings).to(asked.device)
        for _ in range(rounds):
            tried = tried + step * shortfall
            pixels = decode_latents(tried, vae, settings, tiled=tiled)
            left = asked - encode_pictures(pixels, vae, settings).to(asked.device)
            if not left.norm() < shortfall.norm():
                break
            best, shortfall = pixels, left
        pictures.append(best)
    return torch.cat(pictures)


def encode_pictures(pixels: Tensor, vae: Any, settings: VaeSettings) -> Tensor:
    """Pictures as the latents that the transformer would give for them.

    Args:
        pixels: (batch, 3, height, width) in [0, 1]; sides are multiples of the autoencoder's scale.
        vae: a diffusers autoencoder; of a distribution its mode is taken.
        settings: how latents are normalised.

    Returns:
        (batch, channels, height/8, width/8) float32, on the autoencoder's device.
    """
    bring_to_device(vae)
    weight = next(vae.parameters())
    device = compute_device(vae) or weight.device
    encoded = vae.encode((pixels * 2 - 1).to(device=device, dtype=weight.dtype), return_dict=False)[0]
    latents = encoded.mode() if hasattr(encoded, "mode") and not isinstance(encoded, Tensor) else encoded
    return normalise(latents, vae, settings)


STAGES: Final[dict[str, DecodeStage]] = {"plain": decode_latents, "edges": decode_edges}


def stage_names() -> list[str]:
    """The names that ``--decode`` takes: ours, then those of installed packages."""
    return [*STAGES, *(name for name in _registered() if name not in STAGES)]


def find_stage(name: str) -> DecodeStage:
    """A stage by its name.

    Raises:
        RequestError: no such stage, or one whose package cannot be imported.
    """
    if name in STAGES:
        return STAGES[name]
    registered = _registered()
    if name not in registered:
        near = difflib.get_close_matches(name, stage_names(), n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise RequestError(
            f"unknown decode stage {name!r}; {hint}there are: {', '.join(stage_names())} "
            f"(packages add some by the entry point group {GROUP})"
        )
    entry = registered[name]
    try:
        stage = entry.load()
    except Exception as error:  # whatever a foreign package raises at import means the same here
        raise RequestError(
            f"the decode stage {name!r} ({entry.value}) cannot be imported: {type(error).__name__}: {error}; "
            "mend or remove its package"
        ) from None
    if not callable(stage):
        raise RequestError(f"the decode stage {name!r} ({entry.value}) is no function; mend its package")
    return cast("DecodeStage", stage)


def stage_name(stage: DecodeStage) -> str | None:
    """What is recorded of a stage: None for the plain one, its name, or where it is defined."""
    if stage is decode_latents:
        return None
    for name in STAGES:
        if STAGES[name] is stage:
            return name
    for name, entry in _registered().items():
        if entry.value == f"{getattr(stage, '__module__', '')}:{getattr(stage, '__qualname__', '')}":
            return name
    named: Any = stage if hasattr(stage, "__qualname__") else type(stage)
    return f"{named.__module__}:{named.__qualname__}"


def run_stage(
    stage: DecodeStage, latents: Tensor, vae: Any, settings: VaeSettings, *, tiled: bool = False
) -> Tensor:
    """Decode with a stage, and hold it to what it promises.

    Returns:
        (batch, 3, height, width) float32 in [0, 1], on the CPU.

    Raises:
        RequestError: what it gave has another form.
        NumericsError: it gave NaN or infinity.
    """
    pixels = stage(latents, vae, settings, tiled=tiled)
    if stage is decode_latents:
        return pixels
    name, scale = stage_name(stage), latent_scale(vae)
    wanted = (latents.shape[0], 3, latents.shape[2] * scale, latents.shape[3] * scale)
    if not isinstance(pixels, Tensor) or tuple(pixels.shape) != wanted:
        gave = tuple(pixels.shape) if isinstance(pixels, Tensor) else type(pixels).__name__
        raise RequestError(f"the decode stage {name} gave {gave}; {wanted} in [0, 1] is needed")
    pixels = pixels.detach().float().cpu()
    if not bool(torch.isfinite(pixels).all()):
        raise NumericsError(f"the decode stage {name} gave NaN or infinity; use fp32 (--dtype) or another")
    return pixels.clamp(0.0, 1.0)


def _registered() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}
