"""A run's readings in order: by arm and set of prompts, with their pairs and the readers' own error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from newbie_image.nano.benchmark.correction import ReaderError, reader_errors
from newbie_image.nano.benchmark.dose_response import (
    DoseResponse,
    Spill,
    dose_response,
    has_attribute,
    spill,
)
from newbie_image.nano.benchmark.drawing import TAG_OF
from newbie_image.nano.benchmark.figures import EVALUATORS, table, table_by_attribute
from newbie_image.nano.benchmark.intervals import Estimate
from newbie_image.nano.benchmark.prompt_sets import BenchmarkPrompt
from newbie_image.nano.benchmark.reading import READ_ATTRIBUTES, PictureReading, is_asked
from newbie_image.nano.benchmark.run_folder import PictureLine, ReadingLine, RunFolder
from newbie_image.nano.benchmark.work import RENDERS, ROUND_TRIP

BASE: Final = "xml"
"""The arm that others are compared with where it is there."""


@dataclass(frozen=True)
class Results:
    """What a run found.

    Args:
        folder: the run's folder.
        prompts: key → prompt, in order.
        lines: (arm, key) → reading.
        pictures: (arm, key) → picture, be it kept or not.
        arms: the arms that have readings, in the order they were drawn.
        evaluator: the sha256 of who read.
    """

    folder: RunFolder
    prompts: Mapping[str, BenchmarkPrompt]
    lines: Mapping[tuple[str, str], ReadingLine]
    pictures: Mapping[tuple[str, str], PictureLine]
    arms: tuple[str, ...]
    evaluator: str
    _tables: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, folder: RunFolder, prompts: Sequence[BenchmarkPrompt], evaluator: str) -> Results:
        """The results of these prompts as the evaluator of that sha256 read them."""
        by_key = {prompt.key: prompt for prompt in prompts}
        lines = {pair: line for pair, line in folder.readings(evaluator).items() if pair[1] in by_key}
        there = {arm for arm, _ in lines}
        arms = tuple(name for name in folder.state["arms"] if name in there)
        return cls(folder, by_key, lines, folder.lines(), arms, evaluator)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of prompts, in order."""
        return tuple(dict.fromkeys(prompt.kind for prompt in self.prompts.values()))

    def of_kind(self, kind: str) -> list[BenchmarkPrompt]:
        """The prompts of a kind, in order."""
        return [prompt for prompt in self.prompts.values() if prompt.kind == kind]

    @property
    def base(self) -> str | None:
        """The arm that others are compared with: `xml`, else the first that is no reference."""
        drawn = [arm for arm in self.arms if arm not in (RENDERS.name, ROUND_TRIP.name)]
        return BASE if BASE in drawn else drawn[0] if drawn else None

    def readings(
        self, arm: str, kind: str | None = None, people: int | None = None
    ) -> dict[str, PictureReading]:
        """Key → reading of an arm, of one kind or number of people where it is given."""
        return {
            key: self.lines[arm, key].reading
            for key, prompt in self.prompts.items()
            if (arm, key) in self.lines and kind in (None, prompt.kind) and people in (None, prompt.people)
        }

    def table(
        self, arm: str, kind: str | None = None, people: int | None = None
    ) -> Mapping[str, Mapping[str, Estimate]]:
        """figures.table of :meth:`readings`, made once."""
        asked = (arm, kind, people)
        if asked not in self._tables:
            self._tables[asked] = table(list(self.readings(arm, kind, people).values()))
        return self._tables[asked]

    def tables_by_people(self, arm: str, kind: str) -> dict[int, Mapping[str, Mapping[str, Estimate]]]:
        """Number of people → :meth:`table`, of those that there are."""
        counts = sorted({len(reading.people) for reading in self.readings(arm, kind).values()})
        return {count: self.table(arm, kind, count) for count in counts}

    def table_by_attribute(self, arm: str, kind: str, evaluator: str) -> Mapping[str, Mapping[str, Estimate]]:
        """figures.table_by_attribute of :meth:`readings`, made once."""
        asked = (arm, kind, evaluator, "by attribute")
        if asked not in self._tables:
            self._tables[asked] = table_by_attribute(list(self.readings(arm, kind).values()), evaluator)
        return self._tables[asked]

    def by_scene(self, arm: str, kind: str) -> dict[str, PictureReading]:
        """The readings of a kind by the key of the same scene asked for in the plain way, its people in that
        order."""
        found: dict[str, PictureReading] = {}
        for key, reading in self.readings(arm, kind).items():
            prompt = self.prompts[key]
            people = reading.people[::-1] if kind == "swapped" else reading.people
            found[prompt.twin_key] = PictureReading(reading.found, people)
        return found

    def file(self, arm: str, key: str) -> Path | None:
        """Where a picture is, None where it is not."""
        line = self.pictures.get((arm, key))
        if line is None or line.file is None:
            return None
        file = self.folder.folder / line.file
        return file if file.exists() else None

    def reader_errors(self, kind: str | None = None) -> dict[str, dict[str, ReaderError]]:
        """Evaluator → attribute → its error on pictures that show what was asked: the round trip through the
        autoencoder where there is one, else renders; empty where there is neither."""
        for arm in (ROUND_TRIP.name, RENDERS.name):
            readings = list(self.readings(arm, kind).values())
            if readings:
                asked = (kind, "errors")
                if asked not in self._tables:
                    self._tables[asked] = {e: reader_errors(readings, e) for e in EVALUATORS}
                return self._tables[asked]
        return {}

    def responses(self, evaluator: str = "reader") -> dict[str, DoseResponse]:
        """Arm and attribute → dose–response over the arms that weigh it, on the prompts that all of them have
        and that ask the first person for it."""
        return {
            f"{family} {attribute}": dose_response(
                {
                    weight: [has_attribute(reading, attribute, evaluator) for reading in answers]
                    for weight, answers in readings.items()
                }
            )
            for (family, attribute), readings in self._weighed(evaluator).items()
        }

    def spills(self, evaluator: str = "reader") -> dict[str, dict[str, Spill]]:
        """Arm and attribute → what the weights do beside the tag, on the prompts of :meth:`responses`."""
        found: dict[str, dict[str, Spill]] = {}
        for (family, attribute), readings in self._weighed(evaluator).items():
            tag = TAG_OF.get(attribute, attribute)
            same_tag = {name for name in READ_ATTRIBUTES if TAG_OF.get(name, name) == tag}
            found[f"{family} {attribute}"] = spill(readings, attribute, same_tag, evaluator)
        return found

    def _weighed(self, evaluator: str) -> dict[tuple[str, str], dict[float, list[PictureReading]]]:
        """(arm, attribute) → weight → readings of the same prompts in the same order."""
        weighed: dict[tuple[str, str], dict[float, str]] = {}
        for name in self.arms:
            record = self.folder.state["arms"][name]
            for attribute, weight in record["weighed"].items():
                family = name.rsplit("_" + attribute, 1)[0]
                weighed.setdefault((family, attribute), {})[weight] = name
        found: dict[tuple[str, str], dict[float, list[PictureReading]]] = {}
        for (family, attribute), arms in weighed.items():
            readings = {weight: self.readings(name) for weight, name in arms.items()}
            keys = [
                key
                for key in next(iter(readings.values()))
                if all(key in other for other in readings.values())
                and is_asked(next(iter(readings.values()))[key].people[0], attribute)
            ]
            if len(readings) > 1 and keys and attribute in EVALUATORS[evaluator]:
                found[family, attribute] = {
                    weight: [other[key] for key in keys] for weight, other in readings.items()
                }
        return found
