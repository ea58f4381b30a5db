"""What each binding costs: seconds a step and the size of its masks, as ratios to `off`, side by side.

    python benchmarks/binding_cost.py [--bundle nano] [--rounds 30]

The embedded model on this machine's processor, bfloat16 where it is native, two characters, guidance in two
passes as on any processor; each round times one step of every mode in turn, and the least of them counts.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import torch

from newbie_image.binding.binding import phases
from newbie_image.binding_modes import MODES
from newbie_image.devices import choose_device
from newbie_image.nano.captions import xml_caption
from newbie_image.nano.evaluate import held_out_scenes
from newbie_image.pipeline import NewbiePipeline
from newbie_image.request import GenerationRequest


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", default="nano")
    parser.add_argument("--rounds", type=int, default=30)
    chosen = parser.parse_args()
    choice = choose_device()
    pipe = NewbiePipeline.from_pretrained(chosen.bundle).to(choice.device, choice.dtype)
    model = pipe.transformer
    prompt = xml_caption(held_out_scenes(2)[1])
    whole = pipe.complete(GenerationRequest(prompt, guidance_scale=1.0))
    side = (whole.height or 0) // 8, (whole.width or 0) // 8
    steps, masks = {}, {}
    for mode in MODES:
        for form in ("mask",) if mode == "off" else ("mask", "appended"):
            conditioning = pipe.condition(replace(whole, binding=mode))
            features = conditioning.features
            prepared = model.prepare_text(
                features.tokens, features.mask, features.pooled, side, features.groups
            )
            if conditioning.binding is not None:
                told = phases(conditioning.binding, prepared, 1, len(model.layers), (0.0, 1.0), form)
                prepared = told[0][1]
            steps[mode, form] = prepared
            told_of = prepared.padding
            held = [] if told_of is None else [told_of.bias, *(told_of.factors or ())]
            masks[mode, form] = sum(each.numel() * each.element_size() for each in held if each is not None)
    latents = torch.randn(1, model.in_channels, *side, device=choice.device)
    t = torch.tensor([0.3], device=choice.device)
    least = dict.fromkeys(steps, float("inf"))
    for _ in range(chosen.rounds):
        for key, prepared in steps.items():
            began = time.perf_counter()
            model.velocity(latents, t, prepared)
            if latents.is_cuda:
                torch.cuda.synchronize()
            least[key] = min(least[key], time.perf_counter() - began)
    plain = least["off", "mask"]
    print(f"{choice.device}, {choice.dtype}, {side[1] * 8}×{side[0] * 8}, off {plain * 1e3:.2f} ms a step")
    print("| mode | form | step, ratio to off | mask, KiB |\n|---|---|---|---|")
    for (mode, form), seconds in least.items():
        print(f"| {mode} | {form} | {seconds / plain:.2f} | {masks[mode, form] / 1024:.0f} |")


if __name__ == "__main__":
    main()
