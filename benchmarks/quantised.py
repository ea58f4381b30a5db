"""What quantised weights of the embedded model cost in exactness and save in bytes.

    PYTHONPATH=src python benchmarks/quantised.py [--prompts 6] [--steps 8]

For each format: the relative error of one velocity against float32 (held-out prompts as the row's own text
encoders give them, noise at t = 0.1, 0.5 and 0.9, root mean square over all), SSIM and PSNR of whole pictures
against float32 (benchmarks/precision.py; Euler steps, the bundle's other settings), and the bytes of the
transformer's and of both encoders' weights. Activations are float32 except in the rows that say bf16.

`--parts` compares instead which layers of the transformer to quantise: its blocks without AdaLN, all of its
blocks, or also the embedders and the final layer.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

import torch
from precision import ssim
from torch import Tensor, nn

from newbie_image import GenerationRequest, NewbiePipeline
from newbie_image.memory import quantisation
from newbie_image.memory.quantisation import matrices, weight_bytes
from newbie_image.nano.captions import xml_caption
from newbie_image.nano.evaluate import held_out_scenes

TIMES = (0.1, 0.5, 0.9)
ROWS = (
    ("fp32", torch.float32, "none", "none"),
    ("bf16", torch.bfloat16, "none", "none"),
    ("fp8", torch.float32, "fp8", "none"),
    ("int8", torch.float32, "int8", "none"),
    ("int4", torch.float32, "int4", "none"),
    ("int8 in encoders too", torch.float32, "int8", "int8"),
    ("int4 in encoders too", torch.float32, "int4", "int4"),
    ("int8 everywhere, bf16", torch.bfloat16, "int8", "int8"),
)


@torch.no_grad()
def velocities(pipe: NewbiePipeline, prompts: list[str]) -> Tensor:
    """(prompts · times, channels, height/8, width/8) in float32."""
    size = pipe.settings.defaults
    shape = (len(TIMES), pipe.transformer.in_channels, size.height // 8, size.width // 8)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    made = []
    for prompt in prompts:
        request = pipe.complete(GenerationRequest(prompt, guidance_scale=1.0))
        features = pipe.encode(request).expand(len(TIMES))
        arguments = (features.tokens, features.mask, features.pooled)
        made.append(pipe.transformer(noise, torch.tensor(TIMES), *arguments))
    return torch.cat(made)


def pictures(pipe: NewbiePipeline, prompts: list[str], steps: int) -> Tensor:
    """(prompts, 3, height, width) in [0, 1]."""
    requests = (
        GenerationRequest(prompt, seed=seed, steps=steps, sampler="euler")
        for seed, prompt in enumerate(prompts)
    )
    return torch.cat([list(pipe.stream(request))[-1].pixels for request in requests])


def relative(made: Tensor, exact: Tensor) -> float:
    return float((made - exact).norm() / exact.norm())


def layers_of(transformer: nn.Module, which: str) -> Iterator[tuple[str, nn.Linear]]:
    """Which layers `--parts` quantises."""
    chosen = dict(matrices(transformer))
    for name, module in transformer.named_modules():
        left_out = which == "blocks without AdaLN" and "adaLN_modulation" in name
        if isinstance(module, nn.Linear) and not left_out and (name in chosen or which == "all"):
            yield name, module


def compare_parts(prompts: list[str], exact: Tensor) -> None:
    print("| format | layers | velocity | transformer |\n|---|---|---|---|")
    plain = matrices
    for kind in ("fp8", "int8", "int4"):
        for which in ("blocks without AdaLN", "blocks", "all"):
            pipe = NewbiePipeline.from_pretrained("nano", torch_dtype=torch.float32)
            chosen = list(layers_of(pipe.transformer, which))
            quantisation.matrices = lambda model, chosen=chosen: iter(chosen)  # type: ignore[assignment]
            quantisation.quantise_model(pipe.transformer, kind)
            quantisation.matrices = plain
            error = relative(velocities(pipe, prompts), exact)
            size = weight_bytes(pipe.transformer)
            print(f"| {kind} | {which} | {error:.2%} | {size / 1e6:.1f} MB |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--prompts", type=int, default=6)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--parts", action="store_true")
    given = parser.parse_args()
    prompts = [xml_caption(scene) for scene in held_out_scenes(given.prompts)]
    pipe = NewbiePipeline.from_pretrained("nano", torch_dtype=torch.float32)
    exact = velocities(pipe, prompts)
    if given.parts:
        compare_parts(prompts, exact)
        return
    drawn: Tensor | None = None
    print(f"{given.prompts} prompts, {given.steps} steps\n")
    print("| weights | velocity | SSIM mean | lowest | PSNR mean | transformer | encoders | processor s |")
    print("|---|---|---|---|---|---|---|---|")
    for name, dtype, kind, encoders in ROWS:
        pipe = NewbiePipeline.from_pretrained(
            "nano", torch_dtype=dtype, quantisation=kind, encoder_quantisation=encoders
        )
        began = time.process_time()
        made = pictures(pipe, prompts, given.steps)
        seconds = time.process_time() - began
        drawn = made if drawn is None else drawn
        alike = ssim(made, drawn)
        noises = -10 * (made - drawn).square().flatten(1).mean(1).clamp_min(1e-12).log10()
        error = relative(velocities(pipe, prompts), exact)
        sizes = [
            weight_bytes(pipe.transformer),
            weight_bytes(pipe.text_encoder) + weight_bytes(pipe.clip_model),
        ]
        shown = " | ".join(f"{size / 1e6:.1f} MB" for size in sizes)
        likeness = f"{alike.mean():.3f} | {alike.min():.3f} | {noises.mean():.1f} dB"
        print(f"| {name} | {error:.2%} | {likeness} | {shown} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
