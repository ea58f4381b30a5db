"""`newbie weights`: what a model's files are, whether they are sound, and the model in another layout."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from newbie_image.cli.download import download
from newbie_image.cli.lora import read_loras
from newbie_image.cli.messages import one_line, say_error, say_warnings
from newbie_image.errors import CheckpointError

weights_app = typer.Typer(no_args_is_help=True, add_completion=False)
weights_app.command()(download)

PathArgument = Annotated[
    str, typer.Argument(metavar="PATH", help="A model's folder, a weight file, or an embedded model's name.")
]
TransformerOption = Annotated[
    Path | None, typer.Option("--transformer", help="The transformer, from elsewhere.")
]
TextEncoderOption = Annotated[Path | None, typer.Option("--text-encoder", help="Gemma 3, from elsewhere.")]
ClipModelOption = Annotated[Path | None, typer.Option("--clip-model", help="Jina CLIP v2, from elsewhere.")]
VaeOption = Annotated[Path | None, typer.Option("--vae", help="The VAE, from elsewhere.")]


@weights_app.command()
def inspect(
    path: PathArgument,
    transformer: TransformerOption = None,
    text_encoder: TextEncoderOption = None,
    clip_model: ClipModelOption = None,
    vae: VaeOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Say layout, parts, dtypes, sizes, metadata and what is missing, from headers alone.

    PATH may be an adapter.
    """
    from newbie_image.checkpoints.adapter_facts import adapter_facts, is_adapter
    from newbie_image.checkpoints.inspection import describe

    place = Path(path).expanduser()
    if not (transformer or text_encoder or clip_model or vae) and is_adapter(place):
        found = adapter_facts(place)
        if as_json:
            print(json.dumps(asdict(found) | {"path": str(found.path)}, ensure_ascii=False, indent=2))
            return
        print(f"{place}: adapter")
        for line in found.lines():
            print(f"  {one_line(line)}")
        return
    checkpoint = _find(path, transformer, text_encoder, clip_model, vae)
    parts = list(describe(checkpoint))
    if as_json:
        facts: dict[str, Any] = {
            "path": str(checkpoint.path),
            "layout": checkpoint.layout,
            "missing": list(checkpoint.missing),
            "tokenizers": {name: str(folder) for name, folder in checkpoint.tokenizers.items()},
            "parts": [asdict(part) | {"path": str(part.path)} for part in parts],
        }
        print(json.dumps(facts, ensure_ascii=False, indent=2))
        return
    print(f"{checkpoint.path}: layout {checkpoint.layout}")
    for part in parts:
        kinds = ", ".join(f"{count} {name}" for name, count in part.dtypes.items())
        print(
            f"  {part.name}: {part.parameters:,} parameters in {part.tensors} tensors ({kinds}), "
            f"{part.size / 1e6:,.1f} MB in {part.files} file(s), config from {part.config}, {part.path}"
        )
        if part.merged:
            print(f"    adapters in its weights: {', '.join(part.merged)}")
        if part.ignored:
            print(f"    {part.ignored} tensors that this model does not use (a vision tower, for example)")
        if part.name == "transformer" and "fp32" in part.dtypes and part.size > 12e9:
            print("    fp32: convert with --dtype bf16 for half the size")
        texts = [f"{key} {text}" for key, text in part.metadata.items() if (key, text) != ("format", "pt")]
        if texts:
            print("    metadata: " + one_line("; ".join(texts)))
        if part.misfit:
            print("    not loadable: " + one_line(part.misfit))
    for name in checkpoint.missing:
        print(f"  {name}: missing")


@weights_app.command()
def verify(
    path: PathArgument,
    transformer: TransformerOption = None,
    text_encoder: TextEncoderOption = None,
    clip_model: ClipModelOption = None,
    vae: VaeOption = None,
) -> None:
    """Check every name, shape and value, and known checksums; leaves with exit code 2 if anything is wrong.

    PATH may be one part alone: transformer, text encoder, VAE, or adapter (--transformer: for that one).
    """
    from newbie_image.checkpoints import inspection
    from newbie_image.checkpoints.single_part import is_single

    place = Path(path).expanduser()
    if is_single(place) and not (text_encoder or clip_model or vae):
        _verify_part(place, transformer)
        return
    checkpoint = _find(path, transformer, text_encoder, clip_model, vae)
    sums = inspection.check_model_sums(checkpoint)
    _tell_faults(inspection.verify(checkpoint, sums))
    what = f"layout {checkpoint.layout}, {len(checkpoint.parts)} parts"
    print(f"{checkpoint.path}: {what}, all sound; {sums.line()}")


