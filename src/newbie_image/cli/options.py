"""The options that several commands share, and how their texts are read.

`newbie generate`, `newbie create` and the `:commands` of the loop take and refuse the same values.
"""

from __future__ import annotations

import itertools
import os
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, cast

import typer
from typer.core import TyperCommand

from newbie_image.errors import DeviceError, OutputError, PromptError, RequestError
from newbie_image.memory.trims import TRIMS, read_trims
from newbie_image.request import (
    GRIDS,
    LONG_PROMPTS,
    MAX_SEED,
    SAMPLERS,
    TEXT_FORMS,
    GenerationRequest,
)

Offload = Literal["none", "encoders", "model", "blocks", "auto"]
OFFLOADS: Final[tuple[Offload, ...]] = ("none", "encoders", "model", "blocks", "auto")
ATTENTIONS: Final = ("auto", "sdpa", "flash", "math")
DTYPES: Final = ("auto", "bf16", "fp16", "fp32")
QUANTISATIONS: Final = ("none", "fp8", "int8", "int4")
MAX_PROMPT_BYTES: Final = 2**20
_MODEL_PANEL: Final = "Model and machine"
_PICTURE_PANEL: Final = "Picture"
_OUTPUT_PANEL: Final = "Output"

ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME|PATH",
        help="Bundle, or weights in another layout; nano without it.",
        rich_help_panel=_MODEL_PANEL,
    ),
]
TransformerOption = Annotated[
    str | None,
    typer.Option(
        "--transformer",
        metavar="PATH",
        help="The transformer's file or folder; without --model it is the model.",
        rich_help_panel=_MODEL_PANEL,
    ),
]
TextEncoderOption = Annotated[
    str | None,
    typer.Option(
        "--text-encoder", metavar="PATH", help="Gemma 3's file or folder.", rich_help_panel=_MODEL_PANEL
    ),
]
ClipModelOption = Annotated[
    str | None,
    typer.Option(
        "--clip-model", metavar="PATH", help="Jina CLIP v2's file or folder.", rich_help_panel=_MODEL_PANEL
    ),
]
DeviceOption = Annotated[
    str,
    typer.Option("--device", metavar="auto|cuda|mps|cpu", help="Where to run.", rich_help_panel=_MODEL_PANEL),
]
DtypeOption = Annotated[
    str,
    typer.Option(
        "--dtype",
        metavar="|".join(DTYPES),
        help="Number format; auto is bf16 where it is native.",
        rich_help_panel=_MODEL_PANEL,
    ),
]
AttentionOption = Annotated[
    str,
    typer.Option(
        "--attention", metavar="|".join(ATTENTIONS), help="Attention kernel.", rich_help_panel=_MODEL_PANEL
    ),
]
OffloadOption = Annotated[
    str,
    typer.Option(
        "--offload",
        metavar="[none|encoders|model|blocks|auto]",
        help="What waits outside the device; bare --offload is model.",
        rich_help_panel=_MODEL_PANEL,
    ),
]
VramOption = Annotated[
    str | None,
    typer.Option(
        "--vram",
        metavar="SIZE",
        help="Memory that --offload auto and blocks plan for, as 8GB; without it what the card has free.",
        rich_help_panel=_MODEL_PANEL,
    ),
]
QuantiseOption = Annotated[
    str,
    typer.Option(
        "--quantise",
        metavar="|".join(QUANTISATIONS),
        help="Keep the transformer's matrices in fewer bits (torchao): less memory, less exact.",
        rich_help_panel=_MODEL_PANEL,
    ),
]
QuantiseEncodersOption = Annotated[
    str,
    typer.Option(
        "--quantise-encoders",
        metavar="|".join(QUANTISATIONS),
        help="The same for both text encoders.",
        rich_help_panel=_MODEL_PANEL,
    ),
]
TrimsOption = Annotated[
    str,
    typer.Option(
        "--trims",
        metavar="all|none|NAME,…",
        help=f"Work that is left out because it changes nothing: {', '.join(TRIMS)}.",
        rich_help_panel=_MODEL_PANEL,
    ),
]
VaeOption = Annotated[
    str | None,
    typer.Option(
        "--vae",
        metavar="NAME|PATH",
        help="Another autoencoder: a name (newbie info lists them), a file or a folder.",
        rich_help_panel=_MODEL_PANEL,
    ),
]
StepsOption = Annotated[
    int | None, typer.Option("--steps", help="Intervals of the time grid.", rich_help_panel=_PICTURE_PANEL)
]
CfgOption = Annotated[
    float | None,
    typer.Option("--cfg", help="Guidance scale; 1 switches it off.", rich_help_panel=_PICTURE_PANEL),
]
CfgTruncationOption = Annotated[
    float | None,
    typer.Option(
        "--cfg-trunc",
        help="Guide only while t is below this (0 is noise, 1 the picture).",
        rich_help_panel=_PICTURE_PANEL,
    ),
]
CfgRenormOption = Annotated[
    float | None,
    typer.Option(
        "--cfg-renorm",
        help="Limit of the guided velocity's norm against the unguided one's; 0 is off.",
        rich_help_panel=_PICTURE_PANEL,
    ),
]
SamplerOption = Annotated[
    str | None,
    typer.Option(
        "--sampler", metavar="|".join(SAMPLERS), help="Solver of the flow.", rich_help_panel=_PICTURE_PANEL
    ),
]
GridOption = Annotated[
    str | None,
    typer.Option(
        "--grid",
        metavar="|".join(GRIDS),
        help="How times are spread before the shift.",
        rich_help_panel=_PICTURE_PANEL,
    ),
]
ShiftOption = Annotated[
    float | None,
    typer.Option(
        "--shift", help="Time shift; more spends more steps on the noise.", rich_help_panel=_PICTURE_PANEL
    ),
]
SeedOption = Annotated[
    str,
    typer.Option(
        "--seed",
        metavar="N|random",
        help="Picture i of several has seed N + i.",
        rich_help_panel=_PICTURE_PANEL,
    ),
]
ResolutionOption = Annotated[
    str | None,
    typer.Option(
        "--resolution", "-r", metavar="WxH", help="Pixels, multiples of 16.", rich_help_panel=_PICTURE_PANEL
    ),
]
NegativeOption = Annotated[
    str,
    typer.Option(
        "--negative", metavar="TEXT", help="What to steer away from.", rich_help_panel=_PICTURE_PANEL
    ),
]
PresetOption = Annotated[
    str | None,
    typer.Option(
        "--preset", metavar="NAME", help="Named settings of the bundle.", rich_help_panel=_PICTURE_PANEL
    ),
]
TolerantOption = Annotated[
    bool,
    typer.Option(
        "--tolerant", help="Repair a broken prompt and say what was assumed.", rich_help_panel=_PICTURE_PANEL
    ),
]
WarningsAsErrorsOption = Annotated[
    bool,
    typer.Option(
        "--warnings-as-errors",
        help="Draw nothing where there is a warning about the prompt.",
        rich_help_panel=_PICTURE_PANEL,
    ),
]
TextFormOption = Annotated[
    str,
    typer.Option(
        "--text-form",
        metavar="|".join(TEXT_FORMS),
        help="What the encoders read: the prompt as typed, or flat: [char1]blue_hair, …",
        rich_help_panel=_PICTURE_PANEL,
    ),
]
BindingOption = Annotated[
    str,
    typer.Option(
        "--binding",
        metavar="auto|off|encode|text|region|full|sealed[,…]",
        help="How characters are kept apart; parts and numbers may follow (docs/binding.md).",
        rich_help_panel=_PICTURE_PANEL,
    ),
]
LongPromptOption = Annotated[
    str,
    typer.Option(
        "--long-prompt",
        metavar="|".join(LONG_PROMPTS),
        help="A prompt beyond an encoder's limit: cut its end off, read it by groups, or refuse it.",
        rich_help_panel=_PICTURE_PANEL,
    ),
]
TiledOption = Annotated[
    bool,
    typer.Option(
        "--tiled",
        help="Decode in tiles: less memory, seams may differ a little.",
        rich_help_panel=_PICTURE_PANEL,
    ),
]
DecodeOption = Annotated[
    str | None,
    typer.Option(
        "--decode",
        metavar="NAME",
        help="Decode stage: plain, edges (nearer to the original's edges, slower), or a package's.",
        rich_help_panel=_PICTURE_PANEL,
    ),
]
CountOption = Annotated[
    int, typer.Option("--count", "-n", help="How many pictures.", rich_help_panel=_OUTPUT_PANEL)
]
BatchOption = Annotated[
    int, typer.Option("--batch", help="How many of them at a time.", rich_help_panel=_OUTPUT_PANEL)
]
OutOption = Annotated[
    str | None,
    typer.Option(
        "--out",
        "-o",
        metavar="FILE.png|FOLDER/",
        help="Where to write; without it newbie-SEED.png here.",
        rich_help_panel=_OUTPUT_PANEL,
    ),
]
ShowRegionsOption = Annotated[
    bool,
    typer.Option(
        "--show-regions",
        help="Also write NAME-regions.png: the picture with its characters' regions and numbers.",
        rich_help_panel=_OUTPUT_PANEL,
    ),
]


