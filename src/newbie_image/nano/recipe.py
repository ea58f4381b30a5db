"""The whole recipe of the embedded model, stage by stage: render, autoencoder, latents, transformer,
readers, export.

Each stage keeps what it did in the work folder and goes on from there when it is called again, so a run can
be stopped at any time and split over days and machines.
"""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_dc import AutoencoderDC
from safetensors.torch import load_file, save_file
from torch import Tensor

from newbie_image.binding_modes import Mode
from newbie_image.errors import CheckpointError, RequestError
from newbie_image.nano.autoencoder import AutoencoderRecipe, train_autoencoder
from newbie_image.nano.dataset import BLOCK, HELD_OUT_SEED, READER_SEED, Store
from newbie_image.nano.detector import Detector, train_detector
from newbie_image.nano.export import LONGEST_TEXT, assemble, bundle_settings, write_bundle
from newbie_image.nano.latents import (
    LatentStatistics,
    cache_latents,
    encoded_count,
    read_latents,
    read_statistics,
    write_statistics,
)
from newbie_image.nano.parts import Parts, TransformerRecipe
from newbie_image.nano.readers import (
    Sample,
    character_reader,
    load_reader,
    samples_of,
    save_reader,
    scene_reader,
    scene_targets,
    train_reader,
)
from newbie_image.nano.train import train_transformer
from newbie_image.nano.world.render import render
from newbie_image.nano.world.scene import Scene, sample_scene
from newbie_image.pipeline import NewbiePipeline

STAGES: Final = ("render", "autoencoder", "latents", "transformer", "readers", "export")
COUNTS: Final = {
    3: {1: 0.4, 2: 0.45, 3: 0.15},
    6: {1: 0.14, 2: 0.2, 3: 0.17, 4: 0.18, 5: 0.15, 6: 0.16},
}
"""Probability of each number of people, by the most that a picture may have. What is small is learnt last, so
that many people come more often than users ask for them."""
TEXT_LENGTHS: Final = {3: (32, 56, 80), 6: (64, 104, 152)}
"""Lengths that compiled training pads its texts to, by the most people in a picture. The longest complete
caption of 2,500 scenes of six people has 148 tokens; on a card none may be longer than the last of these."""
READER_COUNTS: Final = {1: 0.2, 2: 0.26, 3: 0.15, 4: 0.13, 5: 0.13, 6: 0.13}
"""People in the renders that the readers and the detector learn from: all that can be asked for."""
EMPTY: Final = 600
"""Scenes without anybody among them, at most."""
Report = Callable[[str], None]


@dataclass(frozen=True)
class Recipe:
    """Everything that a run needs to be repeated, its time and the code's version apart.

    Args:
        size: pixels of a picture's side.
        pictures: renders to learn from.
        reader_pictures: renders that the evaluator's classifiers learn from.
        reader_epochs: how often they see each.
        reader_batch: crops at a time; the rate grows with its root, from 0.002 at 64.
        steps, guidance, shift: sampling defaults that go into the bundle.
        auto_binding: what the bundle's `auto` means for several characters.
        trained_bindings: modes of binding that the bundle says it was trained with.
        people: 3 or 6, most characters in a picture.
        counts: probability of each number of people in the model's renders.
        hold_out_pairs: nobody in the model's renders has one of :data:`world.held_out.HELD_OUT_PAIRS`, so
            that the benchmark can ask for what was never shown together.
        first_seed: scene of the first of the model's renders; another one, far off, for pictures that no
            earlier run has seen.
    Raises:
        RequestError: renders that would reach into the scenes of readers or evaluation; an `auto_binding`
            that is not among the trained ones.
    """

    size: int = 128
    pictures: int = 60_000
    reader_pictures: int = 8_000
    reader_epochs: float = 12.0
    reader_batch: int = 64
    steps: int = 12
    guidance: float = 3.0
    shift: float = 1.5
    auto_binding: Mode = "region"
    trained_bindings: tuple[Mode, ...] = ("off", "text", "region", "full")
    people: int = 3
    counts: dict[int, float] = field(default_factory=lambda: COUNTS[3])
    hold_out_pairs: bool = False
    first_seed: int = 0
    autoencoder: AutoencoderRecipe = field(
        default_factory=lambda: AutoencoderRecipe(batch=8, latent_noise=0.04)
    )
    transformer: TransformerRecipe = field(default_factory=TransformerRecipe)

    def __post_init__(self) -> None:
        last = READER_SEED - self.pictures
        if not 0 <= self.first_seed <= last:
            raise RequestError(
                f"first_seed {self.first_seed} with {self.pictures} pictures is not allowed; give 0 to "
                f"{last}, as the scenes beyond are the readers' and the evaluation's"
            )
        if self.auto_binding not in self.trained_bindings:
            raise RequestError(
                f"auto_binding {self.auto_binding!r} is not among trained_bindings "
                f"({', '.join(self.trained_bindings)}); add it, or name another"
            )

    def seeded(self, seed: int) -> Recipe:
        """The same recipe with another seed for both trainings."""
        return replace(
            self,
            autoencoder=replace(self.autoencoder, seed=seed),
            transformer=replace(self.transformer, seed=seed),
        )

    def peopled(self, people: int) -> Recipe:
        """The same recipe for pictures of so many people at most.

        Raises:
            RequestError: neither 3 nor 6.
        """
        if people not in COUNTS:
            raise RequestError(f"{people} people at most is not a choice; give 3 or 6")
        transformer = replace(self.transformer, text_lengths=TEXT_LENGTHS[people])
        return replace(self, people=people, counts=COUNTS[people], transformer=transformer)

    def sized(self, size: int, learnt_at: int | None = None) -> Recipe:
        """The same recipe for pictures of another size.

        Args:
            size: pixels of a side; larger pictures spend more time near noise.
            learnt_at: size that the weights to begin with were trained at, None for new weights.
        """
        scale = 1.0 if learnt_at is None else min(1.0, learnt_at / size)
        transformer = replace(self.transformer, time_shift=max(1.0, size / 128), first_position_scale=scale)
        if learnt_at is not None:
            transformer = replace(transformer, singles_first=0.0)
        return replace(self, size=size, shift=self.shift * max(1.0, size / 128), transformer=transformer)


