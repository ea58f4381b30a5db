"""`newbie explain`: which words of a prompt drew what, as heat maps, numbers and a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from newbie_image.cli import lora as adapters
from newbie_image.cli import options
from newbie_image.cli.recorded import AskedModel, load_recorded
from newbie_image.errors import RequestError
from newbie_image.explain import DEFAULT_BLOCKS, DEFAULT_KIND, DEFAULT_PREVIEWS
from newbie_image.provenance import hash_pixels, read_picture
from newbie_image.request import GenerationRequest

if TYPE_CHECKING:
    from newbie_image.cli.loading import LoadedModel
    from newbie_image.explain.looking import LookChoice

explain_app = typer.Typer(add_completion=False)
_PANEL = "What is looked at"
_OF_A_PICTURE = "a picture's own record says that; leave {} away, or give the prompt instead of the picture"


@explain_app.command(cls=options.OffloadCommand)
def explain(
    subject: Annotated[
        str | None,
        typer.Argument(
            metavar="PICTURE.png|PROMPT",
            help="A PNG written by newbie-image, or a prompt; - is standard input.",
        ),
    ] = None,
    prompt_file: Annotated[
        str | None, typer.Option("--prompt-file", "-f", metavar="FILE|-", help="Read the prompt from a file.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FOLDER",
            help="Where the page, the maps and the numbers go.",
            rich_help_panel="Output",
        ),
    ] = None,
    kind: Annotated[
        str,
        typer.Option("--kind", metavar="attention|similarity", help="Which maps.", rich_help_panel=_PANEL),
    ] = DEFAULT_KIND,
    blocks: Annotated[
        str,
        typer.Option(
            "--blocks",
            metavar="all|early|middle|late|N-M,…",
            help="Blocks, from 0; a word is a third of them.",
            rich_help_panel=_PANEL,
        ),
    ] = DEFAULT_BLOCKS,
    at_steps: Annotated[
        str, typer.Option("--at-steps", metavar="all|N-M,…", help="Steps, from 1.", rich_help_panel=_PANEL)
    ] = "all",
    previews: Annotated[
        int, typer.Option("--previews", help="How many steps show the picture.", rich_help_panel=_PANEL)
    ] = DEFAULT_PREVIEWS,
    negative: Annotated[
        str | None,
        typer.Option(
            "--negative", metavar="TEXT", help="What to steer away from.", rich_help_panel="Picture"
        ),
    ] = None,
    resolution: options.ResolutionOption = None,
    steps: options.StepsOption = None,
    cfg: options.CfgOption = None,
    cfg_trunc: options.CfgTruncationOption = None,
    cfg_renorm: options.CfgRenormOption = None,
    sampler: options.SamplerOption = None,
    shift: options.ShiftOption = None,
    grid: options.GridOption = None,
    seed: Annotated[
        str | None,
        typer.Option("--seed", metavar="N|random", help="Random when left out.", rich_help_panel="Picture"),
    ] = None,
    preset: options.PresetOption = None,
    tolerant: options.TolerantOption = False,
    text_form: options.TextFormOption = "typed",
    tiled: options.TiledOption = False,
    decode: options.DecodeOption = None,
    binding: Annotated[
        str | None,
        typer.Option(
            "--binding",
            metavar="auto|off|full|…",
            help="How characters are kept apart.",
            rich_help_panel="Picture",
        ),
    ] = None,
    model: options.ModelOption = None,
    device: options.DeviceOption = "auto",
    dtype: Annotated[str | None, typer.Option("--dtype", help="Number format.")] = None,
    attention: Annotated[str | None, typer.Option("--attention", help="Attention kernel.")] = None,
    offload: options.OffloadOption = "none",
    vram: options.VramOption = None,
    vae: options.VaeOption = None,
    transformer: options.TransformerOption = None,
    text_encoder: options.TextEncoderOption = None,
    clip_model: options.ClipModelOption = None,
    quantise: Annotated[str | None, typer.Option("--quantise", help="Format of the weights.")] = None,
    quantise_encoders: Annotated[
        str | None, typer.Option("--quantise-encoders", help="Format of the text encoders' weights.")
    ] = None,
    trims: Annotated[str | None, typer.Option("--trims", help="Exact savings, by name.")] = None,
    lora: adapters.LoraOption = None,
) -> None:
    """Draw a prompt, or a picture again from its record, and show which of its words drew what."""
    from newbie_image.cli.messages import say_warnings

    asked = AskedModel(
        model,
        device,
        dtype,
        attention,
        offload,
        vae,
        vram,
        transformer,
        text_encoder,
        clip_model,
        quantise,
        quantise_encoders,
        trims,
    )
    picture = None if subject is None or prompt_file is not None else _picture_path(subject)
    of_pictures = {
        "--negative": negative,
        "--resolution": resolution,
        "--steps": steps,
        "--cfg": cfg,
        "--cfg-trunc": cfg_trunc,
        "--cfg-renorm": cfg_renorm,
        "--sampler": sampler,
        "--shift": shift,
        "--grid": grid,
        "--seed": seed,
        "--preset": preset,
        "--tolerant": tolerant or None,
        "--text-form": None if text_form == "typed" else text_form,
        "--tiled": tiled or None,
        "--decode": decode,
        "--binding": binding,
    }
    look = _look_choice(kind, blocks, at_steps, previews)
    if picture is not None:
        for name, value in of_pictures.items():
            if value is not None:
                raise RequestError(f"{name} {value!r}: {_OF_A_PICTURE.format(name)}")
        page, same = _explain_picture(asked, picture, look, lora, out)
        if not same:
            say_warnings(["the picture was not made again to the bit; what is shown is the new one's"])
        print(page)
        return
    width, height = options.read_resolution(resolution) if resolution else (None, None)
    request = GenerationRequest(
        prompt=options.read_prompt(subject, prompt_file),
        negative_prompt=negative or "",
        width=width,
        height=height,
        steps=steps,
        guidance_scale=cfg,
        cfg_truncation=cfg_trunc,
        cfg_renorm=cfg_renorm,
        sampler=sampler,
        shift=shift,
        grid=grid,
        seed=options.read_seed(seed or "random"),
        preset=preset,
        tolerant=tolerant,
        text_form=text_form,
        tiled=tiled,
        decode=decode,
        binding=binding or "auto",
    )
    print(_explain_prompt(asked, request, look, lora, out))


def _picture_path(subject: str) -> Path | None:
    """The picture that is meant, None for a prompt."""
    named = subject.strip()
    if "\n" in named or "<" in named or len(named) > 1000:
        return None
    try:
        return Path(named) if named.lower().endswith(".png") or Path(named).is_file() else None
    except (OSError, ValueError):
        return None


def _look_choice(kind: str, blocks: str, steps: str, previews: int) -> LookChoice:
    from newbie_image.explain.looking import LookChoice

    return LookChoice(kind, blocks, steps, previews)


def _explain_prompt(
    asked: AskedModel, request: GenerationRequest, look: LookChoice, lora: list[str] | None, out: Path | None
) -> Path:
    from newbie_image.cli.drawing import check_prompt
    from newbie_image.cli.loading import load_model
    from newbie_image.cli.messages import say_warnings
    from newbie_image.explain.folder import prepare_folder
    from newbie_image.explain.looking import check_explainable

    check_prompt(request)
    check_explainable(request)
    choice = asked.fresh()
    loras = adapters.read_loras(lora)
    folder = out or _unused(f"newbie-{request.seed}-explained")
    prepare_folder(folder)
    loaded = load_model(choice, loras)
    say_warnings(loaded.warnings)
    return _draw(loaded, request, look, folder, 0)[0]


def _explain_picture(
    asked: AskedModel, picture: Path, look: LookChoice, lora: list[str] | None, out: Path | None
) -> tuple[Path, bool]:
    """The page, and whether the picture was the same to the bit."""
    from newbie_image.explain.folder import prepare_folder
    from newbie_image.explain.looking import check_explainable

    _, record = read_picture(picture)
    check_explainable(record.request)
    folder = out or _unused(f"{picture.stem}-explained")
    prepare_folder(folder)
    loaded = load_recorded(asked, record, picture, lora)
    page, pixels = _draw(loaded, record.request, look, folder, record.index)
    return page, pixels == record.pixels


def _draw(
    loaded: LoadedModel, request: GenerationRequest, look: LookChoice, folder: Path, picture: int
) -> tuple[Path, str]:
    """The page and the pixels' hash."""
    from newbie_image.cli.drawing import draw
    from newbie_image.cli.messages import say_note
    from newbie_image.explain.folder import write_folder
    from newbie_image.explain.looking import Looking

    say_note(f"{loaded.name} loaded in {loaded.seconds:.1f} s on {loaded.reason}")
    looking = Looking(loaded.pipeline, request, look, picture)
    drawn = draw(loaded.pipeline, request, sights=(looking.sight,), watch=looking.read)
    assert looking.explanation is not None
    page = write_folder(looking.explanation, request, folder)
    return page, hash_pixels(drawn.pictures[picture].image)


def _unused(name: str) -> Path:
    folder, number = Path(name), 1
    while folder.exists():
        number += 1
        folder = Path(f"{name}-{number}")
    return folder
