"""How far pictures of the embedded model in bfloat16 and float16 are from those in float32.

    PYTHONPATH=src python benchmarks/precision.py [--prompts 24]

The same held-out prompts and seeds, the bundle's own settings; structural similarity (11 × 11 Gaussian
window of deviation 1.5, mean over colours, after Wang et al. 2004) and peak signal-to-noise ratio against
float32.
"""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from torch import Tensor

from newbie_image import GenerationRequest, NewbiePipeline
from newbie_image.nano.captions import xml_caption
from newbie_image.nano.evaluate import held_out_scenes


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity of pictures (count, 3, height, width) in [0, 1]; (count,)."""
    grid = torch.arange(11) - 5
    line = torch.exp(-(grid**2) / (2 * 1.5**2))
    window = torch.outer(line, line)
    window = (window / window.sum()).expand(3, 1, 11, 11)

    def mean(x: Tensor) -> Tensor:
        return F.conv2d(x, window, groups=3)

    ma, mb = mean(a), mean(b)
    va, vb, both = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
    c1, c2 = 0.01**2, 0.03**2
    score = ((2 * ma * mb + c1) * (2 * both + c2)) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
    return score.mean((1, 2, 3))


def draw(dtype: torch.dtype, prompts: list[str]) -> Tensor:
    pipe = NewbiePipeline.from_pretrained("nano", torch_dtype=dtype)
    made = []
    for seed, prompt in enumerate(prompts):
        last = list(pipe.stream(GenerationRequest(prompt, seed=seed)))[-1]
        made.append(last.pixels)
    return torch.cat(made)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--prompts", type=int, default=24)
    prompts = [xml_caption(scene) for scene in held_out_scenes(parser.parse_args().prompts)]
    exact = draw(torch.float32, prompts)
    print(f"{len(prompts)} pictures against float32\n\n| dtype | SSIM mean | SSIM lowest | PSNR mean |")
    print("|---|---|---|---|")
    for dtype in (torch.bfloat16, torch.float16):
        made = draw(dtype, prompts)
        alike = ssim(made, exact)
        noise = -10 * (made - exact).square().flatten(1).mean(1).clamp_min(1e-12).log10()
        name = str(dtype).removeprefix("torch.")
        print(f"| {name} | {alike.mean():.4f} | {alike.min():.4f} | {noise.mean():.1f} dB |", flush=True)


if __name__ == "__main__":
    main()
