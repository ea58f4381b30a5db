"""What each binding costs: seconds a step, memory, and the size of its masks, as ratios to `off`.

    python benchmarks/binding_cost.py [--bundle nano] [--rounds 30]

The embedded model on this machine's processor, bfloat16 where it is native, two characters, without guidance
(a second pass, which `sealed` alone touches); each round times one step of every mode in turn,
and the least of them counts. `card_step.py` measures the published sizes on a card with the same function.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from newbie_image.binding.binding import Form, phases
from newbie_image.binding_modes import MODES
from newbie_image.devices import choose_device
from newbie_image.models.prepared_text import PreparedText
from newbie_image.nano.captions import xml_caption
from newbie_image.nano.evaluate import held_out_scenes
from newbie_image.pipeline import NewbiePipeline
from newbie_image.request import GenerationRequest

FORMS: tuple[Form, ...] = ("mask", "appended")


def prepare(
    pipe: NewbiePipeline, request: GenerationRequest, side: tuple[int, int], form: Form
) -> PreparedText:
    """The prompt's row as the steps of a completed request read it."""
    model = pipe.transformer
    conditioning = pipe.condition(request)
    features = conditioning.features
    prepared = model.prepare_text(features.tokens, features.mask, features.pooled, side, features.groups)
    if conditioning.binding is None:
        return prepared
    return phases(conditioning.binding, prepared, 1, len(model.layers), (0.0, 1.0), form)[0][1]


def mask_bytes(prepared: PreparedText) -> int:
    """Bytes of the scores that the joint blocks' attention is told to add."""
    told = prepared.padding
    held = [] if told is None else [told.bias, *(told.factors or ())]
    return sum(each.numel() * each.element_size() for each in held if each is not None)


def one_step(model: Any, latents: Tensor, t: Tensor, prepared: PreparedText) -> float:
    """Seconds of one evaluation, from an idle device to an idle device."""
    if latents.is_cuda:
        torch.cuda.synchronize(latents.device)
    began = time.perf_counter()
    model.velocity(latents, t, prepared)
    if latents.is_cuda:
        torch.cuda.synchronize(latents.device)
    return time.perf_counter() - began


@torch.no_grad()
def costs(
    pipe: NewbiePipeline, request: GenerationRequest, rounds: int, forms: Sequence[Form] = FORMS
) -> list[dict[str, Any]]:
    """A step of the prompt's pass under each mode in each form, `off` first and in the first form only.

    Args:
        pipe: everything on one device.
        request: without guidance; its `binding` is not looked at.
        rounds: of timing, after a step that does not count; every round takes all modes in turn.
        forms: how the rules reach attention.

    Returns:
        For each: mode, form, step_s (the least), step_by_off, mask_bytes, and on CUDA peak_bytes (allocated
        at the highest of a step, weights and all, without what the other modes hold) and peak_by_off. What
        failed has `error`, a line, instead of what could not be measured.
    """
    whole = pipe.complete(request)
    model = pipe.transformer
    device = model.device
    side = (whole.height or 0) // 8, (whole.width or 0) // 8
    latents = torch.randn(1, model.in_channels, *side, device=device)
    t = torch.tensor([0.3], device=device)
    rows = [
        {"mode": mode, "form": form} for mode in MODES for form in (forms[:1] if mode == "off" else forms)
    ]
    held: dict[int, PreparedText] = {}

    def failed(number: int, error: torch.OutOfMemoryError) -> None:
        text = str(error).strip() or "no message"
        rows[number]["error"] = f"{type(error).__name__}: {text.splitlines()[0]}"
        rows[number].pop("step_s", None)
        held.pop(number, None)

    def clear() -> None:
        """Give back what a failed mode had taken; after the exception is gone, which holds its tensors."""
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()

    on_card = device.type == "cuda"
    first = torch.cuda.memory_allocated(device) if on_card else 0
    for number, row in enumerate(rows):
        before = torch.cuda.memory_allocated(device) if on_card else 0
        try:
            asked = replace(whole, binding=row["mode"])
            held[number] = prepare(pipe, asked, side, row["form"])
            row["mask_bytes"] = mask_bytes(held[number])
            one_step(model, latents, t, held[number])  # kernels are chosen
            if on_card:
                torch.cuda.reset_peak_memory_stats(device)
                one_step(model, latents, t, held[number])
                row["peak_bytes"] = torch.cuda.max_memory_allocated(device) - (before - first)
        except torch.OutOfMemoryError as error:
            failed(number, error)
        if "error" in row:
            clear()
    for _ in range(rounds):
        for number, row in enumerate(rows):
            if number not in held:
                continue
            try:
                took = one_step(model, latents, t, held[number])
                row["step_s"] = min(row.get("step_s", took), took)
            except torch.OutOfMemoryError as error:
                failed(number, error)
            if "error" in row:
                clear()
    for figure, ratio in (("step_s", "step_by_off"), ("peak_bytes", "peak_by_off")):
        plain = rows[0].get(figure)
        for row in rows:
            if plain and figure in row:
                row[ratio] = row[figure] / plain
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The figures in Markdown, with memory where it was measured."""
    measured = any("peak_bytes" in row for row in rows)
    lines = ["| mode | form | step, ratio to off | mask, KiB |" + " peak, ratio to off |" * measured]
    lines.append("|---" * (4 + measured) + "|")
    for row in rows:
        step = f"{row['step_by_off']:.2f}" if "step_by_off" in row else row.get("error", "–")
        mask = f"{row['mask_bytes'] / 1024:.0f}" if "mask_bytes" in row else "–"
        told = f"| {row['mode']} | {row['form']} | {step} | {mask} |"
        if measured:
            told += f" {row['peak_by_off']:.3f} |" if "peak_by_off" in row else " – |"
        lines.append(told)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", default="nano")
    parser.add_argument("--rounds", type=int, default=30)
    chosen = parser.parse_args()
    choice = choose_device()
    pipe = NewbiePipeline.from_pretrained(chosen.bundle).to(choice.device, choice.dtype)
    whole = pipe.complete(GenerationRequest(xml_caption(held_out_scenes(2)[1]), guidance_scale=1.0))
    rows = costs(pipe, whole, chosen.rounds)
    plain = rows[0].get("step_s", float("nan"))
    print(f"{choice.device}, {choice.dtype}, {whole.width}×{whole.height}, off {plain * 1e3:.2f} ms a step")
    print(table(rows))


if __name__ == "__main__":
    main()