class OffloadCommand(TyperCommand):
    """A command whose `--offload` may stand alone, which means `model`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, complete_offload(args))
        except typer.TyperException as error:
            # What follows a bare `--offload` may be the prompt; where that was given, it is a misspelt value.
            for word in _after_offload(args):
                if f"({word})" in error.format_message():
                    read_offload(word)
            raise


def _after_offload(args: list[str]) -> list[str]:
    """The words that follow `--offload`."""
    return [word for option, word in itertools.pairwise(args) if option == "--offload"]


def complete_offload(args: list[str]) -> list[str]:
    """The arguments with a bare `--offload` completed."""
    completed = list(args)
    for place, argument in enumerate(args):
        if argument == "--":
            break
        if argument == "--offload" and args[place + 1 : place + 2] not in [[name] for name in OFFLOADS]:
            completed[place] = "--offload=model"
    return completed


@dataclass(frozen=True)
class ModelChoice:
    """Which model runs where and how; everything that needs loading again when it changes.

    ``transformer``, ``text_encoder`` and ``clip_model`` are the model's parts from elsewhere.
    """

    model: str = "nano"
    device: str = "auto"
    dtype: str = "auto"
    attention: str = "auto"
    offload: Offload = "none"
    vae: str | None = None
    vram: str | None = None
    transformer: str | None = None
    text_encoder: str | None = None
    clip_model: str | None = None
    quantise: str = "none"
    quantise_encoders: str = "none"
    trims: str = "all"

    @property
    def parts(self) -> dict[str, str]:
        """The parts from elsewhere that were named."""
        named = {name: getattr(self, name) for name in ("transformer", "text_encoder", "clip_model")}
        return {name: path for name, path in named.items() if path is not None}

    def __post_init__(self) -> None:
        _check_choice("dtype", self.dtype, DTYPES)
        _check_choice("attention backend", self.attention, ATTENTIONS)
        _check_choice("offload", self.offload, OFFLOADS)
        for kind in (self.quantise, self.quantise_encoders):
            _check_choice("quantisation", kind, QUANTISATIONS)
        read_trims(self.trims)


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise DeviceError(f"unknown {name} {value!r}; choose one of {', '.join(allowed)}")


def read_model(model: str | None, transformer: str | None) -> str:
    """The model that was named, else the transformer's file itself, else nano.

    A transformer alone is its own model, because its settings (system prompts, presets) are not nano's.
    """
    return model or transformer or ModelChoice.model


def read_offload(text: str) -> Offload:
    """One of none, encoders, model, blocks, auto; an empty text is model."""
    _check_choice("offload", text or "model", OFFLOADS)
    return cast(Offload, text or "model")


def read_seed(text: str) -> int:
    """A seed from its text; `random` draws one below 2^32, short enough to be copied by hand."""
    if text.strip().lower() == "random":
        return secrets.randbelow(2**32)
    try:
        seed = int(text)
    except ValueError:
        seed = -1
    if not 0 <= seed <= MAX_SEED:
        raise RequestError(
            f"seed {text!r} is not allowed; give random or a whole number from 0 to {MAX_SEED} (2^63 − 1)"
        )
    return seed


def read_resolution(text: str) -> tuple[int, int]:
    """Width and height from `WxH`."""
    width, cross, height = text.lower().replace("×", "x").replace("*", "x").partition("x")
    try:
        size = int(width), int(height)
    except ValueError:
        size = (0, 0)
    if not cross or min(size) <= 0:
        raise RequestError(f"resolution {text!r} is not understood; give width x height, as in 256x256")
    GenerationRequest("", width=size[0], height=size[1])
    return size


def read_prompt(prompt: str | None, prompt_file: str | None) -> str:
    """The prompt from the argument, a file, or standard input (`-`), to the letter.

    Raises:
        RequestError: none or both were given.
        PromptError: the file cannot be read, is too long or is not UTF-8.
    """
    if (prompt is None) == (prompt_file is None):
        given = "none was" if prompt is None else "both were"
        raise RequestError(f"{given} given; give either a PROMPT or --prompt-file FILE (- is standard input)")
    if prompt is not None and prompt != "-":
        return prompt
    return read_text("-" if prompt_file is None else prompt_file)


def read_text(name: str) -> str:
    """A text file or standard input (`-`), with its line ends as they are."""
    shown = "standard input" if name == "-" else name
    try:
        if name == "-":
            data = sys.stdin.buffer.read(MAX_PROMPT_BYTES + 1)
        else:
            with Path(name).open("rb") as file:
                data = file.read(MAX_PROMPT_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = (
            os.strerror(error.errno).lower() if isinstance(error, OSError) and error.errno else str(error)
        )
        raise PromptError(f"cannot read the prompt from {shown}: {reason}; check the name") from None
    if len(data) > MAX_PROMPT_BYTES:
        raise PromptError(f"{shown} is longer than {MAX_PROMPT_BYTES} bytes; a prompt is far shorter")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise PromptError(
            f"{shown} is not UTF-8 (byte 0x{data[error.start]:02x} in line {line}); save it as UTF-8"
        ) from None


def plan_paths(out: str | None, seeds: list[int], *, fallback: str = "newbie") -> list[Path]:
    """Where the pictures will lie. Looks now whether they can be written, before any work is done.

    Args:
        out: a file, a folder (one that exists, or ends in a slash and is made), or None for the current
            folder.
        seeds: one a picture.
        fallback: beginning of the names where only a folder is known.

    Raises:
        OutputError: a place that cannot be written.
    """
    from newbie_image.provenance import check_writable

    if out is not None and not (out.endswith(("/", os.sep)) or Path(out).is_dir()):
        file = Path(out)
        paths = [file] if len(seeds) == 1 else [file.with_stem(f"{file.stem}-{seed}") for seed in seeds]
    else:
        folder = Path(out or ".")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = os.strerror(error.errno).lower() if error.errno else str(error)
            raise OutputError(f"cannot make the folder {folder}: {reason}; give another path") from None
        paths = [_unused(folder, f"{fallback}-{seed}") for seed in seeds]
    for path in paths:
        check_writable(path)
    return paths


def _unused(folder: Path, stem: str) -> Path:
    path, number = folder / f"{stem}.png", 1
    while path.exists():
        number += 1
        path = folder / f"{stem}-{number}.png"
    return path
