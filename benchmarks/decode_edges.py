"""Does the decode stage `edges` bring edges nearer to the original, and colours no further?

Renders of the embedded model's world that training never saw go through its VAE and back, once decoded as
they are, once with the stage, and, for comparison, once sharpened after the plain decode (unsharp mask, held
within the smallest and largest value of the 3×3 around each pixel). Printed are means over the pictures after
rounding to bytes: the difference of the Sobel gradients and of the values (both of 255), ΔE (CIE 1976) and
PSNR, then on how many pictures the stage is the nearer one.

    python benchmarks/decode_edges.py            # 64 pictures of 128×128, on one thread
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from newbie_image.bundle import find_bundle, read_settings
from newbie_image.checkpoints.opening import load_vae
from newbie_image.decode_stages import decode_edges, encode_pictures
from newbie_image.decoding import decode_latents
from newbie_image.nano.evaluate import held_out_scenes
from newbie_image.nano.world.render import render

SOBEL = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]]) / 8
TO_XYZ = torch.tensor(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
WHITE = torch.tensor([0.95047, 1.0, 1.08883]).view(1, 3, 1, 1)


def sobel(pictures: Tensor) -> Tensor:
    """(batch, 3, height, width) → gradients (batch, 6, height, width)."""
    kernels = torch.stack([SOBEL, SOBEL.T])[:, None].repeat(3, 1, 1, 1)
    return F.conv2d(F.pad(pictures, (1, 1, 1, 1), mode="replicate"), kernels, groups=3)


def lab(pictures: Tensor) -> Tensor:
    """sRGB in [0, 1] → CIE L*a*b* under D65."""
    linear = torch.where(pictures <= 0.04045, pictures / 12.92, ((pictures + 0.055) / 1.055) ** 2.4)
    ratio = torch.einsum("ij,bjhw->bihw", TO_XYZ, linear) / WHITE
    bent = torch.where(ratio > 0.008856, ratio.clamp_min(1e-8) ** (1 / 3), 7.787 * ratio + 16 / 116)
    x, y, z = bent.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def errors(made: Tensor, original: Tensor) -> Tensor:
    """(batch, 4): Sobel, value, ΔE and PSNR of each picture."""
    made = (made * 255).round() / 255
    return torch.stack(
        [
            (sobel(made) - sobel(original)).abs().flatten(1).mean(1) * 255,
            (made - original).abs().flatten(1).mean(1) * 255,
            (lab(made) - lab(original)).square().sum(1).sqrt().flatten(1).mean(1),
            -10 * (made - original).square().flatten(1).mean(1).clamp_min(1e-10).log10(),
        ],
        dim=1,
    )


def sharpened(pictures: Tensor, amount: float) -> Tensor:
    """An unsharp mask that does not overshoot."""
    padded = F.pad(pictures, (1, 1, 1, 1), mode="replicate")
    side = torch.tensor([1.0, 2.0, 1.0]) / 4
    blurred = F.conv2d(padded, (side[:, None] * side).expand(3, 1, 3, 3), groups=3)
    low, high = -F.max_pool2d(-padded, 3, 1), F.max_pool2d(padded, 3, 1)
    return torch.minimum(torch.maximum(pictures + amount * (pictures - blurred), low), high)


@torch.no_grad()
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=64, help="pictures")
    parser.add_argument("--size", type=int, default=128, help="pixels of a side")
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    vae, settings = load_vae("nano", torch.float32), read_settings(find_bundle("nano")).vae
    renders = [torch.from_numpy(render(scene, wanted.size).copy()) for scene in held_out_scenes(wanted.count)]
    originals = torch.stack(renders).permute(0, 3, 1, 2).float() / 255
    latents = torch.cat([encode_pictures(one, vae, settings) for one in originals.split(1)])
    decoded = decode_latents(latents, vae, settings)
    ways: dict[str, Callable[[], Tensor]] = {
        "plain": lambda: decode_latents(latents, vae, settings),
        "edges, 1 round": lambda: decode_edges(latents, vae, settings, rounds=1),
        "edges (3 rounds)": lambda: decode_edges(latents, vae, settings),
        "plain, sharpened by 0.5": lambda: sharpened(decoded, 0.5),
        "plain, sharpened by 1": lambda: sharpened(decoded, 1.0),
    }
    print("| decode | Sobel error | value error | ΔE | PSNR, dB | seconds a picture |")
    print("|---|---|---|---|---|---|")
    found: dict[str, Tensor] = {}
    for name, make in ways.items():
        began = time.process_time()
        made = make()
        took = (time.process_time() - began) / wanted.count
        found[name] = errors(made, originals)
        edge, value, colour, psnr = found[name].mean(0).tolist()
        print(f"| {name} | {edge:.3f} | {value:.3f} | {colour:.3f} | {psnr:.2f} | {took:.3f} |", flush=True)
    nearer = found["edges (3 rounds)"] - found["plain"]
    better = [nearer[:, 0] < 0, nearer[:, 2] < 0, nearer[:, 3] > 0]
    counts = dict(zip(("Sobel", "ΔE", "PSNR"), (int(each.sum()) for each in better), strict=True))
    print(f"pictures of {wanted.count} that edges brings nearer than plain: {counts}")


if __name__ == "__main__":
    main()
