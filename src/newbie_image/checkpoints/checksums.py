"""Checksums that came with a model's files, and whether the files still have them.

No sum of the published weights is known here, and none is made up. A sum is known where one of these lies
with a file:

=====================================  ====================================================================
where                                  what it is
=====================================  ====================================================================
``SHA256SUMS`` and the like            as ``sha256sum`` writes it, in the file's folder or up to two above;
                                       the embedded model has one, `newbie weights download` writes one
``FILE.sha256``                        the same for one file
``.cache/huggingface/download``        huggingface_hub's record of a download into a folder: SHA-256 of large
                                       files, git's name (SHA-1) of small ones
``blobs/NAME``                         huggingface_hub's cache calls a file by that sum
metadata of a safetensors file         ``modelspec.hash_sha256`` or ``sshs_model_hash``: SHA-256 of the data
                                       behind the header
=====================================  ====================================================================
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from newbie_image.bundle import WEIGHT_SUFFIXES, reading
from newbie_image.checkpoints.files import read_header
from newbie_image.checkpoints.recognise import Checkpoint
from newbie_image.errors import CheckpointError

SUMS_FILE = "SHA256SUMS"
SUMS_FILES = (SUMS_FILE, "SHA256SUMS.txt", "sha256sums.txt", "checksums.sha256")
HUB_RECORD = ".cache/huggingface/download"
DATA_KEYS = ("modelspec.hash_sha256", "sshs_model_hash")
_ABOVE = 2
_BLOCK = 2**20
_LINE = re.compile(r"\\?([0-9a-fA-F]{64}) [ *](.+)")
_SHA256, _SHA1 = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class KnownSum:
    """What a file should be.

    Args:
        kind: ``sha256`` of the file, ``git`` (SHA-1 over git's header and the file), or ``data`` (SHA-256 of
            a safetensors file behind its header).
        value: in lower case hexadecimal digits.
        source: who says it, for people.
    """

    kind: Literal["sha256", "git", "data"]
    value: str
    source: str


@dataclass(frozen=True)
class SumReport:
    """What came of the comparison.

    Args:
        checked: who gave a sum → how many files have theirs.
        unknown: weight files of which no sum is known.
        wrong: a line for each file that has another sum than it should, or is missing.
    """

    checked: Mapping[str, int]
    unknown: int
    wrong: tuple[str, ...]

    def line(self) -> str:
        """The good news in a few words."""
        if not self.checked:
            return "no checksums known"
        return "checksums right: " + ", ".join(
            f"{count} as {who} says" for who, count in self.checked.items()
        )


def check_sums(files: Iterable[Path], folders: Iterable[Path] = ()) -> SumReport:
    """Compare files with the sums that came with them; each such file is read once.

    Args:
        files: those of a model.
        folders: a file that a list names in one of these has to be there.

    Raises:
        CheckpointError: a list of sums cannot be read, or a file.
    """
    files, folders = list(dict.fromkeys(files)), set(folders)
    checked: dict[str, int] = {}
    unknown = 0
    wrong: list[str] = []
    for file in files:
        with reading(file):
            known = list(known_sums(file))
            made = _made(file, {each.kind for each in known})
        unknown += not known and file.suffix in WEIGHT_SUFFIXES
        for each in known:
            if made[each.kind] == each.value:
                checked[each.source] = checked.get(each.source, 0) + 1
            else:
                wrong.append(
                    f"{file} has the checksum {made[each.kind][:12]}…, but {each.source} says "
                    f"{each.value[:12]}…: it is damaged or was changed since; copy it again"
                )
    for sums in dict.fromkeys(found for folder in folders for found in _lists(folder)):
        for name in read_sums(sums):
            place = sums.parent / name
            if place.parent in folders and not place.exists():
                wrong.append(f"{place} is missing, but {sums} names it; copy it again")
    return SumReport(checked, unknown, tuple(wrong))


def model_files(checkpoint: Checkpoint) -> tuple[list[Path], list[Path]]:
    """The files of a model's parts and tokenizers, and the folders that are theirs alone."""
    folders = [*checkpoint.parts.values(), *checkpoint.tokenizers.values()]
    whole = list(dict.fromkeys(place for place in folders if place.is_dir()))
    single = [place for place in folders if place.is_file()]
    inside = [file for folder in whole for file in sorted(folder.iterdir()) if file.is_file()]
    return [*single, *(file for file in inside if not file.name.startswith("."))], whole


