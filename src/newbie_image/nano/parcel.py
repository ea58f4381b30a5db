"""A trained bundle packed to travel: every file of a folder in a few numbered parts of limited size.

bfloat16 weights are stored as two streams, all high bytes (sign and exponent, which compress to a fifth) and
all low bytes: 70 % of the size, without loss. Each file's SHA-256 is kept and checked.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zlib
from pathlib import Path
from typing import Any, Final

from newbie_image.errors import CheckpointError

MAGIC: Final = b"newbie parcel 1\n"
PART: Final = 15 * 2**20
"""Bytes of a part."""
STEM: Final = "parcel"


def pack(folder: Path, out: Path, *, part: int = PART) -> list[Path]:
    """Packs all files under `folder` into `out/parcel-00`, `out/parcel-01`, …, which replace older ones.

    Args:
        folder: what to pack.
        out: where the parts go.
        part: bytes of a part at most.
    Raises:
        CheckpointError: the folder has no files.
    """
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    if not files:
        raise CheckpointError(f"{folder} has no files to pack; name a bundle's folder")
    entries: list[dict[str, Any]] = []
    data: list[bytes] = []
    for file in files:
        raw = file.read_bytes()
        planes = file.suffix == ".safetensors"
        streams = [raw[1::2], raw[0::2]] if planes else [raw]
        packed = [_compressed(stream, planes) for stream in streams[:1]] + streams[1:]
        entries.append(
            {
                "path": file.relative_to(folder).as_posix(),
                "bytes": len(raw),
                "sha256": hashlib.sha256(raw).hexdigest(),
                "streams": [len(stream) for stream in packed],
            }
        )
        data += packed
    header = json.dumps(entries).encode()
    whole = b"".join([MAGIC, len(header).to_bytes(8, "little"), header, *data])
    cut = [whole[start : start + part] for start in range(0, len(whole), part)]
    out.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for number, content in enumerate(cut):
        written.append(out / f"{STEM}-{number:02d}")
        written[-1].write_bytes(content)
    for old in sorted(out.glob(f"{STEM}-[0-9][0-9]"))[len(cut) :]:
        old.unlink()
    return written


def unpack(parts: Path, folder: Path) -> None:
    """Writes what was packed into `folder`, which is replaced when all of it is there and right.

    Args:
        parts: folder of the numbered parts.
        folder: where the files go.
    Raises:
        CheckpointError: no parcel, a part is missing, or a file's checksum differs.
    """
    found = sorted(parts.glob(f"{STEM}-[0-9][0-9]"))
    whole = b"".join(file.read_bytes() for file in found)
    if not whole.startswith(MAGIC):
        raise CheckpointError(f"{parts} holds no parcel; give the folder with parcel-00, parcel-01, …")
    start = len(MAGIC) + 8
    length = int.from_bytes(whole[len(MAGIC) : start], "little")
    entries: list[dict[str, Any]] = json.loads(whole[start : start + length])
    place = start + length
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    for entry in entries:
        streams: list[bytes] = []
        for size in entry["streams"]:
            if place + size > len(whole):
                raise CheckpointError(
                    f"{parts} has {len(found)} parts, which end inside {entry['path']}; copy the missing ones"
                )
            stream = whole[place : place + size]
            streams.append(stream if streams else zlib.decompress(stream))
            place += size
        raw = bytearray(entry["bytes"])
        if len(streams) == 2:
            raw[1::2], raw[0::2] = streams
        else:
            raw[:] = streams[0]
        if hashlib.sha256(raw).hexdigest() != entry["sha256"]:
            raise CheckpointError(
                f"{entry['path']} in {parts} has another checksum (parts of two saves?); copy all parts again"
            )
        target = partial / entry["path"]
        if not target.resolve().is_relative_to(partial.resolve()):
            raise CheckpointError(f"{parts} names {entry['path']!r}, outside its folder; do not use it")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(raw)
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)


def _compressed(stream: bytes, bytes_of_weights: bool) -> bytes:
    # Exponents repeat singly, never in runs: looking for runs costs time and finds nothing.
    strategy = zlib.Z_HUFFMAN_ONLY if bytes_of_weights else zlib.Z_DEFAULT_STRATEGY
    packer = zlib.compressobj(6, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, strategy)
    return packer.compress(stream) + packer.flush()
