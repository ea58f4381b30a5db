"""The published sizes with random weights in bfloat16 on a card: seconds a step, memory, upstream beside it.

    PYTHONPATH=src python benchmarks/card_step.py --out step.json [--upstream CHECKOUT] [--size 1024]

A step is a pair, prompt and negative prompt, of 512 tokens each. Predicted memory is that of
`newbie_image.memory.plan` with everything resident, measured is what torch's allocator had at its highest in
each stage. What each binding costs a step is that of the prompt's pass alone, one picture of two characters
(`binding_cost.py`). CHECKOUT is upstream's repository, the folder that holds `models/model.py`; its attention
is then torch's, one sequence at a time, as flash-attn is not asked for. Results are written as they come.
`--tiny` measures the tiny classes on the processor, to see that the script runs.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from binding_cost import costs
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from newbie_image.memory.plan import Plan, predict
from newbie_image.memory.tracking import published_modules
from newbie_image.models.next_dit import NextDiT
from newbie_image.pipeline import NewbiePipeline
from newbie_image.request import GenerationRequest, StepDone
from tests import tiny
from tests.measuring import LONG_TEXT, TOKENS, fill, full_request, random_pipeline, stage_peaks, work_of
from tests.parity.compare_upstream import GROUPED, PUBLISHED, import_upstream, run

TWO_PEOPLE = """<character_1>
<gender>1girl</gender>
<appearance>pink_hair, twintails, blue_eyes</appearance>
<clothing>white_shirt, red_skirt, black_thighhighs</clothing>
<expression>smile</expression>
<pose>standing</pose>
<position>left</position>
</character_1>
<character_2>
<gender>1boy</gender>
<appearance>black_hair, short_hair, glasses</appearance>
<clothing>blue_jacket, grey_pants, boots</clothing>
<expression>serious</expression>
<pose>sitting</pose>
<position>right</position>
</character_2>
<general_tags>
<count>1girl, 1boy</count>
<background>night sky</background>
</general_tags>"""


def tiny_modules() -> dict[str, nn.Module]:
    return {
        "transformer": tiny.transformer(),
        "text_encoder": tiny.text_encoder(400),
        "clip_model": tiny.clip_model(400),
        "vae": tiny.vae(),
    }


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak(device: torch.device) -> int:
    """Bytes at the highest since the last call; 0 where the device keeps no count."""
    if device.type != "cuda":
        return 0
    torch.cuda.synchronize(device)
    highest = torch.cuda.max_memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    return highest


def pipeline_figures(pipe: NewbiePipeline, size: int, steps: int, device: torch.device) -> dict[str, Any]:
    """Seconds of a picture's steps with everything resident, and memory against the plan."""
    request = full_request(size, size)
    predicted = predict(pipe.sizes(), work_of(pipe, request), Plan("none"))
    pipe.apply_plan(predicted, device)
    list(pipe.stream(request))  # kernels are chosen
    peaks = stage_peaks(pipe, request, lambda: peak(device))
    timed = GenerationRequest(
        LONG_TEXT, LONG_TEXT, width=size, height=size, steps=steps, sampler="euler", guidance_scale=4.0
    )
    began, seconds = time.perf_counter(), []
    for event in pipe.stream(timed):
        if isinstance(event, StepDone):
            wait(device)
            now = time.perf_counter()
            seconds.append(now - began)
            began = now
    return {
        "size": size,
        "step_s": statistics.median(seconds[1:]),
        "predicted_bytes": {stage.name: stage.bytes for stage in predicted.stages},
        "measured_bytes": peaks,
        "measured_by_predicted": max(peaks.values()) / predicted.peak,
    }


@torch.no_grad()
def forward_seconds(model: nn.Module, given: dict[str, Tensor], rounds: int, device: torch.device) -> float:
    """Median seconds of one evaluation of a pair, everything done anew as upstream does."""
    run(model, given)
    times = []
    for _ in range(rounds):
        wait(device)
        began = time.perf_counter()
        run(model, given)
        wait(device)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def side_by_side(
    checkout: Path, config: dict[str, Any], size: int, rounds: int, device: torch.device, dtype: torch.dtype
) -> dict[str, Any]:
    """Upstream's forward and ours on the same inputs and weights: seconds, memory, difference."""
    draw = torch.Generator().manual_seed(0)
    tokens = min(TOKENS, config["axes_lens"][0] - 1)
    given = {
        "latents": torch.randn(2, config["in_channels"], size // 8, size // 8, generator=draw),
        "timestep": torch.full((2,), 0.3),
        "text_tokens": torch.randn(2, tokens, config["cap_feat_dim"], generator=draw),
        "text_mask": torch.ones(2, tokens, dtype=torch.bool),
        "pooled_text": torch.randn(2, config["clip_text_dim"], generator=draw),
    }
    given = {key: value.to(device) for key, value in given.items()}
    given = {key: value.to(dtype) if value.is_floating_point() else value for key, value in given.items()}
    with torch.device("meta"):
        theirs = import_upstream(checkout)(qk_norm=True, **config)
    theirs = fill(theirs.to(dtype), dtype, device)
    weights = theirs.state_dict()
    with torch.device("meta"):
        ours = NextDiT(**config)
    ours.load_state_dict(weights, assign=True)
    ours = ours.to(device).eval()
    found: dict[str, Any] = {"size": size}
    results = []
    for name, model in (("upstream", theirs), ("ours", ours)):
        peak(device)
        found[f"{name}_forward_s"] = forward_seconds(model, given, rounds, device)
        found[f"{name}_peak_bytes"] = peak(device)
        with torch.no_grad():
            results.append(run(model, given).float())
    found["difference"] = float((results[1] - results[0]).norm() / results[0].norm())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--upstream", type=Path)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    device = torch.device("cpu" if options.tiny else "cuda")
    size = 64 if options.tiny else options.size
    told: dict[str, Any] = {}

    def tell(name: str, value: Any) -> None:
        told[name] = value
        options.out.write_text(json.dumps(told, indent=2) + "\n")
        print(f"{name}: {json.dumps(value)}", flush=True)

    dtype = torch.float32 if options.tiny else torch.bfloat16
    modules = tiny_modules() if options.tiny else published_modules()
    parts = {name: fill(part, dtype, device) for name, part in modules.items()}
    tell("parameters", {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()})
    pipe = random_pipeline(parts)
    del parts, modules
    tell("pipeline", pipeline_figures(pipe, size, options.steps, device))
    bound = GenerationRequest(TWO_PEOPLE, width=size, height=size, guidance_scale=1.0)
    tell("binding", costs(pipe, bound, 3))
    del pipe
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    if options.upstream is not None:
        config = GROUPED if options.tiny else PUBLISHED
        tell("side_by_side", side_by_side(options.upstream, config, size, 5, device, dtype))


if __name__ == "__main__":
    main()