def known_sums(file: Path) -> Iterator[KnownSum]:
    """Every sum that is known of a file.

    Raises:
        CheckpointError: a list of sums is damaged.
    """
    for sums in _lists(file.parent):
        value = read_sums(sums).get(file.relative_to(sums.parent).as_posix())
        if value is not None:
            yield KnownSum("sha256", value, sums.name)
    beside = file.with_name(file.name + ".sha256")
    if beside.is_file():
        word = beside.read_text(encoding="utf-8", errors="replace").split()[:1]
        if not word or not _SHA256.fullmatch(word[0].lower()):
            raise CheckpointError(f"{beside} does not begin with a SHA-256 of 64 digits; mend or remove it")
        yield KnownSum("sha256", word[0].lower(), beside.name)
    for base in _above(file.parent):
        record = base / HUB_RECORD / f"{file.relative_to(base).as_posix()}.metadata"
        if record.is_file():
            lines = record.read_text(encoding="utf-8", errors="replace").splitlines()
            yield from _of_hub(lines[1].strip() if len(lines) > 1 else "", "huggingface_hub's record")
            break
    if file.is_symlink() and (blob := file.resolve()).parent.name == "blobs":
        yield from _of_hub(blob.name, "huggingface_hub's cache")
    if file.suffix == ".safetensors" and file.is_file():
        yield from _in_metadata(file)


def read_sums(path: Path) -> dict[str, str]:
    """A list as ``sha256sum`` writes it: the file's place below the list's folder → its sum.

    Raises:
        CheckpointError: a line is none, or names a place outside of the folder.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise CheckpointError(
                f'{path}, line {number}: {line[:40]!r} is no checksum; "SHA-256, two spaces, name" is needed'
            )
        name = PurePosixPath(match[2].replace("\\", "/"))
        if name.is_absolute() or ".." in name.parts:
            raise CheckpointError(f"{path}, line {number} names {match[2]!r}, outside of its folder; refused")
        found[name.as_posix()] = match[1].lower()
    return found


def write_sums(folder: Path, sums: Mapping[str, str]) -> Path:
    """Write ``SHA256SUMS``; what an older one says of other files is kept.

    Args:
        folder: where it goes.
        sums: a file's place below the folder, with ``/`` → its SHA-256.
    """
    path = folder / SUMS_FILE
    together = {**(read_sums(path) if path.is_file() else {}), **sums}
    lines = [f"{value}  {name}\n" for name, value in sorted(together.items())]
    path.write_text("".join(lines), encoding="utf-8", newline="\n")
    return path


def sums_of(folder: Path, files: Iterable[Path]) -> dict[str, str]:
    """The SHA-256 of files below a folder, as :func:`write_sums` takes them."""
    return {file.relative_to(folder).as_posix(): _made(file, {"sha256"})["sha256"] for file in files}


def _above(folder: Path) -> list[Path]:
    return [folder, *list(folder.parents)[:_ABOVE]]


def _lists(folder: Path) -> list[Path]:
    """The nearest list of each name, in a folder or above it."""
    found = (base / name for name in SUMS_FILES for base in _above(folder))
    return [path for path in found if path.is_file()]


def _of_hub(etag: str, source: str) -> Iterator[KnownSum]:
    if _SHA256.fullmatch(etag):
        yield KnownSum("sha256", etag, source)
    elif _SHA1.fullmatch(etag):
        yield KnownSum("git", etag, source)


def _in_metadata(file: Path) -> Iterator[KnownSum]:
    try:
        metadata = read_header(file).get("__metadata__", {})
    except CheckpointError:
        return  # what is wrong with its header is told where it is opened
    for key in DATA_KEYS:
        value = str(metadata.get(key, "")).lower().removeprefix("0x") if isinstance(metadata, dict) else ""
        if _SHA256.fullmatch(value):
            yield KnownSum("data", value, f"{key} in its metadata")


def _made(file: Path, kinds: set[str]) -> dict[str, str]:
    """A file's sums of some kinds, read once."""
    if not kinds:
        return {}
    size = file.stat().st_size
    with file.open("rb") as opened:
        made: dict[str, Any] = {"sha256": hashlib.sha256(), "data": hashlib.sha256()}
        made["git"] = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
        skip = 8 + int.from_bytes(opened.read(8), "little") if "data" in kinds else 0
        opened.seek(0)
        done = 0
        while block := opened.read(_BLOCK):
            for kind in kinds:
                made[kind].update(block[max(0, skip - done) :] if kind == "data" else block)
            done += len(block)
    return {kind: made[kind].hexdigest() for kind in kinds}
