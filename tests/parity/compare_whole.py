"""Runs upstream's own way from a prompt to a picture beside ours, at a tiny size, and says how far apart.

    PYTHONPATH=src python tests/parity/compare_whole.py UPSTREAM

UPSTREAM is a checkout of NewBie-image-Exp0.1; torchdiffeq must be importable. Upstream's side is its own
code: `encode_prompt` as demo.py has it (with `.cuda()` doing nothing), its transformer,
`forward_with_cfg`, its sampler, its scale and shift before the VAE, one system prompt for both texts (as
our preset `upstream`). In the place of the 4B Gemma 3 stands transformers' own `Gemma3TextModel` at a
tiny size, asked for `hidden_states[-2]`; in the place of Jina's remote code a tiny tower of ours behind
`get_text_features`. All weights are random and the same on both sides, float32.
"""

from __future__ import annotations

import ast
import random
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from compare_upstream import import_upstream
from transformers.models.gemma3.modeling_gemma3 import Gemma3TextModel

sys.path.insert(0, str(Path(__file__).parents[1]))
import tiny

from newbie_image.pipeline import NewbiePipeline
from newbie_image.request import GenerationRequest

TOLERANCE = 1e-4
FLUX_SCALE, FLUX_SHIFT = 0.3611, 0.1159
SYSTEM = "You read xml. "

# sampler, intervals, shift, guidance, truncation, renormalisation, negative prompt
CASES = [
    ("euler", 12, 6.0, 5.0, 1.0, 0.0, ""),
    ("euler", 12, 1.0, 4.0, 0.5, 1.0, "low quality, bad hands"),
    ("euler", 18, 6.0, 4.5, 0.25, 0.0, tiny.TAGS_PROMPT),
    ("midpoint", 10, 6.0, 5.0, 0.25, 0.0, ""),
    ("midpoint", 10, 3.0, 7.0, 1.0, 0.7, "low quality"),
]


def upstream_encode(checkout: Path) -> Any:
    """demo.py's `encode_prompt`, without the rest of that file (it wants gradio and a card)."""
    tree = ast.parse((checkout / "demo.py").read_text(encoding="utf-8"))
    wanted = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "encode_prompt"]
    space: dict[str, Any] = {"torch": torch, "random": random, "np": np}
    exec(compile(ast.Module(wanted, []), "demo.py", "exec"), space)
    return space["encode_prompt"]


def upstream_parts(checkout: Path, pipe: NewbiePipeline) -> tuple[Any, Any, Any]:
    """Upstream's transformer and the two encoders in the form it expects, with our pipeline's weights."""
    kind = import_upstream(checkout)
    config = {k: v for k, v in pipe.transformer.config.items() if not k.startswith("_")}
    transformer: Any = kind(qk_norm=True, **config)
    transformer.load_state_dict(pipe.transformer.state_dict(), strict=True)
    gemma = Gemma3TextModel(pipe.text_encoder.config)
    gemma.load_state_dict(pipe.text_encoder.state_dict(), strict=True)

    def features(input_ids: Any) -> tuple[torch.Tensor, None]:
        return pipe.clip_model(input_ids.input_ids, input_ids.attention_mask), None

    clip = types.SimpleNamespace(device=torch.device("cpu"), get_text_features=features)
    return transformer.eval(), gemma.eval(), clip


def theirs(
    checkout: Path, pipe: NewbiePipeline, case: tuple, prompt: str, noise: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents and pixels (in 0…1) as demo.py makes them."""
    from transport import Sampler, create_transport

    sampler, intervals, shift, scale, truncation, renorm, negative = case
    transformer, gemma, clip = upstream_parts(checkout, pipe)
    told = [SYSTEM + prompt, SYSTEM + negative if negative else ""]
    tokens, mask, _, pooled, _ = upstream_encode(checkout)(
        told, gemma, pipe.tokenizer, clip, pipe.clip_tokenizer, 0.0, clip_captions=[prompt, negative]
    )
    sample = Sampler(create_transport("Linear", "velocity")).sample_ode(
        sampling_method=sampler, num_steps=intervals + 1, time_shifting_factor=shift
    )
    latents = sample(
        noise.repeat(2, 1, 1, 1),
        transformer.forward_with_cfg,
        cap_feats=tokens,
        cap_mask=mask,
        cfg_scale=scale,
        cfg_trunc=truncation,
        renorm_cfg=renorm,
        clip_text_sequence=None,
        clip_text_pooled=pooled,
        clip_img_pooled=None,
    )[-1][:1]
    pixels = pipe.vae.decode(latents / FLUX_SCALE + FLUX_SHIFT).sample
    return latents, ((pixels + 1) / 2).clamp(0, 1)


def ours(
    pipe: NewbiePipeline, case: tuple, prompt: str, noise: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    sampler, intervals, shift, scale, truncation, renorm, negative = case
    request = GenerationRequest(
        prompt=prompt,
        negative_prompt=negative,
        width=noise.shape[-1] * 8,
        height=noise.shape[-2] * 8,
        steps=intervals,
        sampler=sampler,
        shift=shift,
        guidance_scale=scale,
        cfg_truncation=truncation,
        cfg_renorm=renorm,
        seed=1,
    )
    last = list(pipe.stream(request, latents=noise))[-1]
    return last.latents, last.pixels


def main() -> int:
    checkout = Path(sys.argv[1]).resolve()
    torch.Tensor.cuda = lambda self, *_: self  # type: ignore[method-assign, assignment]
    for name in ("scipy", "scipy.integrate"):
        stand_in = sys.modules.setdefault(name, types.ModuleType(name))
        stand_in.solve_ivp = None  # type: ignore[attr-defined]
    sys.path.insert(0, str(checkout))
    worst = 0.0
    text = tiny.SETTINGS.text.model_copy(update={"system_prompt_xml": SYSTEM, "system_prompt_tags": SYSTEM})
    settings = tiny.SETTINGS.model_copy(update={"text": text})
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        bundle = tiny.write_bundle(Path(folder), settings=settings)
        pipe = NewbiePipeline.from_pretrained(bundle, torch_dtype=torch.float32)
        for case in CASES:
            noise = torch.randn(1, 16, 6, 8, generator=torch.Generator().manual_seed(7))
            reference, pixels = theirs(checkout, pipe, case, tiny.XML_PROMPT, noise)
            latents, picture = ours(pipe, case, tiny.XML_PROMPT, noise)
            error = float((latents - reference).norm() / reference.norm())
            apart = float((picture - pixels).abs().max()) * 255
            moved = float((reference - noise).norm() / noise.norm())
            worst = max(worst, error)
            print(f"{error:.1e} latents, {apart:.2f} of 255 pixels, moved {moved:.2f}", *case, flush=True)
    print(f"worst {worst:.1e}, allowed {TOLERANCE:.0e}")
    return int(worst >= TOLERANCE)


if __name__ == "__main__":
    raise SystemExit(main())
