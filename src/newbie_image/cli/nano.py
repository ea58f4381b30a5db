"""`newbie nano`: trains the embedded model, scores it, and draws sheets of its pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from newbie_image.cli.nano_benchmark import benchmark, validate
from newbie_image.errors import RequestError

nano_app = typer.Typer(help="Train and score the embedded model.", no_args_is_help=True, add_completion=False)
nano_app.command()(benchmark)
nano_app.command()(validate)

WorkOption = Annotated[Path, typer.Option(help="Folder for renders, states and logs (some gigabytes).")]
BundleOption = Annotated[str, typer.Option("--bundle", help="Bundle to score: a name or a folder.")]
STAGES = "render, autoencoder, latents, transformer, readers, export, or all"


@nano_app.command()
def train(
    work: WorkOption = Path(".nano"),
    stage: Annotated[str, typer.Option(help=f"One of {STAGES}.")] = "all",
    autoencoder_minutes: Annotated[float, typer.Option(help="Training time, earlier calls included.")] = 60.0,
    transformer_minutes: Annotated[
        float, typer.Option(help="Training time, earlier calls included.")
    ] = 240.0,
    pictures: Annotated[int, typer.Option(help="Renders to learn from.")] = 60_000,
    size: Annotated[int, typer.Option(help="Pixels of a picture's side.")] = 128,
    seed: Annotated[int, typer.Option(help="Seed of both trainings.")] = 0,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, mps; the best there is if left out.")] = None,
    start_from: Annotated[
        str | None, typer.Option(help="Go on from this bundle (name or folder) in a new work folder.")
    ] = None,
    freeze_encoder: Annotated[
        bool, typer.Option(help="Train the decoder alone, so that latents stay valid.")
    ] = False,
    compiled: Annotated[
        bool,
        typer.Option("--compile", help="Compile the transformer's training: minutes at first, then faster."),
    ] = False,
    people: Annotated[int, typer.Option(help="Most people in a picture: 3 or 6.")] = 3,
    hold_out_pairs: Annotated[
        bool, typer.Option(help="Never show the benchmark's held-out attribute pairs together.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Where the stage `export` writes the bundle.")] = Path(
        "bundles/nano"
    ),
) -> None:
    """Train the embedded model, stage by stage. Every stage goes on where it was stopped."""
    from newbie_image.nano import recipe as stages_of

    if stage != "all" and stage not in stages_of.STAGES:
        raise RequestError(f"unknown stage {stage!r}; choose one of {STAGES}")
    if size % 32 or not 64 <= size <= 512:
        raise RequestError(f"size {size} is not allowed; give a multiple of 32 from 64 to 512")
    from dataclasses import replace

    from newbie_image.bundle import find_bundle, read_settings
    from newbie_image.devices import choose_device
    from newbie_image.nano.recipe import Recipe, Workshop, hardware, stages

    choice = choose_device(device)
    learnt_at = None if start_from is None else read_settings(find_bundle(start_from)).defaults.width
    recipe = (
        replace(Recipe(), pictures=pictures, hold_out_pairs=hold_out_pairs)
        .seeded(seed)
        .peopled(people)
        .sized(size, learnt_at)
    )
    recipe = replace(recipe, autoencoder=replace(recipe.autoencoder, freeze_encoder=freeze_encoder))
    workshop = Workshop(work, recipe, choice.device, report=lambda line: typer.echo(line, err=True))
    typer.echo(f"training on {hardware(choice.device)}", err=True)
    if start_from is not None:
        workshop.start_from(start_from)
    for name in stages(stage):
        if name == "autoencoder":
            workshop.autoencoder(autoencoder_minutes)
        elif name == "transformer":
            workshop.transformer(transformer_minutes, _previewer(work), compiled)
        elif name == "export":
            workshop.export(out)
            typer.echo(f"bundle written to {out}")
        else:
            getattr(workshop, name)()


def _previewer(work: Path) -> Any:
    def preview(pipeline: Any, seen: int) -> None:
        from newbie_image.nano.captions import xml_caption
        from newbie_image.nano.evaluate import generate, held_out_scenes
        from newbie_image.nano.world.sheet import tile

        prompts = [xml_caption(scene) for scene in held_out_scenes(16)]
        tile(list(generate(pipeline, prompts)), columns=8).save(work / f"sheet-{seen:08d}.png")

    return preview


@nano_app.command()
def evaluate(
    bundle: BundleOption = "nano",
    readers: Annotated[Path, typer.Option(help="Folder of the trained readers.")] = Path("assets/readers"),
    count: Annotated[
        int, typer.Option(help="Held-out prompts, half with one and half with two people.")
    ] = 300,
    form: Annotated[str, typer.Option(help="xml, tags or sentence.")] = "xml",
    binding: Annotated[str, typer.Option(help="How characters are kept apart, as in `generate`.")] = "auto",
    steps: Annotated[int | None, typer.Option(help="Steps; the bundle's default if left out.")] = None,
    guidance: Annotated[float | None, typer.Option("--cfg", help="Guidance scale.")] = None,
    shift: Annotated[float | None, typer.Option(help="Time shift.")] = None,
    sampler: Annotated[str | None, typer.Option(help="Solver.")] = None,
    references: Annotated[
        bool, typer.Option(help="Also score the renders and the autoencoder's round trip.")
    ] = True,
    out: Annotated[Path | None, typer.Option(help="Where to write the score as JSON.")] = None,
    sheet: Annotated[
        Path | None, typer.Option(help="Where to draw the first 32 pictures, unselected.")
    ] = None,
) -> None:
    """Score a bundle: attributes asked for against attributes read back from its pictures."""
    if form not in ("xml", "tags", "sentence"):
        raise RequestError(f"unknown form {form!r}; choose xml, tags or sentence")
    import json

    from newbie_image.binding_modes import read_binding
    from newbie_image.devices import choose_device
    from newbie_image.nano.evaluate import CAPTIONS, generate, held_out_scenes, write_score
    from newbie_image.nano.evaluate import evaluate as score_bundle
    from newbie_image.nano.recipe import load_readers, reader_pictures
    from newbie_image.nano.world.sheet import tile
    from newbie_image.pipeline import NewbiePipeline

    read_binding(binding)
    choice = choose_device()
    pipeline = NewbiePipeline.from_pretrained(bundle).to(choice.device, choice.dtype)
    character, whole = load_readers(readers)
    settings = {"binding": binding, "steps": steps, "guidance": guidance, "shift": shift, "sampler": sampler}
    score = score_bundle(
        pipeline, character, whole, count=count, form=form, references=references,
        progress=lambda done: typer.echo(f"{done} of {count}", err=True), **settings,
    )  # fmt: skip
    if out is not None:
        write_score(score | {"reader_pictures": reader_pictures(readers)}, out)
    if sheet is not None:
        prompts = [CAPTIONS[form](scene) for scene in held_out_scenes(32)]
        tile(list(generate(pipeline, prompts, **settings)), columns=8).save(sheet)
    typer.echo(json.dumps(score, indent=2))
