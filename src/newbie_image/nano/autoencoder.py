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
from typing import Any

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
    tensor = torch.from_numpy(np.ascontiguousarray(pictures)).to(device).permute(0, 3, 1, 2)
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
    pictures, importance = store.pictures(), store.importance()
    done = store.finished()
    clock, last = TrainingClock(spent), time.monotonic()
    losses: list[float] = []
    side = recipe.crop // 8
    while (spent := clock.tick()) < minutes:
        if step % 500 == 0:
            done = store.finished()
        progress = spent / minutes
        rate = recipe.final_rate + (recipe.learning_rate - recipe.final_rate) * 0.5 * (
            1 + math.cos(math.pi * progress)
        )
        rate *= min(1.0, (step + 1) / recipe.warmup_steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        chosen = rng.choice(done, recipe.batch)
        corners = rng.integers(0, (store.size - recipe.crop) // 4 + 1, (recipe.batch, 2))
        crops, weights = [], []
        for index, (row, column) in zip(chosen, corners, strict=True):
            y, x = row * 4, column * 4
            crops.append(pictures[index, y : y + recipe.crop, x : x + recipe.crop])
            weights.append(
                importance[index, row : row + recipe.crop // 4, column : column + recipe.crop // 4]
            )
        target = pictures_to_tensor(np.stack(crops), device)
        weight = torch.from_numpy(np.stack(weights)).to(device).float()[:, None] / 10
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
            losses.append(loss.item())
        now = time.monotonic()
        if now - last > 120:
            last = now
            mean, pooled = psnr(average, held_out, device)
            entry = {
                "step": step,
                "minutes": round(spent, 2),
                "loss": float(np.mean(losses[-50:])),
                "psnr": round(mean, 2),
                "psnr_pooled": round(pooled, 2),
                "pictures": len(done),
                "rate": rate,
                "latent_spread": round(spread.mean().item(), 3),
            }
            with (folder / "log.jsonl").open("a") as log:
                log.write(json.dumps(entry) + "\n")
            report(entry)
            _save(state_file, model, average, optimizer, step, spent)
    _save(state_file, model, average, optimizer, step, spent)
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
