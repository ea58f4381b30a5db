"""Files of a model from the network to the disk, going on where a broken connection left them.

The bytes of a file go into a hidden file beside its place, whose name has the content's checksum, and which
takes the file's name once size and checksum are right. A connection that breaks is opened again at the byte
where it broke; a run that was stopped is gone on with by the next one. (huggingface_hub's own downloader
keeps nothing of a file when a run ends, so it only says here what there is.)
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import os
import shutil
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from newbie_image.checkpoints.sources import Listing, RemoteFile, gated
from newbie_image.errors import CheckpointError, OutputError

TRIES: Final = 5
_BLOCK: Final = 2**20
_TIMEOUT: Final = 30.0
_SPARE: Final = 64 * 2**20
_BROKEN: Final = (
    http.client.HTTPException,
    ConnectionError,
    TimeoutError,
    ssl.SSLError,
    urllib.error.URLError,
)
_AGAIN: Final = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class DownloadProgress:
    """How far a download is.

    Args:
        path: the file at hand, as in the repository.
        stage: ``checking`` what is on the disk, or ``fetching``.
        done: bytes of all files that are on the disk.
        total: bytes of all files.
    """

    path: str
    stage: str
    done: int
    total: int


def download(listing: Listing, folder: Path, *, wait: float = 1.0) -> Iterator[DownloadProgress]:
    """Bring a model's files into a folder, one after another.

    Args:
        listing: from :func:`newbie_image.checkpoints.sources.list_files`; its licence was accepted.
        folder: made where it is missing; files that are whole in it are kept.
        wait: seconds before the second try of a broken connection; each next wait is twice as long.

    Yields:
        About every MiB.

    Raises:
        CheckpointError: the source refuses, breaks off TRIES times without a byte between, or sends other
            content than its checksum says.
        OutputError: the folder cannot be written, has no room, or has another file of a name.
    """
    check_room(listing, folder)
    done = 0
    try:
        for file in listing.files:
            place = folder / file.path
            if place.exists():
                yield from _progress(_check_present(place, file), file, "checking", done, listing.size)
            else:
                place.parent.mkdir(parents=True, exist_ok=True)
                for there in _fetch(listing, file, place, wait):
                    yield DownloadProgress(file.path, "fetching", done + there, listing.size)
            done += file.size
    except OSError as error:
        reason = "the disk is full" if error.errno == errno.ENOSPC else (error.strerror or str(error))
        raise OutputError(
            f"cannot write into {folder}: {reason.lower()}; make room or choose another --to, then run "
            "again: what is there is kept"
        ) from None


def check_room(listing: Listing, folder: Path) -> int:
    """How many bytes are still to come.

    Raises:
        OutputError: the disk has no room for them, with both sizes.
    """
    missing = 0
    for file in listing.files:
        place = folder / file.path
        part = _part(place, file, listing)
        have = file.size if place.exists() else part.stat().st_size if part.is_file() else 0
        missing += max(0, file.size - have)
    above = folder.absolute()
    while not above.exists():
        above = above.parent
    free = shutil.disk_usage(above).free
    if missing and missing + _SPARE > free:
        raise OutputError(
            f"{missing / 1e9:.2f} GB are still to come, but {above} has {free / 1e9:.2f} GB free; "
            "make room or choose another --to"
        )
    return missing


def _check_present(place: Path, file: RemoteFile) -> Iterator[int]:
    if not place.is_file() or place.stat().st_size != file.size:
        raise OutputError(
            f"{place} is there already and is not the file of {file.size} bytes that would come; "
            "move it away, or choose another --to"
        )
    digest = _Digest(file)
    yield from digest.read(place)
    if not digest.right():
        raise OutputError(
            f"{place} has the right size and another checksum, so it is damaged or another one; "
            "move it away and run again"
        )


def _fetch(listing: Listing, file: RemoteFile, place: Path, wait: float) -> Iterator[int]:
    part = _part(place, file, listing)
    have = part.stat().st_size if part.is_file() else 0
    if have > file.size:
        part.unlink()
        have = 0
    failures = 0
    reason = ""
    yield have
    while have < file.size or not part.exists():
        if failures:
            if failures == TRIES:
                raise CheckpointError(
                    f"{file.path} broke off at {have} of {file.size} bytes ({reason}), {TRIES} times; "
                    "run the same again to go on from there"
                )
            time.sleep(wait * 2 ** (failures - 1))
        before, reason = have, "the connection was closed"
        try:
            for size in _stream(listing, file, part, have):
                have = size
                yield have
        except _BROKEN as error:
            _refuse(error, listing, file)
            reason = " ".join(str(error).split())[:120] or type(error).__name__
            have = part.stat().st_size if part.is_file() else 0
        failures = 0 if have > before else failures + 1
    digest = _Digest(file)
    for _ in digest.read(part):
        pass
    if not digest.right():
        part.unlink()
        raise CheckpointError(
            f"{file.path} came with another checksum than {listing.source} says, so it is not kept; run "
            "the same again, or take another --source"
        )
    part.replace(place)


def _stream(listing: Listing, file: RemoteFile, part: Path, have: int) -> Iterator[int]:
    """One connection's bytes, appended; yields the size reached."""
    request = urllib.request.Request(file.url, headers={"User-Agent": "newbie-image"})
    for name, value in listing.headers.items():
        # Not sent on after a redirect: a mirror's storage must not see the token.
        request.add_unredirected_header(name, value)
    if have:
        request.add_header("Range", f"bytes={have}-")
    with _opener().open(request, timeout=_TIMEOUT) as answer:
        if have and answer.status != 206:
            have = 0  # the source does not resume; begin again rather than append what does not belong
        with part.open("ab" if have else "wb") as target:
            while block := answer.read(_BLOCK):
                target.write(block)
                have += len(block)
                if have > file.size:
                    raise CheckpointError(
                        f"{file.path} is longer than the {file.size} bytes that it should have; refused"
                    )
                yield have


