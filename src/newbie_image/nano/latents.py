"""Latents of all renders, computed once by the trained autoencoder and kept on disk, normalised by
channel."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_dc import AutoencoderDC

from newbie_image.nano.autoencoder import pictures_to_tensor
from newbie_image.nano.dataset import Store


@dataclass(frozen=True)
class LatentStatistics:
    """Mean and standard deviation of each latent channel over the first renders."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


def encode(vae: AutoencoderDC, pictures: np.ndarray, device: torch.device) -> torch.Tensor:
    """uint8 (batch, size, size, 3) → float32 (batch, 16, size/8, size/8), not normalised."""
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
        return vae.encode(pictures_to_tensor(pictures, device), return_dict=False)[0].float()


def measure(vae: AutoencoderDC, store: Store, device: torch.device, count: int = 1024) -> LatentStatistics:
    """Statistics over the first `count` finished renders."""
    pictures = store.pictures()
    chosen = store.finished()[:count]
    latents = torch.cat(
        [encode(vae, pictures[chosen[i : i + 64]], device) for i in range(0, len(chosen), 64)]
    )
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    return LatentStatistics(tuple(mean.tolist()), tuple(std.tolist()))


def cache_latents(vae: AutoencoderDC, store: Store, folder: Path, device: torch.device) -> Iterator[int]:
    """Encodes what is rendered and not yet encoded; yields how many are done. The first call fixes the
    statistics.

    Writes `latents.npy` (count, 16, size/8, size/8) float16, `statistics.json` and `encoded.txt`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vae = vae.to(device, memory_format=torch.channels_last).eval()  # pyright: ignore
    target = folder / "latents.npy"
    side = store.size // 8
    if not (folder / "statistics.json").exists():
        write_statistics(folder, measure(vae, store, device))
    if not target.exists():
        shape = (store.count, 16, side, side)
        np.lib.format.open_memmap(target, mode="w+", dtype=np.float16, shape=shape).flush()
    statistics = read_statistics(folder)
    mean = torch.tensor(statistics.mean)[None, :, None, None]
    std = torch.tensor(statistics.std)[None, :, None, None]
    latents = np.load(target, mmap_mode="r+")
    pictures = store.pictures()
    done = encoded_count(folder)
    finished = store.finished()
    ready = int(np.argmin(np.append(finished == np.arange(len(finished)), False)))
    for start in range(done, ready, 64):
        stop = min(ready, start + 64)
        block = encode(vae, pictures[start:stop], device).cpu()
        latents[start:stop] = ((block - mean) / std).numpy().astype(np.float16)
        latents.flush()
        (folder / "encoded.txt").write_text(str(stop))
        yield stop


def encoded_count(folder: Path) -> int:
    """How many renders of the store have latents."""
    note = folder / "encoded.txt"
    return int(note.read_text()) if note.exists() else 0


def write_statistics(folder: Path, statistics: LatentStatistics) -> None:
    """Fixes the normalisation of the cache in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "statistics.json").write_text(json.dumps({"mean": statistics.mean, "std": statistics.std}))


def read_statistics(folder: Path) -> LatentStatistics:
    """The statistics that the cache in `folder` was made with."""
    raw = json.loads((folder / "statistics.json").read_text())
    return LatentStatistics(tuple(raw["mean"]), tuple(raw["std"]))


def read_latents(folder: Path) -> np.ndarray:
    """(encoded, 16, side, side) float16, in memory."""
    return np.array(np.load(folder / "latents.npy", mmap_mode="r")[: encoded_count(folder)])
