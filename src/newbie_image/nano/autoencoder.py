"""The embedded model's autoencoder: 1/8 resolution, 16 channels, no layer at full resolution.

Loss: L1 + 0.5·MSE + 0.1·L1 of Sobel gradients, each pixel weighted by the renderer's importance map (eyes
most); the latents get Gaussian noise before they are decoded, which makes them smooth, and a soft limit on
their variance.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_dc import AutoencoderDC
from torch import Tensor

from newbie_image.nano.clock import TrainingClock
from newbie_image.nano.dataset import Store


@dataclass(frozen=True)
class AutoencoderRecipe:
    """What decides the autoencoder. Resolution is that of the store.

    With `freeze_encoder` only the decoder learns on: latents, and whatever was trained on them, stay valid.
    """

    latent_channels: int = 16
    encoder_channels: tuple[int, ...] = (32, 64, 128, 128)
    encoder_layers: tuple[int, ...] = (0, 1, 1, 2)
    decoder_channels: tuple[int, ...] = (32, 64, 128, 256)
    decoder_layers: tuple[int, ...] = (0, 1, 1, 2)
    crop: int = 64
    batch: int = 16
    learning_rate: float = 1.5e-3
    final_rate: float = 5e-5
    warmup_steps: int = 100
    latent_noise: float = 0.1
    edge_weight: float = 0.1
    ema: float = 0.995
    freeze_encoder: bool = False
    seed: int = 0


def build_autoencoder(recipe: AutoencoderRecipe) -> AutoencoderDC:
    """The untrained autoencoder."""
    return AutoencoderDC(
        in_channels=3,
        latent_channels=recipe.latent_channels,
        encoder_block_types="ResBlock",
        decoder_block_types="ResBlock",
        encoder_block_out_channels=recipe.encoder_channels,
        decoder_block_out_channels=recipe.decoder_channels,
        encoder_layers_per_block=recipe.encoder_layers,
        decoder_layers_per_block=recipe.decoder_layers,
        encoder_qkv_multiscales=((),) * len(recipe.encoder_channels),
        decoder_qkv_multiscales=((),) * len(recipe.decoder_channels),
        upsample_block_type="pixel_shuffle",
        downsample_block_type="pixel_unshuffle",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
        scaling_factor=1.0,
    )


def pictures_to_tensor(pictures: np.ndarray, device: torch.device) -> Tensor:
    """uint8 (batch, height, width, 3) → float32 (batch, 3, height, width) in [−1, 1], channels last."""
    return pixels_to_tensor(torch.from_numpy(np.ascontiguousarray(pictures)).to(device))


def pixels_to_tensor(pixels: Tensor) -> Tensor:
    """The same of a uint8 tensor, where it lies."""
    tensor = pixels.permute(0, 3, 1, 2)
    return tensor.to(memory_format=torch.channels_last).float() / 127.5 - 1


def _edges(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[..., :, 1:] - x[..., :, :-1], x[..., 1:, :] - x[..., :-1, :]


def reconstruction_loss(output: Tensor, target: Tensor, weight: Tensor, edge_weight: float) -> Tensor:
    """Weighted L1 + 0.5·MSE + edge_weight·(L1 of gradients). weight: (batch, 1, height, width)."""
    difference = output - target
    pixel = ((difference.abs() + 0.5 * difference.square()) * weight).sum() / (weight.sum() * 3)
    horizontal, vertical = _edges(difference)
    edge = (horizontal.abs() * weight[..., :, 1:]).mean() + (vertical.abs() * weight[..., 1:, :]).mean()
    return pixel + edge_weight * edge


def psnr(
    model: AutoencoderDC, pictures: np.ndarray, device: torch.device, batch: int = 32
) -> tuple[float, float]:
    """Mean over pictures of the peak signal-to-noise ratio in dB, and the same of all errors pooled."""
    values, errors = [], []
    model.eval()
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
        for start in range(0, len(pictures), batch):
            x = pictures_to_tensor(pictures[start : start + batch], device)
            latent = model.encode(x, return_dict=False)[0]
            y = model.decode(latent, return_dict=False)[0].float().clamp(-1, 1)
            error = ((x - y) / 2).square().flatten(1).mean(1)
            values += (-10 * error.clamp_min(1e-10).log10()).tolist()
            errors += error.tolist()
    model.train()
    return float(np.mean(values)), float(-10 * math.log10(max(1e-10, float(np.mean(errors)))))


class CropSource(Protocol):
    """Gives the autoencoder its crops."""

    def refresh(self) -> int:
        """Takes over what has been rendered since; returns how many pictures there are."""
        ...

    def draw(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """(batch, 3, crop, crop) float32 in [−1, 1] and their importance (batch, 1, crop/4, crop/4)."""
        ...


class HostCrops:
    """Crops cut on the processor, each at its own place (a `CropSource`).

    Args:
        store: renders; may still be growing.
        recipe: crop and batch.
        device: where they go.
    """

    def __init__(self, store: Store, recipe: AutoencoderRecipe, device: torch.device) -> None:
        self.store, self.recipe, self.device = store, recipe, device
        self.pictures, self.importance = store.pictures(), store.importance()
        self.done = store.finished()

    def refresh(self) -> int:
        self.done = self.store.finished()
        return len(self.done)

    def draw(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        crop = self.recipe.crop
        chosen = rng.choice(self.done, self.recipe.batch)
        corners = rng.integers(0, (self.store.size - crop) // 4 + 1, (self.recipe.batch, 2))
        crops, weights = [], []
        for index, (row, column) in zip(chosen, corners, strict=True):
            y, x = row * 4, column * 4
            crops.append(self.pictures[index, y : y + crop, x : x + crop])
            weights.append(self.importance[index, row : row + crop // 4, column : column + crop // 4])
        weight = torch.from_numpy(np.stack(weights)).to(self.device).float()[:, None] / 10
        return pictures_to_tensor(np.stack(crops), self.device), weight


def train_autoencoder(
    store: Store,
    held_out: np.ndarray,
    folder: Path,
    recipe: AutoencoderRecipe,
    *,
    minutes: float,
    device: torch.device,
    compiled: bool = False,
    report: Callable[[dict[str, Any]], None] = lambda entry: None,
    start_from: Path | None = None,
    crops: CropSource | None = None,
    report_every: float = 120.0,
    longest_step: float = 10.0,
) -> AutoencoderDC:
    """Trains for a time, saving and resuming in `folder`; the rate falls with a cosine over `minutes` in all.

    Args:
        store: renders to learn from; may still be growing.
        held_out: uint8 (count, size, size, 3), never trained on; scored with every report.
        folder: state.pt (resumable), log.jsonl and, in the end, the saved averaged model in `vae/`.
        minutes: total training time, earlier calls included.
        device: where to train; mixed precision with float32 weights.
        report: called with each log entry.
        start_from: a saved autoencoder whose weights to begin with, when there is no state yet.
        crops: where the crops come from; by default the processor cuts them.
        report_every: seconds between log entries, each of which scores and saves.
        longest_step: seconds that a step counts at most, see `TrainingClock`.
    """
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    folder.mkdir(parents=True, exist_ok=True)
    model = build_autoencoder(recipe).to(device, memory_format=torch.channels_last)  # pyright: ignore
    if start_from is not None:
        model.load_state_dict(AutoencoderDC.from_pretrained(start_from).state_dict())
    average = build_autoencoder(recipe).to(device, memory_format=torch.channels_last)  # pyright: ignore
    average.load_state_dict(model.state_dict())
    if recipe.freeze_encoder:
        model.encoder.requires_grad_(False)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        trained, lr=recipe.learning_rate, betas=(0.9, 0.95), weight_decay=0.01, fused=True
    )
    step, spent = 0, 0.0
    state_file = folder / "state.pt"
    if state_file.exists():
        state = torch.load(state_file, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        if len(state["optimizer"]["param_groups"][0]["params"]) == len(trained):  # else: freezing changed
            optimizer.load_state_dict(state["optimizer"])
        step, spent = int(state["step"]), float(state["spent"])
        rng = np.random.default_rng(recipe.seed + step)

    def forward(x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        latent = model.encode(x, return_dict=False)[0]
        return model.decode(latent + noise, return_dict=False)[0], latent

    run = torch.compile(forward) if compiled else forward
    source = crops or HostCrops(store, recipe, device)
    held = source.refresh()
    clock, last = TrainingClock(spent, longest_step), time.monotonic()
    losses: list[Tensor] = []
    side = recipe.crop // 8
    rate, spread = 0.0, torch.zeros(1)

    def note(rate: float, spread: Tensor) -> None:
        mean, pooled = psnr(average, held_out, device)
        entry = {
            "step": step,
            "minutes": round(spent, 2),
            "loss": torch.stack(losses).mean().item() if losses else None,
            "psnr": round(mean, 2),
            "psnr_pooled": round(pooled, 2),
            "pictures": held,
            "rate": rate,
            "latent_spread": round(spread.mean().item(), 3),
        }
        with (folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(entry) + "\n")
        report(entry)
        _save(state_file, model, average, optimizer, step, spent)

    while (spent := clock.tick()) < minutes:
        if step % 500 == 0:
            held = source.refresh()
        progress = spent / minutes
        rate = recipe.final_rate + (recipe.learning_rate - recipe.final_rate) * 0.5 * (
            1 + math.cos(math.pi * progress)
        )
        rate *= min(1.0, (step + 1) / recipe.warmup_steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        target, weight = source.draw(rng)
        weight = F.interpolate(weight, scale_factor=4, mode="nearest")
        noise = recipe.latent_noise * torch.randn(
            recipe.batch, recipe.latent_channels, side, side, device=device
        )
        with torch.autocast(device.type, torch.bfloat16):
            output, latent = run(target, noise)
        loss = reconstruction_loss(output.float(), target, weight, recipe.edge_weight)
        spread = latent.float().square().mean((0, 2, 3))
        loss = loss + 0.01 * (spread - 1).clamp_min(0).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        decay = min(recipe.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)  # pyright: ignore
        if step % 20 == 0:
            losses = [*losses[-49:], loss.detach()]
            if device.type == "cuda":
                torch.cuda.synchronize(device)  # the clock would else run behind what is queued
        if time.monotonic() - last > report_every:
            last = time.monotonic()
            note(rate, spread.detach())
    note(rate, spread.detach())
    average.save_pretrained(folder / "vae")
    (folder / "recipe.json").write_text(json.dumps(asdict(recipe), indent=2))
    return average


def _save(
    path: Path,
    model: AutoencoderDC,
    average: AutoencoderDC,
    optimizer: torch.optim.Optimizer,
    step: int,
    spent: float,
) -> None:
    partial = path.with_suffix(".partial")
    torch.save(
        {
            "model": model.state_dict(),
            "average": average.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": step,
            "spent": spent,
        },
        partial,
    )
    partial.replace(path)