class _SameHost(urllib.request.HTTPRedirectHandler):
    """Keeps a token over redirects within one host and drops it on the way to another."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        new = super().redirect_request(req, fp, code, msg, headers, newurl)
        if (
            new is not None
            and urllib.parse.urlsplit(newurl).netloc == urllib.parse.urlsplit(req.full_url).netloc
        ):
            for name, value in req.unredirected_hdrs.items():
                if name.lower() == "authorization":
                    new.add_unredirected_header(name, value)
        return new


def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_SameHost)


def _refuse(error: BaseException, listing: Listing, file: RemoteFile) -> None:
    """Turn an answer that another try will not change into an error."""
    if not isinstance(error, urllib.error.HTTPError) or error.code in _AGAIN:
        return
    host = urllib.parse.urlsplit(file.url)
    endpoint = f"{host.scheme}://{host.netloc}"
    if error.code in (401, 403):
        raise CheckpointError(gated(endpoint, listing.repository)) from None
    if error.code != 416:
        raise CheckpointError(
            f"{endpoint} answered {error.code} for {file.path} of {listing.repository}; run again later, or "
            "take another --source or mirror (HF_ENDPOINT)"
        ) from None


class _Digest:
    """A file's checksum, by whichever name the source gave for it."""

    def __init__(self, file: RemoteFile) -> None:
        self._file = file
        self._hash: Any = None
        if file.sha256 is not None:
            self._hash = hashlib.sha256()
        elif file.git is not None:
            self._hash = hashlib.sha1(f"blob {file.size}\0".encode(), usedforsecurity=False)

    def read(self, path: Path) -> Iterator[int]:
        """Take a file's bytes in; yields how many, where a checksum is known."""
        if self._hash is None:
            return
        done = 0
        with path.open("rb") as opened:
            while block := opened.read(8 * _BLOCK):
                self._hash.update(block)
                done += len(block)
                yield done

    def right(self) -> bool:
        """Whether it is the source's; true where the source says none."""
        return self._hash is None or self._hash.hexdigest() == (self._file.sha256 or self._file.git)


def _part(place: Path, file: RemoteFile, listing: Listing) -> Path:
    """Where a file's bytes wait: named after what they are, so that versions never mix."""
    mark = (file.sha256 or file.git or listing.revision)[:12].replace(os.sep, "-")
    return place.with_name(f".{place.name}.{mark}.part")


def _progress(
    sizes: Iterator[int], file: RemoteFile, stage: str, done: int, total: int
) -> Iterator[DownloadProgress]:
    for size in sizes:
        yield DownloadProgress(file.path, stage, done + size, total)
    yield DownloadProgress(file.path, stage, done + file.size, total)
