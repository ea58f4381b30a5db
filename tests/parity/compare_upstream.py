"""Runs upstream's transformer beside ours on the CPU and says how far apart they are.

    python tests/parity/compare_upstream.py UPSTREAM                   tiny configurations in float32
    python tests/parity/compare_upstream.py UPSTREAM --write-fixtures  … and writes tests/parity/fixtures
    python tests/parity/compare_upstream.py UPSTREAM --half            bfloat16 and float16 against float32
    python tests/parity/compare_upstream.py UPSTREAM --full            3.5B parameters, 15 GB of memory

UPSTREAM is a checkout of NewBie-image-Exp0.1, the folder that holds `models/model.py`. Its flash_attn import
is replaced by functions that do the same with torch, one sequence at a time. All weights are random, also
those that upstream starts at zero, so that no part of the network is trivially equal.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import math
import sys
import time
import types
import zlib
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from newbie_image.models.next_dit import NextDiT

FIXTURES = Path(__file__).parent / "fixtures"
TOLERANCE = 1e-5
HALF_RATIO = 1.05

PUBLISHED: dict[str, Any] = {
    "patch_size": 2,
    "in_channels": 16,
    "dim": 2304,
    "n_layers": 36,
    "n_refiner_layers": 2,
    "n_heads": 24,
    "n_kv_heads": 8,
    "multiple_of": 256,
    "ffn_dim_multiplier": None,
    "norm_eps": 1e-5,
    "cap_feat_dim": 2560,
    "axes_dims": [32, 32, 32],
    "axes_lens": [1024, 512, 512],
    "clip_text_dim": 1024,
}
MEDIUM = PUBLISHED | {
    "dim": 384,
    "n_layers": 6,
    "n_heads": 12,
    "n_kv_heads": 4,
    "multiple_of": 64,
    "cap_feat_dim": 256,
    "axes_dims": [8, 12, 12],
    "axes_lens": [256, 64, 64],
    "clip_text_dim": 256,
}
GROUPED = MEDIUM | {
    "dim": 32,
    "n_layers": 2,
    "n_heads": 4,
    "n_kv_heads": 2,
    "multiple_of": 16,
    "cap_feat_dim": 24,
    "axes_dims": [4, 2, 2],
    "axes_lens": [64, 32, 32],
    "clip_text_dim": 20,
}
UNGROUPED = GROUPED | {
    "n_layers": 1,
    "n_refiner_layers": 1,
    "n_heads": 2,
    "n_kv_heads": None,
    "ffn_dim_multiplier": 0.7,
    "axes_dims": [4, 6, 6],
}
TINY = {"grouped": GROUPED, "ungrouped": UNGROUPED}


def import_upstream(checkout: Path) -> type[nn.Module]:
    """Upstream's class, imported with stand-ins for flash_attn."""

    def varlen(
        q: Tensor, k: Tensor, v: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, **options: Any
    ) -> Tensor:
        parts = []
        for i in range(len(cu_seqlens_q) - 1):
            asks = slice(cu_seqlens_q[i], cu_seqlens_q[i + 1])
            keys = slice(cu_seqlens_k[i], cu_seqlens_k[i + 1])
            one = [part.transpose(0, 1)[None] for part in (q[asks], k[keys], v[keys])]
            out = F.scaled_dot_product_attention(*one, scale=options["softmax_scale"], enable_gqa=True)
            parts.append(out[0].transpose(0, 1))
        return torch.cat(parts)

    def pad(states: Tensor, indices: Tensor, batch: int, length: int) -> Tensor:
        out = states.new_zeros(batch * length, *states.shape[1:])
        out[indices] = states
        return out.unflatten(0, (batch, length))

    flash, padding = types.ModuleType("flash_attn"), types.ModuleType("flash_attn.bert_padding")
    flash.flash_attn_varlen_func = varlen  # type: ignore[attr-defined]
    padding.index_first_axis = lambda states, indices: states[indices]  # type: ignore[attr-defined]
    padding.pad_input, padding.unpad_input = pad, None  # type: ignore[attr-defined]
    stand_ins = {"flash_attn": flash, "flash_attn.bert_padding": padding}
    sys.modules.update(stand_ins)
    sys.path.insert(0, str(checkout))
    try:
        return importlib.import_module("models.model").NextDiT_CLIP
    finally:
        sys.path.remove(str(checkout))
        for name in stand_ins:
            del sys.modules[name]


