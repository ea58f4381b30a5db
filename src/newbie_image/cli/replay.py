"""`newbie replay`: make a picture again from its own metadata, and say whether it is the same to the bit."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from newbie_image.cli import options
from newbie_image.cli.recorded import AskedModel, load_recorded
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
    from newbie_image.cli.messages import say_note
    from newbie_image.provenance import check_writable, record_picture, write_picture

    before, record = read_picture(picture)
    if out is not None:
        check_writable(out)
    if hash_pixels(before) != record.pixels:
        say_note("the picture was changed after it was made: its pixels are not those of its record")
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
    loaded = load_recorded(asked, record, picture, lora)
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
