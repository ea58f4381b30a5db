"""`newbie replay`: make a picture again from its own metadata, and say whether it is the same to the bit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from newbie_image.cli import lora as adapters
from newbie_image.cli import options
from newbie_image.provenance import PictureRecord, hash_pixels, read_picture

if TYPE_CHECKING:
    from PIL.Image import Image

replay_app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Difference:
    """How far two pictures of one size are apart.

    Args:
        pixels: share of the pixels that differ, 0 to 1.
        largest: largest difference of a channel, 0 to 255.
        psnr: peak signal to noise ratio in dB; infinite when they are the same.
    """

    pixels: float
    largest: int
    psnr: float


@replay_app.command(cls=options.OffloadCommand)
def replay(
    picture: Annotated[Path, typer.Argument(metavar="PICTURE.png", help="A PNG written by newbie-image.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE.png", help="Also write the new picture.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", metavar="NAME|PATH", help="Where the bundle lies now.")
    ] = None,
    device: options.DeviceOption = "auto",
    dtype: Annotated[
        str | None, typer.Option("--dtype", help="Instead of the recorded number format.")
    ] = None,
    attention: Annotated[
        str | None, typer.Option("--attention", help="Instead of the recorded kernel.")
    ] = None,
    offload: options.OffloadOption = "none",
    vram: options.VramOption = None,
    vae: options.VaeOption = None,
    transformer: options.TransformerOption = None,
    text_encoder: options.TextEncoderOption = None,
    clip_model: options.ClipModelOption = None,
    quantise: Annotated[
        str | None, typer.Option("--quantise", help="Instead of the recorded format of the weights.")
    ] = None,
    quantise_encoders: Annotated[
        str | None, typer.Option("--quantise-encoders", help="Instead of the text encoders' recorded format.")
    ] = None,
    trims: Annotated[str | None, typer.Option("--trims", help="Instead of the recorded ones.")] = None,
    lora: Annotated[
        list[str] | None,
        typer.Option("--lora", metavar="FILE", help="Where a recorded adapter lies now; may be repeated."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Answer as one JSON object.")] = False,
) -> None:
    """Make a picture again from its own metadata. Exit code 0: the same to the bit, 1: it differs."""
    from newbie_image.cli.drawing import draw
    from newbie_image.cli.loading import load_model
    from newbie_image.cli.messages import say_note
    from newbie_image.provenance import check_writable, record_picture, write_picture

    before, record = read_picture(picture)
    if out is not None:
        check_writable(out)
    if hash_pixels(before) != record.pixels:
        say_note("the picture was changed after it was made: its pixels are not those of its record")
    vae = vae or _recorded_vae(record)
    parts = {"transformer": transformer, "text_encoder": text_encoder, "clip_model": clip_model}
    _check_parts(record, parts)
    loaded = load_model(
        options.ModelChoice(
            model=model or transformer or record.bundle.name,
            device=device,
            dtype=dtype or record.environment.get("dtype", "auto"),
            attention=attention or record.environment.get("attention", "auto"),
            offload=options.read_offload(offload),
            vae=vae,
            vram=vram,
            quantise=quantise or record.environment.get("quantise", "none"),
            quantise_encoders=quantise_encoders or record.environment.get("quantise_encoders", "none"),
            trims=trims or record.environment.get("trims", "all"),
            **parts,
        ),
        adapters.find_recorded(record.adapters, lora or (), (Path(), picture.parent)),
    )
    if any(use.fused for use in record.adapters):
        loaded.pipeline.fuse_lora()
    _take_threads(record)
    drawn = draw(loaded.pipeline, record.request, label="replaying")
    again = drawn.pictures[record.index]
    made = record_picture(again, record.request)
    if out is not None:
        write_picture(out, again.image, made)
    same = again.image.tobytes() == before.tobytes()
    difference = None if same else compare(before, again.image)
    causes = [] if same else changed_since(record, made)
    if as_json:
        answer: dict[str, object] = {"path": str(picture), "identical": same, "pixels_sha256": record.pixels}
        if difference is not None:
            answer |= {"replayed_sha256": hash_pixels(again.image), "differing_pixels": difference.pixels}
            answer |= {"largest_difference": difference.largest, "psnr": round(difference.psnr, 2)}
            answer["changed_since"] = causes
        print(json.dumps(answer, ensure_ascii=False))
    elif same:
        print(f"identical: {picture} was made again to the bit (pixels sha256 {record.pixels})")
    else:
        print(describe(picture, difference, causes))
    raise typer.Exit(0 if same else 1)


def _check_parts(record: PictureRecord, given: Mapping[str, str | None]) -> None:
    """Ask for the parts from elsewhere that drew the picture, of which only names are recorded."""
    from newbie_image.errors import CheckpointError

    for part, path in given.items():
        recorded = record.environment.get(part)
        if recorded is not None and path is None:
            raise CheckpointError(
                f"the picture was drawn with the {part} {recorded.partition(' ')[0]!r}, of which no path is "
                f"recorded; say where it is with --{part.replace('_', '-')} PATH"
            )


def _recorded_vae(record: PictureRecord) -> str | None:
    """The VAE from elsewhere that drew the picture, by its name; None for the model's own."""
    from newbie_image.checkpoints.vae_registry import find_vae
    from newbie_image.errors import CheckpointError

    name = record.environment.get("vae")
    if name is not None:
        try:
            find_vae(name)
        except CheckpointError as error:
            raise CheckpointError(
                f"the picture was drawn with the VAE {name!r}, of which no path is recorded; say where it is "
                f"with --vae PATH ({error})"
            ) from None
    return name


def _take_threads(record: PictureRecord) -> None:
    """Compute with the recorded number of threads: sums are split by it, so their last bits depend on it."""
    import os

    import torch

    recorded = record.environment.get("threads", "")
    if recorded.isdecimal() and 1 <= int(recorded) <= 8 * (os.cpu_count() or 1):
        torch.set_num_threads(int(recorded))


def compare(one: Image, other: Image) -> Difference | None:
    """How far two pictures are apart; None when their sizes differ."""
    import numpy as np

    if one.size != other.size:
        return None
    a, b = (np.asarray(image.convert("RGB"), dtype=np.int16) for image in (one, other))
    apart = np.abs(a - b)
    mean_square = float((apart.astype(np.float64) ** 2).mean())
    psnr = float("inf") if mean_square == 0 else 10 * float(np.log10(255**2 / mean_square))
    return Difference(float((apart.max(axis=2) > 0).mean()), int(apart.max()), psnr)


def changed_since(record: PictureRecord, made: PictureRecord) -> list[str]:
    """What is different now from when the picture was made, each as `name was → is`."""
    changes = []
    if made.bundle.content_hash != record.bundle.content_hash:
        changes.append(f"bundle {record.bundle.name} has other content")
    for then, now in ((record.versions, made.versions), (record.environment, made.environment)):
        for name in sorted({*then, *now}):
            if then.get(name) != now.get(name):
                changes.append(f"{name} {then.get(name, 'none')} → {now.get(name, 'none')}")
    return changes


def describe(picture: Path, difference: Difference | None, causes: list[str]) -> str:
    """The answer for a picture that differs, in one line."""
    if difference is None:
        how = "it has another size than its record says"
    else:
        how = (
            f"{difference.pixels:.1%} of the pixels, at most {difference.largest} of 255, "
            f"{difference.psnr:.1f} dB PSNR"
        )
    why = "; ".join(causes) if causes else "nothing that is recorded has changed"
    return f"differs: {picture}: {how}. Since it was made: {why}"
