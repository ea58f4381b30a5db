"""Checksums: each place in which one may lie, a flipped byte that is still a number, and what is no sum."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from newbie_image.bundle import find_bundle
from newbie_image.checkpoints.checksums import check_sums, read_sums, sums_of, write_sums
from newbie_image.checkpoints.inspection import check_model_sums, verify
from newbie_image.checkpoints.recognise import recognise
from newbie_image.cli.app import app
from newbie_image.errors import CheckpointError
from newbie_image.nano.export import write_bundle
from newbie_image.pipeline import NewbiePipeline

WEIGHTS = "vae/diffusion_pytorch_model.safetensors"


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def flip(file: Path, at: int = -2) -> None:
    """Change one bit of a number's fraction: the file stays sound in everything but its sum."""
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)


def sidecar(file: Path) -> None:
    file.with_name(file.name + ".sha256").write_text(f"{sha256(file)}  {file.name}\n")


def hub_record(file: Path) -> None:
    record = file.parents[1] / ".cache" / "huggingface" / "download" / f"{WEIGHTS}.metadata"
    record.parent.mkdir(parents=True)
    record.write_text(f"{'0' * 40}\n{sha256(file)}\n1760000000.0\n")


def hub_record_of_git(file: Path) -> None:
    hub_record(file)
    record = next(file.parents[1].rglob("*.metadata"))
    header = f"blob {file.stat().st_size}\0".encode()
    git = hashlib.sha1(header + file.read_bytes(), usedforsecurity=False).hexdigest()
    record.write_text(f"{'0' * 40}\n{git}\n1760000000.0\n")


def hub_cache(file: Path) -> None:
    blob = file.parents[1] / "blobs" / sha256(file)
    blob.parent.mkdir()
    file.rename(blob)
    file.symlink_to(blob)


def list_beside(file: Path) -> None:
    write_sums(file.parent, sums_of(file.parent, [file]))


def list_above(file: Path) -> None:
    write_sums(file.parents[1], sums_of(file.parents[1], [file]))


def in_metadata(key: str, before: str) -> Callable[[Path], None]:
    def write(file: Path) -> None:
        state = load_file(file)
        save_file(state, file)
        data = file.read_bytes()
        behind = data[8 + int.from_bytes(data[:8], "little") :]
        save_file(state, file, {key: before + hashlib.sha256(behind).hexdigest()})

    return write


PLACES = {
    "SHA256SUMS beside": (list_beside, "SHA256SUMS"),
    "SHA256SUMS above": (list_above, "SHA256SUMS"),
    "FILE.sha256": (sidecar, "diffusion_pytorch_model.safetensors.sha256"),
    "record of a download": (hub_record, "huggingface_hub's record"),
    "record of a download, git's name": (hub_record_of_git, "huggingface_hub's record"),
    "cache": (hub_cache, "huggingface_hub's cache"),
    "metadata": (in_metadata("modelspec.hash_sha256", "0x"), "modelspec.hash_sha256 in its metadata"),
    "kohya's metadata": (in_metadata("sshs_model_hash", ""), "sshs_model_hash in its metadata"),
}


@pytest.fixture
def copy(tmp_path: Path, tiny_bundle: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "copy"))


@pytest.mark.parametrize("place", PLACES)
def test_a_flipped_bit_is_found_by_the_sum_in_each_place(copy: Path, place: str) -> None:
    write, source = PLACES[place]
    file = copy / WEIGHTS
    write(file)
    report = check_model_sums(recognise(copy))
    assert report.wrong == ()
    assert report.checked == {source: 1}
    assert report.unknown == 3
    flip(file.resolve())
    lines = list(verify(recognise(copy)))
    assert len(lines) == 1
    assert str(file) in lines[0]
    assert source in lines[0]
    assert "\n" not in lines[0]


def test_without_a_sum_a_flipped_bit_is_not_found_and_the_command_says_that_none_is_known(copy: Path) -> None:
    flip(copy / WEIGHTS)
    assert list(verify(recognise(copy))) == []
    said = CliRunner().invoke(app, ["weights", "verify", str(copy)])
    assert said.exit_code == 0
    assert "all sound; no checksums known" in said.output