def _verify_part(path: Path, transformer: Path | None) -> None:
    from newbie_image.checkpoints.single_part import verify_part

    verdict = verify_part(path, transformer)
    say_warnings(f"{path}: {note}" for note in verdict.notes)
    _tell_faults(f"{path} ({verdict.kind}): {line}" for line in verdict.wrong)
    naming = f" ({verdict.naming} names)" if verdict.naming else ""
    print(f"{path}: {verdict.kind}{naming}, sound; {verdict.sums.line()}")


def _tell_faults(lines: Iterable[str]) -> None:
    """An error line for each fault; leaves with exit code 2 after the last."""
    wrong = 0
    for line in lines:
        say_error(CheckpointError(line))
        wrong += 1
    if wrong:
        raise typer.Exit(2)


@weights_app.command()
def convert(
    path: PathArgument,
    target: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder to make.")],
    to: Annotated[str, typer.Option("--to", help="newbie, published, comfyui or diffusers.")],
    dtype: Annotated[
        str | None, typer.Option("--dtype", help="bf16, fp16 or fp32; as it is without.")
    ] = None,
    transformer: TransformerOption = None,
    text_encoder: TextEncoderOption = None,
    clip_model: ClipModelOption = None,
    vae: VaeOption = None,
) -> None:
    """Write the model in another layout, to the bit unless a dtype is given."""
    from newbie_image.checkpoints.convert import convert as write
    from newbie_image.devices import choose_device

    checkpoint = _find(path, transformer, text_encoder, clip_model, vae)
    kind = None if dtype is None else choose_device("cpu", dtype).dtype
    for file in write(checkpoint, target, to, kind):
        print(file)


@weights_app.command()
def merge(
    path: Annotated[
        str, typer.Argument(metavar="MODEL", help="The model, in any layout; it stays as it is.")
    ],
    lora: Annotated[
        list[str],
        typer.Option("--lora", metavar="FILE[:SCALE]", help="Adapter of any kind; may be repeated."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="The folder to make.")],
    to: Annotated[
        str | None,
        typer.Option("--to", help="newbie, published, comfyui or diffusers; the model's own without."),
    ] = None,
    dtype: Annotated[
        str | None, typer.Option("--dtype", help="bf16, fp16 or fp32; as it is without.")
    ] = None,
    transformer: TransformerOption = None,
    text_encoder: TextEncoderOption = None,
    clip_model: ClipModelOption = None,
    vae: VaeOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Write the model anew with adapters in its weights for good, each weight rounded once."""
    adapters = read_loras(lora)
    checkpoint = _find(path, transformer, text_encoder, clip_model, vae)

    from newbie_image.checkpoints.merging import merge_into_files
    from newbie_image.devices import choose_device

    kind = None if dtype is None else choose_device("cpu", dtype).dtype
    pairs = [(choice.path, choice.scale) for choice in adapters]
    report = merge_into_files(checkpoint, pairs, out, to, kind)
    warnings = [line for adapter in report.adapters for line in adapter.lines()]
    if as_json:
        facts = asdict(report) | {"files": [str(file) for file in report.files], "warnings": warnings}
        facts["adapters"] = [adapter.name for adapter in report.adapters]
        print(json.dumps(facts, ensure_ascii=False, indent=2))
        return
    say_warnings(warnings)
    for file in report.files:
        print(file)
    print(
        f"{report.weights} weights changed and rounded once to {', '.join(report.dtypes)}; "
        f"rounding is {report.rounding:.1e} of the change",
        file=sys.stderr,
    )


def _find(
    path: str, transformer: Path | None, text_encoder: Path | None, clip_model: Path | None, vae: Path | None
) -> Any:
    from newbie_image.checkpoints.opening import find_checkpoint

    given = {"transformer": transformer, "text_encoder": text_encoder, "clip_model": clip_model, "vae": vae}
    return find_checkpoint(path, {name: file for name, file in given.items() if file is not None})
