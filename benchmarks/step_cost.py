"""What one denoising step costs, and how much the prepared step saves against the naive one.

    python benchmarks/step_cost.py                            the embedded configuration on the CPU
    python benchmarks/step_cost.py --size 32x32 --text 96,8   other latents, other captions
    python benchmarks/step_cost.py --config full --device cuda --size 128x128 --text 512,512

Steps of the ways compared are interleaved in one run, so that a busy machine slows all of them alike; medians
are reported, and the ratio is the median of the ratios within a round. A step is a pair of captions,
conditional and unconditional, as guidance needs it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from naive_step import NaiveStep
from torch import Tensor

from newbie_image.models.next_dit import NextDiT

BUNDLE = Path(__file__).parent.parent / "bundles" / "nano" / "transformer" / "config.json"
SMALL: dict[str, Any] = {
    "dim": 384,
    "n_layers": 6,
    "n_refiner_layers": 1,
    "n_heads": 6,
    "n_kv_heads": 6,
    "multiple_of": 64,
    "ffn_dim_multiplier": 2 / 3,
    "cap_feat_dim": 256,
    "axes_dims": [16, 24, 24],
    "axes_lens": [1024, 128, 128],
    "clip_text_dim": 128,
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def configuration(name: str) -> dict[str, Any]:
    """full: the published sizes; small: SMALL; embedded: the bundle's, or SMALL where there is none."""
    if name == "full":
        return {}
    if name == "embedded" and BUNDLE.exists():
        stored = json.loads(BUNDLE.read_text())
        return {key: value for key, value in stored.items() if not key.startswith("_")}
    return SMALL


def random_model(config: dict[str, Any], device: str, dtype: torch.dtype) -> NextDiT:
    """Random weights, none of them zero; the time does not depend on their values."""
    with torch.device("meta"):
        model = NextDiT(**config)
    torch.nn.Module.to(model, dtype).to_empty(device=device)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.02)
            if weight.ndim == 1:
                weight.add_(1)
    return model.eval()


def ways(model: NextDiT, given: dict[str, Tensor]) -> dict[str, Callable[[], Tensor]]:
    """The step as each way does it, once ready to be called."""
    latents, timestep = given["latents"], given["timestep"]
    size = (latents.shape[2], latents.shape[3])
    prepared = model.prepare_text(given["text_tokens"], given["text_mask"], given["pooled_text"], size)
    rows = [prepared.rows(row, row + 1) for row in range(prepared.batch)]
    factors = model.prepare_schedule(timestep[:1], prepared)[0]
    row_factors = [model.prepare_schedule(timestep[:1], row)[0] for row in rows]
    naive = NaiveStep(model)

    def two_passes() -> Tensor:
        passes = [
            model.velocity(latents[row : row + 1], timestep[row : row + 1], rows[row], row_factors[row])
            for row in range(len(rows))
        ]
        return torch.cat(passes)

    return {
        "naive": lambda: naive(**given),
        "forward": lambda: model(**given),
        "prepared": lambda: model.velocity(latents, timestep, prepared),
        "prepared and scheduled": lambda: model.velocity(latents, timestep, prepared, factors),
        "prepared and scheduled, two passes": two_passes,
    }


@torch.no_grad()
def measure(
    model: NextDiT, given: dict[str, Tensor], rounds: int, clock: Callable[[], float], skip: tuple[str, ...]
) -> dict[str, dict[str, float]]:
    """Seconds, ratio against naive and relative difference from naive, for each way."""
    device = given["latents"].device
    steps = {name: step for name, step in ways(model, given).items() if name not in skip}
    results = {name: step().float() for name, step in steps.items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            if device.type == "cuda":
                torch.cuda.synchronize()
            start = clock()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds[name].append(clock() - start)
    table = {}
    for name, times in seconds.items():
        ratios = [naive / own for naive, own in zip(seconds["naive"], times, strict=True)]
        difference = (results[name] - results["naive"]).norm() / results["naive"].norm()
        table[name] = {
            "seconds": statistics.median(times),
            "ratio": statistics.median(ratios),
            "difference": float(difference),
        }
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            steps[name]()
            table[name]["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description="Cost of one denoising step, prepared against naive.")
    parser.add_argument("--config", choices=["embedded", "small", "full"], default="embedded")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=DTYPES, action="append", help="may be given more than once")
    parser.add_argument("--size", default="16x16", help="latents, height x width; a picture's sides / 8")
    parser.add_argument("--text", default="96,8", help="tokens of the conditional and unconditional caption")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--attention", default="auto")
    parser.add_argument(
        "--cpu-time", action="store_true", help="processor time of one thread, not the wall clock"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    clock = time.thread_time if options.cpu_time else time.perf_counter
    if options.cpu_time or options.threads:
        torch.set_num_threads(1 if options.cpu_time else options.threads)
    height, width = (int(side) for side in options.size.split("x"))
    lengths = torch.tensor([int(length) for length in options.text.split(",")])
    config = configuration(options.config)
    for name in options.dtype or ["float32", "bfloat16"]:
        torch.manual_seed(0)
        model = random_model(config, options.device, DTYPES[name])
        model.attention_backend = options.attention
        batch = len(lengths)
        given = {
            "latents": torch.randn(1, model.in_channels, height, width).expand(batch, -1, -1, -1),
            "timestep": torch.full((batch,), 0.3),
            "text_tokens": torch.randn(batch, int(lengths.max()), model.cap_feat_dim),
            "text_mask": torch.arange(int(lengths.max()))[None] < lengths[:, None],
            "pooled_text": torch.randn(batch, model.clip_text_dim),
        }
        given = {key: value.to(options.device) for key, value in given.items()}
        skip = ("forward",) if options.config == "full" else ()
        table = measure(model, given, options.rounds, clock, skip)
        parameters = sum(weight.numel() for weight in model.parameters())
        if options.json:
            print(json.dumps({"dtype": name, "parameters": parameters, "ways": table}))
            continue
        print(
            f"{name}, {parameters / 1e6:.1f} M parameters, latents {height}×{width}, "
            f"captions {options.text}, {options.rounds} rounds on {options.device}"
        )
        for way, row in table.items():
            memory = f", peak {row['peak_gib']:.2f} GiB" if "peak_gib" in row else ""
            print(
                f"  {way:36} {1e3 * row['seconds']:9.2f} ms   ×{row['ratio']:.2f}   "
                f"difference {row['difference']:.1e}{memory}"
            )


if __name__ == "__main__":
    main()