@dataclass(frozen=True)
class Workshop:
    """A work folder and what is trained in it.

    Args:
        folder: renders, states and logs; some gigabytes.
        recipe: see :class:`Recipe`.
        device: where the networks are trained.
        report: gets a line now and then.
    """

    folder: Path
    recipe: Recipe
    device: torch.device
    report: Report = lambda line: None

    def store(self) -> Store:
        """The renders that the model learns from."""
        recipe = self.recipe
        return Store.create(
            self.folder / "renders",
            recipe.pictures,
            recipe.size,
            recipe.first_seed,
            recipe.counts,
            recipe.hold_out_pairs,
        )

    def reader_store(self) -> Store:
        """The renders that the readers learn from, with seeds of their own."""
        count = self.recipe.reader_pictures
        return Store.create(
            self.folder / "reader_renders", count, self.recipe.size, READER_SEED, READER_COUNTS
        )

    def start_from(self, bundle: str) -> None:
        """Goes on from a finished bundle in a new work folder: its autoencoder and weights, and where the
        encoder is frozen its normalisation.

        What the work folder already has is left alone.
        """
        pipeline = NewbiePipeline.from_pretrained(bundle, torch_dtype=torch.float32)
        settings = pipeline.settings.vae
        vae, start = self.folder / "autoencoder" / "vae", self._start()
        if not vae.exists():
            pipeline.vae.save_pretrained(vae)
        frozen = self.recipe.autoencoder.freeze_encoder
        if frozen and settings.latents_mean is not None and settings.latents_std is not None:
            statistics = LatentStatistics(settings.latents_mean, settings.latents_std)
            if not (self.folder / "latents" / "statistics.json").exists():
                write_statistics(self.folder / "latents", statistics)
        if not start.exists():
            start.parent.mkdir(parents=True, exist_ok=True)
            parts = Parts(self.recipe.transformer)
            for name in ("text_encoder", "clip_model", "transformer"):
                getattr(parts, name).load_state_dict(getattr(pipeline, name).state_dict())
            save_file({name: value.contiguous() for name, value in parts.state_dict().items()}, start)
            recipe = Path(pipeline.bundle_folder or bundle) / "recipe.json"
            told = json.loads(recipe.read_text()) if recipe.exists() else {}
            for part in ("autoencoder", "transformer"):
                if told.get(part):
                    told[part] |= {"hardware": told["hardware"]} if "hardware" in told else {}
                    held_out = told.get("recipe", {}).get("hold_out_pairs", False)
                    told[part] |= {"hold_out_pairs": True} if held_out else {}
                runs = [run for run in (*told.get(f"{part}_before", []), told.get(part)) if run]
                self._before(part).write_text(json.dumps(runs, indent=2) + "\n")

    def _before(self, part: str) -> Path:
        return self.folder / part / "before.json"

    def _start(self) -> Path:
        return self.folder / "transformer" / "start.safetensors"

    def render(self, workers: int | None = None) -> None:
        for store in (self.store(), self.reader_store()):
            for done in store.render(workers or max(1, (os.cpu_count() or 2))):
                if done % (BLOCK * 8) == 0:
                    self.report(f"render: {done} of {store.count} in {store.folder.name}")

    def autoencoder(self, minutes: float) -> None:
        start = self.folder / "autoencoder" / "vae"
        scenes = (sample_scene(HELD_OUT_SEED + i, counts=COUNTS[3]) for i in range(96))
        held_out = np.stack([render(scene, self.recipe.size) for scene in scenes])
        train_autoencoder(
            self.store(),
            held_out,
            self.folder / "autoencoder",
            self.recipe.autoencoder,
            minutes=minutes,
            device=self.device,
            report=lambda entry: self.report(f"autoencoder: {entry}"),
            start_from=start if start.exists() else None,
        )

    def vae(self) -> AutoencoderDC:
        """The trained autoencoder."""
        folder = self.folder / "autoencoder" / "vae"
        if not folder.exists():
            raise CheckpointError(f"{folder} is not there; run the stage 'autoencoder' first")
        return AutoencoderDC.from_pretrained(folder)

    def latents(self) -> None:
        for done in cache_latents(self.vae(), self.store(), self.folder / "latents", self.device):
            if done % 6400 == 0:
                self.report(f"latents: {done}")

    def transformer(
        self,
        minutes: float,
        preview: Callable[[NewbiePipeline, int], None] | None = None,
        compiled: bool = False,
    ) -> None:
        folder = self.folder / "latents"
        if encoded_count(folder) == 0:
            raise CheckpointError(f"{folder} has no latents; run the stage 'latents' first")

        def sample(parts: Parts, seen: int) -> None:
            if preview is not None:
                preview(self.pipeline(parts), seen)

        train_transformer(
            self.store(),
            read_latents(folder),
            self.folder / "transformer",
            self.recipe.transformer,
            minutes=minutes,
            device=self.device,
            report=lambda entry: self.report(f"transformer: {entry}"),
            sample=sample,
            start_from=load_file(self._start()) if self._start().exists() else None,
            compiled=compiled,
        )

    def pipeline(self, parts: Parts) -> NewbiePipeline:
        """Parts, autoencoder and tokenizers as a pipeline."""
        recipe = self.recipe
        settings = bundle_settings(
            read_statistics(self.folder / "latents"),
            recipe.size,
            steps=recipe.steps,
            guidance=recipe.guidance,
            shift=recipe.shift,
            trained_tokens=max(LONGEST_TEXT, recipe.transformer.text_lengths[-1]),
            trained_characters=recipe.people,
            auto_binding=recipe.auto_binding,
            trained_bindings=recipe.trained_bindings,
        )
        return assemble(parts, self.vae(), settings)

    def trained_parts(self) -> Parts:
        """The averaged parts of the last save."""
        file = self.folder / "transformer" / "state.pt"
        if not file.exists():
            raise CheckpointError(f"{file} is not there; run the stage 'transformer' first")
        parts = Parts(self.recipe.transformer)
        parts.load_state_dict(torch.load(file, map_location="cpu", weights_only=True)["average"])
        return parts

    def readers(self) -> None:
        """Trains both readers and the detector and writes `character.safetensors`, `scene.safetensors` and
        `detector.safetensors` into the folder `readers`."""
        pictures, scenes = self.reader_renders()
        self.classifiers(pictures, scenes)
        finder = train_detector(
            Detector(), pictures, scenes, epochs=self.recipe.reader_epochs, device=self.device,
            report=lambda line: self.report(f"readers: detector {line}"),
        )  # fmt: skip
        save_reader(finder, self.folder / "readers" / "detector.safetensors")
        note_training(self.folder / "readers", detector_pictures=_with_people(scenes))

    def classifiers(self, pictures: Tensor, scenes: Sequence[Scene]) -> None:
        """Trains both readers and writes `character.safetensors` and `scene.safetensors`.

        Args:
            pictures: (count, size, size, 3) uint8 on the device.
            scenes: what each shows.
        """
        target = self.folder / "readers"
        target.mkdir(parents=True, exist_ok=True)
        people = [sample for i, scene in enumerate(scenes) for sample in samples_of(i, scene)]
        wholes = [Sample(i, (0.0, 0.0, 1.0, 1.0), scene_targets(scene)) for i, scene in enumerate(scenes)]
        recipe = self.recipe
        for name, reader, samples in (
            ("character", character_reader(), people),
            ("scene", scene_reader(), wholes),
        ):
            trained = train_reader(
                reader, pictures, samples, epochs=recipe.reader_epochs, batch=recipe.reader_batch,
                learning_rate=2e-3 * math.sqrt(recipe.reader_batch / 64), device=self.device,
                report=lambda line, name=name: self.report(f"readers: {name} {line}"),
            )  # fmt: skip
            save_reader(trained, target / f"{name}.safetensors")
        note_training(target, pictures=_with_people(scenes), size=recipe.size)

    def reader_renders(self) -> tuple[Tensor, list[Scene]]:
        """What the readers learn from, (count, size, size, 3) uint8 on the device, and some empty scenes."""
        store = self.reader_store()
        done = store.finished()
        seeds = range(READER_SEED + store.count, READER_SEED + store.count + min(EMPTY, store.count))
        empty = [replace(sample_scene(seed, 1), characters=()) for seed in seeds]
        held, rendered = store.pictures(), np.stack([render(s, store.size) for s in empty])
        pictures = torch.empty(
            len(done) + len(empty), *rendered.shape[1:], dtype=torch.uint8, device=self.device
        )
        for start in range(0, len(done), 500):
            part = done[start : start + 500]
            pictures[start : start + len(part)] = torch.from_numpy(held[part]).to(self.device)
        pictures[len(done) :] = torch.from_numpy(rendered).to(self.device)
        return pictures, [*(store.scene(int(i)) for i in done), *empty]

    def export(self, bundle: Path) -> None:
        """Writes the bundle and its readers beside the recipe."""
        write_bundle(self.pipeline(self.trained_parts()), bundle)
        (bundle / "recipe.json").write_text(json.dumps(self.history(), indent=2) + "\n")

    def history(self) -> dict[str, Any]:
        """The recipe with what there is of its renders, and with what the logs say of the run and of those
        that it went on from: minutes, samples, hardware."""
        return {
            "recipe": asdict(self.recipe),
            "hardware": hardware(self.device),
            "pictures": encoded_count(self.folder / "latents"),
            "autoencoder": _last(self.folder / "autoencoder" / "log.jsonl"),
            "autoencoder_before": _runs(self._before("autoencoder")),
            "transformer": _last(self.folder / "transformer" / "log.jsonl"),
            "transformer_before": _runs(self._before("transformer")),
        }