def build(kind: type[nn.Module], config: dict[str, Any]) -> nn.Module:
    """A model whose every weight is drawn from a generator seeded by its name: the same for both classes."""
    with torch.device("meta"):
        model = kind(**config) if kind is NextDiT else kind(qk_norm=True, **config)
    model.to_empty(device="cpu")
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.normal_(generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
            if weight.ndim == 2:
                weight.mul_(1 / math.sqrt(weight.shape[1]))
            else:
                weight.mul_(0.1).add_(0.0 if name.endswith("bias") else 1.0)
    return model.eval()


def inputs(
    config: dict[str, Any], size: tuple[int, int], lengths: tuple[int, ...], padded: int
) -> dict[str, Tensor]:
    """Latents that are not square, captions of uneven lengths, padding that holds large numbers."""
    draw = torch.Generator().manual_seed(2)
    batch = len(lengths)
    mask = torch.arange(padded)[None] < torch.tensor(lengths)[:, None]
    tokens = torch.randn(batch, padded, config["cap_feat_dim"], generator=draw)
    return {
        "latents": torch.randn(batch, config["in_channels"], *size, generator=draw),
        "timestep": torch.linspace(0.13, 0.87, batch),
        "text_tokens": torch.where(mask[..., None], tokens, 50 * tokens),
        "text_mask": mask,
        "pooled_text": torch.randn(batch, config["clip_text_dim"], generator=draw),
    }


def run(model: nn.Module, given: dict[str, Tensor]) -> Tensor:
    """The velocity, from either class."""
    if isinstance(model, NextDiT):
        return model(**given)
    return model(
        given["latents"], given["timestep"], given["text_tokens"], given["text_mask"].int(),
        clip_text_pooled=given["pooled_text"],
    )  # fmt: skip


def gradients(model: nn.Module, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """Gradients of a fixed scalar of the velocity, by inputs and by weights."""
    leaves = {
        name: given[name].clone().requires_grad_() for name in ("latents", "text_tokens", "pooled_text")
    }
    velocity = run(model, given | leaves)
    draw = torch.Generator().manual_seed(3)
    (velocity * torch.randn(velocity.shape, generator=draw)).sum().backward()
    found = {f"input.{name}": leaf.grad for name, leaf in leaves.items()}
    found |= {f"weight.{name}": weight.grad for name, weight in model.named_parameters()}
    return {name: grad for name, grad in found.items() if grad is not None}


def distance(ours: Tensor, theirs: Tensor) -> float:
    """‖ours − theirs‖ / ‖theirs‖."""
    ours, theirs = ours.detach().double(), theirs.detach().double()
    return float((ours - theirs).norm() / theirs.norm())


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(weight.shape) for name, weight in model.state_dict().items()}


def compare_tiny(upstream: type[nn.Module], write: bool) -> bool:
    good = True
    for name, config in TINY.items():
        given = inputs(config, (8, 12), (9, 4, 1), padded=11)
        theirs = build(upstream, config)
        velocity, expected = run(theirs, given).detach(), gradients(theirs, given)
        ours = NextDiT(**config)
        ours.load_state_dict(theirs.state_dict(), strict=True)
        prepared = ours.prepare_text(given["text_tokens"], given["text_mask"], given["pooled_text"], (8, 12))
        found = gradients(ours, given)
        errors = {
            "forward": distance(run(ours, given), velocity),
            "velocity": distance(ours.velocity(given["latents"], given["timestep"], prepared), velocity),
            "gradient": max(distance(found[key], grad) for key, grad in expected.items()),
        }
        good &= shapes(ours) == shapes(theirs) and found.keys() == expected.keys()
        good &= max(errors.values()) < TOLERANCE
        print(f"{name}: " + ", ".join(f"{part} {error:.2e}" for part, error in errors.items()))
        if write:
            stored = {f"weights.{key}": weight for key, weight in theirs.state_dict().items()}
            stored |= {f"given.{key}": value for key, value in given.items()} | {"velocity": velocity}
            stored |= {f"gradient.{key}": grad for key, grad in expected.items() if key.startswith("input")}
            stored |= {f"gradient_norm.{key}": grad.norm() for key, grad in expected.items()}
            FIXTURES.mkdir(exist_ok=True)
            path = FIXTURES / f"next_dit_{name}.safetensors"
            save_file(
                {key: value.contiguous() for key, value in stored.items()},
                path,
                {"config": json.dumps(config)},
            )
            print(f"  wrote {path} ({path.stat().st_size} bytes)")
    return good


def compare_half(upstream: type[nn.Module]) -> bool:
    good = True
    for name, config in {**TINY, "medium": MEDIUM}.items():
        size, lengths = ((8, 12), (9, 4, 1)) if name in TINY else ((32, 24), (96, 31))
        given = inputs(config, size, lengths, padded=max(lengths) + 2)
        for dtype in (torch.bfloat16, torch.float16):
            theirs, ours = (build(kind, config).to(dtype) for kind in (upstream, NextDiT))
            rounded = {key: value if key == "text_mask" else value.to(dtype) for key, value in given.items()}
            with torch.no_grad():
                results = [run(model, rounded) for model in (theirs, ours)]
                exact = run(
                    theirs.float(), {k: v.float() if v.is_floating_point() else v for k, v in rounded.items()}
                )
            error = [distance(result, exact) for result in results]
            good &= error[1] <= HALF_RATIO * error[0]
            kind = str(dtype).removeprefix("torch.")
            print(
                f"{name}, {kind}: upstream {error[0]:.3e}, ours {error[1]:.3e}, "
                f"ratio {error[1] / error[0]:.3f}"
            )
    return good


@torch.no_grad()
def compare_full(upstream: type[nn.Module]) -> bool:
    given = inputs(PUBLISHED, (16, 24), (40, 23), padded=48)
    results, keys = [], []
    for kind in (upstream, NextDiT):
        start = time.perf_counter()
        model = build(kind, PUBLISHED)
        built = time.perf_counter()
        results.append(run(model, given))
        keys.append(shapes(model))
        size = sum(weight.numel() for weight in model.parameters())
        print(
            f"{kind.__name__}: {size:,} parameters, built in {built - start:.0f} s, "
            f"forward {time.perf_counter() - built:.0f} s, "
            f"velocity rms {results[-1].square().mean().sqrt():.4f}",
            flush=True,
        )
        del model
        gc.collect()
    error = distance(results[1], results[0])
    print(f"same {len(keys[0])} keys and shapes: {keys[0] == keys[1]}; relative error {error:.2e}")
    return keys[0] == keys[1] and error < TOLERANCE


def main() -> int:
    parser = argparse.ArgumentParser(description="Parity of NextDiT with upstream's NextDiT_CLIP.")
    parser.add_argument("upstream", type=Path, help="checkout of NewBie-image-Exp0.1")
    parser.add_argument(
        "--write-fixtures", action="store_true", help="store what the offline test compares with"
    )
    parser.add_argument("--half", action="store_true", help="errors of bfloat16 and float16, ours and theirs")
    parser.add_argument(
        "--full", action="store_true", help="the 3.5B configuration; needs 15 GB of free memory"
    )
    options = parser.parse_args()
    upstream = import_upstream(options.upstream)
    if options.full:
        good = compare_full(upstream)
    elif options.half:
        good = compare_half(upstream)
    else:
        good = compare_tiny(upstream, options.write_fixtures)
    print("equal within tolerance" if good else "NOT EQUAL within tolerance")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
