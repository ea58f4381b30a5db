"""The record in a picture survives the way through a PNG, and a damaged one is named."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import stat
import sys
from dataclasses import replace
from pathlib import Path

import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL.PngImagePlugin import PngInfo

from newbie_image import provenance
from newbie_image.errors import OutputError, ProvenanceError
from newbie_image.provenance import BundleIdentity, PictureRecord
from newbie_image.request import GeneratedImage, GenerationRequest

PROMPT = """<scene>
  <character_1>
    <n>水色, "minamo"</n>  <!-- version: 3b -->
\t<appearance>blue_hair, \\(hat\\), <3, >_<</appearance>
  </character_1>
</scene>
"""


def picture(seed: int = 0, size: tuple[int, int] = (32, 48)) -> PIL.Image.Image:
    return PIL.Image.frombytes("RGB", size, random.Random(seed).randbytes(size[0] * size[1] * 3))


USED = {
    "steps": 12,
    "sampler": "dpmpp_2m",
    "guidance_scale": 4.5,
    "shift": 6.0,
    "cfg_truncation": 1.0,
    "cfg_renorm": 0.0,
    "width": 32,
    "height": 48,
    "bundle": "nano",
    "bundle_hash": "sha256:" + "ab" * 32,
    "device": "cpu",
    "dtype": "fp32",
    "attention": "auto",
    "vae": None,
}


def record(image: PIL.Image.Image, prompt: str = PROMPT) -> PictureRecord:
    request = GenerationRequest(prompt, negative_prompt="blurry, 模糊", seed=7, count=3)
    return provenance.record_picture(GeneratedImage(image, 9, torch.zeros(16, 6, 4), USED), request)


def test_a_record_survives_the_png_to_the_letter(tmp_path: Path) -> None:
    image = picture()
    written = record(image)
    provenance.write_picture(tmp_path / "a.png", image, written)
    pixels, found = provenance.read_picture(tmp_path / "a.png")
    assert found == written
    assert found.request.prompt == PROMPT
    assert (found.request.steps, found.request.sampler, found.seed) == (12, "dpmpp_2m", 9)
    assert (found.request.seed, found.request.count, found.index) == (9, 1, 0)
    assert found.bundle == BundleIdentity("nano", "sha256:" + "ab" * 32)
    assert found.environment["dtype"] == "fp32"
    assert found.prompt_version == "3b"
    assert pixels.tobytes() == image.tobytes()
    assert provenance.hash_pixels(pixels) == found.pixels


@pytest.mark.parametrize(
    ("seed", "kept", "index"), [(10, (10, 3), 0), (12, (10, 3), 2), (13, (13, 3), 0), (16, (16, 1), 0)]
)
def test_of_a_request_only_the_pictures_own_batch_is_kept(
    seed: int, kept: tuple[int, int], index: int
) -> None:
    request = GenerationRequest("a", seed=10, count=7, batch=3)
    made = provenance.record_picture(GeneratedImage(picture(), seed, torch.zeros(1), USED), request)
    assert (made.request.seed, made.request.count) == kept
    assert (made.index, made.seed) == (index, seed)


def test_the_same_record_gives_the_same_bytes_and_no_clock_or_path(tmp_path: Path) -> None:
    image = picture()
    first = provenance.write_picture(tmp_path / "a.png", image, record(image))
    second = provenance.write_picture(tmp_path / "b.png", image, record(image))
    assert first == second
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert str(tmp_path).encode() not in (tmp_path / "a.png").read_bytes()


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=200), st.text(max_size=40))
def test_any_text_survives(prompt: str, negative: str) -> None:
    made = record(picture(size=(16, 16)))
    made = replace(made, request=replace(made.request, prompt=prompt, negative_prompt=negative))
    assert provenance.from_json(provenance.to_json(made)) == made
    assert provenance.encode_png(picture(size=(16, 16)), made).startswith(b"\x89PNG")


def test_half_an_emoji_survives(tmp_path: Path) -> None:
    image = picture()
    provenance.write_picture(tmp_path / "a.png", image, record(image, "half \ud83d"))
    assert provenance.read_picture(tmp_path / "a.png")[1].request.prompt == "half \ud83d"


def test_readers_of_a1111_parameters_find_the_settings(tmp_path: Path) -> None:
    image = picture()
    provenance.write_picture(tmp_path / "a.png", image, record(image))
    with PIL.Image.open(tmp_path / "a.png") as opened:
        text = opened.text["parameters"]  # type: ignore[attr-defined]
    # The reading rule of the web UI: the last line is `key: value` pairs, the negative starts with its label.
    *lines, last = text.split("\n")
    pairs = dict(re.findall(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)', last))
    assert len(pairs) >= 3
    assert pairs["Steps"] == "12"
    assert pairs["Sampler"] == "DPM++ 2M"
    assert pairs["CFG scale"] == "4.5"
    assert pairs["Seed"] == "9"
    assert pairs["Size"] == "32x48"
    assert pairs["Model"] == "nano"
    assert pairs["Model hash"] == "ababababab"
    negative = [line for line in lines if line.startswith("Negative prompt:")]
    assert negative == ["Negative prompt: blurry, 模糊"]
    assert "\n".join(lines[: lines.index(negative[0])]) == PROMPT.rstrip()


@pytest.mark.parametrize(
    ("binding", "shown"), [("auto", ", Binding: auto,"), ("full,layers=all", ', Binding: "full,layers=all",')]
)
def test_a_binding_is_quoted_once_and_where_it_must_be(binding: str, shown: str) -> None:
    made = record(picture())
    made = replace(made, request=replace(made.request, binding=binding))
    assert shown in provenance.parameters_text(made)


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ({}, "holds no record"),
        ({"parameters": "1girl\nSteps: 3, Seed: 1, Size: 8x8"}, "another program"),
        ({"workflow": "{}", "prompt": "{}"}, "another program"),
        ({"newbie": "{broken"}, "not JSON"),
        ({"newbie": "[" * 100_000}, "not JSON"),
        ({"newbie": "[1]"}, "no JSON object"),
        ({"newbie": '{"format": 99}'}, "has format 99"),
        ({"newbie": '{"format": 1}'}, "no entry 'request'"),
    ],
)
def test_a_picture_without_a_readable_record_is_named(
    tmp_path: Path, texts: dict[str, str], said: str
) -> None:
    info = PngInfo()
    for key, value in texts.items():
        info.add_text(key, value)
    picture().save(tmp_path / "a.png", pnginfo=info)
    with pytest.raises(ProvenanceError, match=re.escape(said)):
        provenance.read_picture(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"request": {"prompt": "a", "seed": -1}}, "seed -1"),
        ({"request": {"prompt": "a", "steps": "many"}}, "steps 'many'"),
        ({"request": {"prompt": 5}}, "prompt is no text"),
        ({"request": {"prompt": "a", "binding": None}}, "binding None"),
        ({"request": {"prompt": "a", "changes": [[3, "b"], [1, "c"]]}}, "steps from 1 and rising"),
        ({"request": {"prompt": "a", "colour": 1}}, "unknown settings: colour"),
        ({"request": {}}, "prompt"),
        ({"request": None}, "request is no object"),
        ({"index": True}, "index is True"),
        ({"bundle": {"name": "nano"}}, "content_hash"),
        ({"bundle": "nano"}, "object of texts"),
        ({"versions": {"torch": 2}}, "object of texts"),
    ],
)
def test_misshapen_entries_are_named(change: dict[str, object], said: str) -> None:
    document = json.loads(provenance.to_json(record(picture()))) | change
    with pytest.raises(ProvenanceError, match=re.escape(said)):
        provenance.from_json(json.dumps(document))


def test_other_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ProvenanceError, match="there is no picture"):
        provenance.read_picture(tmp_path / "none.png")
    with pytest.raises(ProvenanceError, match="is a directory"):
        provenance.read_picture(tmp_path)
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(ProvenanceError, match="is not a picture"):
        provenance.read_picture(tmp_path / "text.png")
    picture().save(tmp_path / "a.jpg")
    with pytest.raises(ProvenanceError, match="JPEG"):
        provenance.read_picture(tmp_path / "a.jpg")


def test_damaged_pngs_are_either_read_or_named(tmp_path: Path) -> None:
    image = picture(size=(16, 16))
    whole = provenance.encode_png(image, record(image))
    rng = random.Random(0)
    path = tmp_path / "a.png"
    for trial in range(150):
        data = bytearray(whole[: rng.randrange(len(whole))]) if trial % 2 else bytearray(whole)
        for _ in range(rng.randrange(4)):
            if data:
                data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(bytes(data))
        with contextlib.suppress(ProvenanceError):
            provenance.read_picture(path)


def test_unwritable_places_are_named_beforehand(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    for path, said in [
        (tmp_path / "none" / "a.png", "there is no folder"),
        (tmp_path / "a.jpg", "ends in .png"),
        (tmp_path / ("x" * 300 + ".png"), "file name too long"),
        (tmp_path / "folder.png", "it is a folder"),
        (Path("nul\0.png"), "null"),
    ]:
        with pytest.raises(OutputError, match=said):
            provenance.write_picture(path, picture(), record(picture()))
    with pytest.raises(OutputError, match="is a directory"):
        provenance.replace_file(tmp_path / "folder.png", b"data")
    assert [p.name for p in tmp_path.iterdir()] == ["folder.png"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(OutputError, match="no permission"):
        provenance.replace_file(tmp_path / "a.png", b"data")
    tmp_path.chmod(stat.S_IRWXU)


@pytest.mark.skipif(sys.platform == "win32", reason="no file size limits there")
def test_a_full_disk_leaves_nothing_behind_and_the_older_picture_whole(tmp_path: Path) -> None:
    import resource
    import signal

    path = tmp_path / "a.png"
    path.write_bytes(b"older")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OutputError, match="cannot write"):
            provenance.replace_file(path, bytes(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    assert path.read_bytes() == b"older"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_no_space_left_reads_as_a_full_disk() -> None:
    with (
        pytest.raises(OSError, match="No space") as caught,
        Path("/dev/full").open("wb", buffering=0) as file,
    ):
        file.write(b"x")
    assert provenance._reason(caught.value) == "the disk is full"