@pytest.mark.parametrize(
    "name",
    [
        "transformer/diffusion_pytorch_model-00002-of-00003.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
        "tokenizer/tokenizer.json",
        "text_encoder/config.json",
    ],
)
def test_the_embedded_model_carries_its_own(tmp_path: Path, name: str) -> None:
    nano = find_bundle("nano")
    whole = {
        path.relative_to(nano).as_posix()
        for folder in nano.iterdir()
        if folder.is_dir()
        for path in folder.iterdir()
    }
    assert read_sums(nano / "SHA256SUMS").keys() == whole
    shutil.copy(nano / "SHA256SUMS", tmp_path)
    place = tmp_path / name
    place.parent.mkdir()
    shutil.copy(nano / name, place)
    assert check_sums([place]).checked == {"SHA256SUMS": 1}
    flip(place, place.stat().st_size // 2)
    assert len(check_sums([place]).wrong) == 1


def test_a_flipped_byte_of_the_embedded_model_leaves_with_exit_code_2(tmp_path: Path) -> None:
    model = Path(shutil.copytree(find_bundle("nano"), tmp_path / "nano"))
    flip(model / WEIGHTS)
    said = CliRunner().invoke(app, ["weights", "verify", str(model)])
    assert said.exit_code == 2
    assert said.stderr.count("\n") == 1
    assert said.stderr.startswith(f"error: {model / WEIGHTS} has the checksum ")
    assert "SHA256SUMS says" in said.stderr


def test_a_file_that_a_list_names_has_to_be_there(copy: Path) -> None:
    files = [copy / WEIGHTS, copy / "vae" / "config.json"]
    write_sums(copy, {**sums_of(copy, files), "elsewhere/a.safetensors": "0" * 64})
    files[1].unlink()
    wrong = check_model_sums(recognise(copy)).wrong
    assert len(wrong) == 1
    assert f"{files[1]} is missing" in wrong[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("what is this\n", ("line 1", "no checksum")),
        (f"{'0' * 64}  ../outside\n", ("outside of its folder",)),
        (f"# list\n{'0' * 64}  /etc/passwd\n", ("line 2", "outside of its folder")),
    ],
)
def test_a_list_that_is_none_is_one_line(copy: Path, text: str, words: tuple[str, ...]) -> None:
    (copy / "SHA256SUMS").write_text(text)
    lines = list(verify(recognise(copy)))
    assert len(lines) == 1
    assert all(word in lines[0] for word in (str(copy / "SHA256SUMS"), *words))


def test_a_list_keeps_what_it_says_of_others_and_is_as_sha256sum_writes_it(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"b")
    write_sums(tmp_path, sums_of(tmp_path, [tmp_path / "b"]))
    write_sums(tmp_path, sums_of(tmp_path, [tmp_path / "a"]))
    ours = (tmp_path / "SHA256SUMS").read_bytes()
    assert ours == f"{sha256(tmp_path / 'a')}  a\n{sha256(tmp_path / 'b')}  b\n".encode()
    (tmp_path / "SHA256SUMS").write_text(f"{sha256(tmp_path / 'a').upper()} *a\n")
    assert check_sums([tmp_path / "a"]).checked == {"SHA256SUMS": 1}


def test_a_sum_that_is_none_beside_a_file_is_said(copy: Path) -> None:
    (copy / f"{WEIGHTS}.sha256").write_text("abc")
    with pytest.raises(CheckpointError, match="64 digits"):
        check_sums([copy / WEIGHTS])


def test_a_bundle_that_a_training_writes_has_sums_of_all_its_parts(tiny_bundle: Path, tmp_path: Path) -> None:
    write_bundle(NewbiePipeline.from_pretrained(tiny_bundle), tmp_path / "out")
    report = check_model_sums(recognise(tmp_path / "out"))
    parts = [file for file in (tmp_path / "out").glob("*/*") if file.parent.name != "scheduler"]
    assert report.wrong == ()
    assert report.checked == {"SHA256SUMS": len(parts)}