def _runs(note: Path) -> list[dict[str, Any]]:
    return json.loads(note.read_text()) if note.exists() else []


def _with_people(scenes: Sequence[Scene]) -> int:
    return sum(bool(scene.characters) for scene in scenes)


def note_training(folder: Path, **facts: int) -> None:
    """Adds to `trained.json` what readers were trained on."""
    file = folder / "trained.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(known | facts) + "\n")


def reader_pictures(folder: Path) -> int:
    """How many renders the readers in a folder were trained on."""
    return int(json.loads((folder / "trained.json").read_text())["pictures"])


def detector_pictures(folder: Path) -> int:
    """The same of its detector."""
    told = json.loads((folder / "trained.json").read_text())
    return int(told.get("detector_pictures", told["pictures"]))


def load_readers(folder: Path) -> tuple[Any, Any]:
    """The character reader and the scene reader from a folder of two safetensors files."""
    for name in ("character", "scene"):
        if not (folder / f"{name}.safetensors").exists():
            raise CheckpointError(
                f"{folder / name}.safetensors is not there; run `newbie nano train --stage readers`"
            )
    return (
        load_reader(character_reader(), folder / "character.safetensors"),
        load_reader(scene_reader(), folder / "scene.safetensors"),
    )


def hardware(device: torch.device) -> str:
    """The processor or card in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    model = ""
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip()
            for line in info.read_text().splitlines()
            if line.startswith("model name")
        ]
        model = names[0] if names else ""
    return (
        f"CPU {model or platform.processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    )


def _last(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    return json.loads(path.read_text().splitlines()[-1])


def stages(chosen: str) -> Iterator[str]:
    """The stages that a `--stage` value names."""
    yield from (STAGES if chosen == "all" else (chosen,))
