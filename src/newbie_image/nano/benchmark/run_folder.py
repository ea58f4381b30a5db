"""The folder of a run: settings, one JSON line a picture, one a reading, and the pictures that are kept.

`run.json` says what everything in the folder was made with; a run goes on only as what it was. A line that
was cut short when a run was stopped is dropped, and its picture is made again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from newbie_image.errors import ConfigError
from newbie_image.nano.benchmark.arms import Arm
from newbie_image.nano.benchmark.reading import PictureReading


@dataclass(frozen=True)
class PictureLine:
    """One picture that was drawn.

    Args:
        arm, key: whose it is; the key is the prompt's.
        file: its place in the folder; None where only its reading was kept.
        text: the prompt as it was given, and `seed` its noise.
        cut: whether the end of the text did not fit.
    """

    arm: str
    key: str
    file: str | None
    text: str
    seed: int
    cut: bool


@dataclass(frozen=True)
class ReadingLine:
    """What was read in one picture, by the evaluator of that sha256; `seam` is guards.seam_ratio and `look`
    guards.look_of, None in readings from before it was kept."""

    arm: str
    key: str
    evaluator: str
    seam: float | None
    reading: PictureReading
    look: str | None = None


class RunFolder:
    """A folder of one run.

    Args:
        folder: made where it is missing.
        settings: what pictures are made with: model, sampling, sizes. Plain JSON values.

    Raises:
        ConfigError: the folder holds a run with other settings, and which.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._note = folder / "run.json"
        wanted = json.loads(json.dumps(settings))
        there = self._read_note()
        for name, value in wanted.items():
            if there and there["settings"].get(name) != value:
                raise ConfigError(
                    f"{folder} holds a run with {name} {there['settings'].get(name)!r}, not {value!r}; "
                    "name another folder with --out, or run with the same settings"
                )
        self._state: dict[str, Any] = there or {"settings": wanted, "arms": {}, "sets": {}, "skipped": {}}
        self._write_note()

    @property
    def state(self) -> Mapping[str, Any]:
        """`settings`, `arms` (name → record), `sets` (name → sha256), `skipped` (arm and set → reason)."""
        return self._state

    def add_arm(self, arm: Arm) -> None:
        """Notes an arm's record.

        Raises:
            ConfigError: the folder has pictures of another arm of that name.
        """
        record = json.loads(json.dumps(asdict(arm)))
        there = self._state["arms"].setdefault(arm.name, record)
        if there != record:
            raise ConfigError(
                f"{self.folder} has pictures of another arm {arm.name!r} ({there}); name another folder "
                "with --out"
            )
        self._write_note()

    def add_sets(self, hashes: Mapping[str, str]) -> None:
        """Notes the sha256 of the prompt sets.

        Raises:
            ConfigError: the folder has pictures of a set of that name with another sha256.
        """
        for name, value in hashes.items():
            if self._state["sets"].setdefault(name, value) != value:
                raise ConfigError(
                    f"{self.folder} has pictures of another prompt set {name!r} (sha256 "
                    f"{self._state['sets'][name][:16]}…, not {value[:16]}…); name another folder with --out"
                )
        self._write_note()

    def set_skipped(self, arm: str, kind: str, reason: str | None) -> None:
        """Notes why an arm is not drawn on a set, or, with None, that it is."""
        name = f"{arm} on {kind}"
        if reason is None:
            self._state["skipped"].pop(name, None)
        else:
            self._state["skipped"][name] = reason
        self._write_note()

    def lines(self) -> dict[tuple[str, str], PictureLine]:
        """(arm, key) → the line of each picture that was drawn, be it kept or not."""
        lines = [PictureLine(**data) for data in self._lines("pictures.jsonl")]
        return {(line.arm, line.key): line for line in lines}

    def pictures(self) -> dict[tuple[str, str], PictureLine]:
        """(arm, key) → the line of each picture that is in the folder."""
        return {
            pair: line
            for pair, line in self.lines().items()
            if line.file is not None and (self.folder / line.file).exists()
        }

    def add(self, pictures: Sequence[PictureLine], readings: Sequence[ReadingLine]) -> None:
        """Writes the lines of pictures, whose files are there where they are kept, and of their readings."""
        self._append("pictures.jsonl", [asdict(line) for line in pictures])
        self._append(
            "readings.jsonl", [{**vars(line), "reading": line.reading.as_json()} for line in readings]
        )

    def read_by(self, evaluator: str) -> set[tuple[str, str]]:
        """(arm, key) of what the evaluator of that sha256 has read."""
        return {
            (data["arm"], data["key"])
            for data in self._lines("readings.jsonl")
            if data["evaluator"] == evaluator
        }

    def readings(self, evaluator: str) -> dict[tuple[str, str], ReadingLine]:
        """(arm, key) → what the evaluator of that sha256 read; other evaluators' readings are left out."""
        return {
            (data["arm"], data["key"]): ReadingLine(
                data["arm"],
                data["key"],
                data["evaluator"],
                data["seam"],
                PictureReading.from_json(data["reading"]),
                data.get("look"),
            )
            for data in self._lines("readings.jsonl")
            if data["evaluator"] == evaluator
        }

    def _read_note(self) -> dict[str, Any]:
        if not self._note.exists():
            return {}
        try:
            return json.loads(self._note.read_text())
        except ValueError:
            raise ConfigError(
                f"{self._note} is damaged; remove the folder or name another with --out"
            ) from None

    def _write_note(self) -> None:
        partial = self._note.with_suffix(".partial")
        partial.write_text(json.dumps(self._state, indent=1) + "\n")
        partial.replace(self._note)

    def _append(self, name: str, lines: Sequence[Mapping[str, Any]]) -> None:
        with (self.folder / name).open("a") as file:
            file.write("".join(json.dumps(data) + "\n" for data in lines))

    def _lines(self, name: str) -> list[dict[str, Any]]:
        """The whole lines of a file. A last one that was cut short is taken off, so that the next one does
        not go on behind it."""
        file = self.folder / name
        if not file.exists():
            return []
        content = file.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            with file.open("r+b") as cut:
                cut.truncate(whole)
        try:
            return [json.loads(line) for line in content[:whole].splitlines() if line.strip()]
        except ValueError:
            raise ConfigError(f"{file} is damaged; remove it, and what it lists is made again") from None


def read_folder(folder: Path) -> RunFolder:
    """The folder of a run as it is.

    Raises:
        ConfigError: there is none.
    """
    note = folder / "run.json"
    if not note.exists():
        raise ConfigError(f"{note} is not there; name the folder of a run with --out")
    try:
        settings = json.loads(note.read_text())["settings"]
    except (ValueError, KeyError):
        settings = {}
    return RunFolder(folder, settings)


def write_picture(file: Path, picture: np.ndarray) -> None:
    """Writes a picture (height, width, 3) uint8 as a PNG that is there whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    Image.fromarray(picture).save(partial, format="PNG", compress_level=1)
    partial.replace(file)


def load_picture(file: Path) -> np.ndarray:
    """A picture as (height, width, 3) uint8."""
    with Image.open(file) as picture:
        return np.asarray(picture.convert("RGB"))
