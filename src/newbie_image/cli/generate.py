"""`newbie generate`: pictures of one prompt."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from newbie_image.cli import lora as adapters
from newbie_image.cli import options
from newbie_image.errors import RequestError
from newbie_image.request import MAX_SEED, GenerationRequest

generate_app = typer.Typer(add_completion=False)


@generate_app.command(cls=options.OffloadCommand)
def generate(
    prompt: Annotated[
        str | None, typer.Argument(metavar="PROMPT", help="XML, tags or a sentence; - is standard input.")
    ] = None,
    prompt_file: Annotated[
        str | None, typer.Option("--prompt-file", "-f", metavar="FILE|-", help="Read the prompt from a file.")
    ] = None,
    negative: options.NegativeOption = "",
    resolution: options.ResolutionOption = None,
    steps: options.StepsOption = None,
    cfg: options.CfgOption = None,
    cfg_trunc: options.CfgTruncationOption = None,
    cfg_renorm: options.CfgRenormOption = None,
    sampler: options.SamplerOption = None,
    shift: options.ShiftOption = None,
    grid: options.GridOption = None,
    seed: options.SeedOption = "random",
    preset: options.PresetOption = None,
    tolerant: options.TolerantOption = False,
    warnings_as_errors: options.WarningsAsErrorsOption = False,
    text_form: options.TextFormOption = "typed",
    binding: options.BindingOption = "auto",
    long_prompt: options.LongPromptOption = "cut",
    tiled: options.TiledOption = False,
    decode: options.DecodeOption = None,
    out: options.OutOption = None,
    count: options.CountOption = 1,
    batch: options.BatchOption = 1,
    show_regions: options.ShowRegionsOption = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a picture.", rich_help_panel="Output")
    ] = False,
    model: options.ModelOption = None,
    device: options.DeviceOption = "auto",
    dtype: options.DtypeOption = "auto",
    attention: options.AttentionOption = "auto",
    offload: options.OffloadOption = "none",
    vram: options.VramOption = None,
    vae: options.VaeOption = None,
    transformer: options.TransformerOption = None,
    text_encoder: options.TextEncoderOption = None,
    clip_model: options.ClipModelOption = None,
    quantise: options.QuantiseOption = "none",
    quantise_encoders: options.QuantiseEncodersOption = "none",
    trims: options.TrimsOption = "all",
    lora: adapters.LoraOption = None,
) -> None:
    """Draw pictures of a prompt and write them as PNG, each with what made it."""
    width, height = options.read_resolution(resolution) if resolution else (None, None)
    request = GenerationRequest(
        prompt=options.read_prompt(prompt, prompt_file),
        negative_prompt=negative,
        width=width,
        height=height,
        steps=steps,
        guidance_scale=cfg,
        cfg_truncation=cfg_trunc,
        cfg_renorm=cfg_renorm,
        sampler=sampler,
        shift=shift,
        grid=grid,
        seed=options.read_seed(seed),
        count=count,
        preset=preset,
        tolerant=tolerant,
        text_form=text_form,
        binding=binding,
        long_prompt=long_prompt,
        batch=batch,
        tiled=tiled,
        decode=decode,
    )
    if request.seed + count - 1 > MAX_SEED:
        raise RequestError(f"seed {request.seed} leaves no room for {count} pictures; give a smaller one")
    choice = options.ModelChoice(
        options.read_model(model, transformer),
        device,
        dtype,
        attention,
        options.read_offload(offload),
        vae,
        vram,
        transformer,
        text_encoder,
        clip_model,
        quantise,
        quantise_encoders,
        trims,
    )
    loras = adapters.read_loras(lora)
    paths = options.plan_paths(out, list(range(request.seed, request.seed + count)))
    draw_and_write(
        choice,
        request,
        paths,
        loras,
        as_json=as_json,
        warnings_as_errors=warnings_as_errors,
        show_regions=show_regions,
    )


def draw_and_write(
    choice: options.ModelChoice,
    request: GenerationRequest,
    paths: list[Path],
    loras: Sequence[adapters.LoraChoice] = (),
    *,
    as_json: bool,
    warnings_as_errors: bool = False,
    show_regions: bool = False,
) -> None:
    """Load, draw, write, and say what was written: a path or a JSON object a line.

    Raises:
        typer.Exit: 1 where the prompt has warnings and these count as errors.
    """
    from newbie_image.cli.drawing import (
        check_prompt,
        draw,
        late_remarks,
        split_count,
        summary,
        write_drawn,
        write_regions,
    )
    from newbie_image.cli.loading import load_model
    from newbie_image.cli.messages import say_note, say_warnings

    remarks = check_prompt(request, parsers_own=warnings_as_errors)
    if warnings_as_errors and remarks:
        say_note("nothing was drawn, because warnings count as errors")
        raise typer.Exit(1)
    loaded = load_model(choice, loras)
    say_warnings(loaded.warnings)
    say_note(f"{loaded.name} loaded in {loaded.seconds:.1f} s on {loaded.reason}")
    if warnings_as_errors and (remarks := late_remarks(loaded.pipeline, request)):
        say_warnings(remarks)
        say_note("nothing was drawn, because warnings count as errors")
        raise typer.Exit(1)
    done = 0
    for part in split_count(request):
        label = "drawing" if request.count == 1 else f"{done + 1}/{request.count}"
        drawn = draw(loaded.pipeline, part, label=label, warn=done == 0)
        written = write_drawn(drawn, paths[done : done + part.count])
        shown = write_regions(drawn, [file.path for file in written]) if show_regions else []
        for place, (picture, file) in enumerate(zip(drawn.pictures, written, strict=True)):
            seconds = {"loading": loaded.seconds, **drawn.seconds, "writing": file.seconds}
            if as_json:
                print(
                    json.dumps(
                        {
                            "path": str(file.path),
                            "seed": picture.seed,
                            "sha256": file.sha256,
                            "pixels_sha256": file.pixels,
                            "width": picture.image.width,
                            "height": picture.image.height,
                            "seconds": {stage: round(value, 4) for stage, value in seconds.items()},
                            "peak_memory": drawn.peak_memory,
                            "warnings": [*remarks, *loaded.warnings, *drawn.warnings],
                            **({"regions": str(shown[place])} if shown else {}),
                        },
                        ensure_ascii=False,
                    ),
                    flush=True,
                )
            else:
                print(file.path, flush=True)
                if shown:
                    say_note(f"regions: {shown[place]}")
                if sys.stdout.isatty():
                    say_note(f"seed {picture.seed}, {summary(seconds)}")
        done += part.count
