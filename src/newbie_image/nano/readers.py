"""Reads attributes back from pictures: one small classifier over a crop for each character, one over the
whole scene.

The crop depends on the number of people and the named position alone, never on what is in the picture, so
that a character is matched by its place. Trained on renders with seeds that no generator saw, with shifts,
blur and noise.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from newbie_image.nano.world import attributes as a
from newbie_image.nano.world.layout import (
    FIVE,
    FOUR_IN_A_ROW,
    FOUR_IN_CORNERS,
    ONE,
    SIX,
    THREE,
    TWO,
    Place,
    places,
)
from newbie_image.nano.world.scene import Character, Scene

CROP_SIZE: Final = (128, 80)
"""Height and width of the pixels that the character reader looks at."""
SCENE_SIZE: Final = (64, 64)
HIDDEN: Final = -1
CHARACTER_HEADS: Final[dict[str, tuple[Any, ...]]] = {"present": (False, True), **a.CHARACTER_FIELDS}
SCENE_HEADS: Final[dict[str, tuple[Any, ...]]] = {
    "background": a.BACKGROUNDS,
    "time": a.TIMES,
    "weather": (None, *a.WEATHERS),
}
PLANS: Final = {1: ONE, 2: TWO, 3: THREE, 4: FOUR_IN_A_ROW | FOUR_IN_CORNERS, 5: FIVE, 6: SIX}


def reading_box(count: int, position: str) -> tuple[float, float, float, float]:
    """Left, top, right, bottom in fractions of the picture: where a character of `count` at `position` is
    read.

    A box may reach past the picture's edge; what lies outside is grey.
    """
    return figure_box(Place(*PLANS[count][position]))


def figure_box(place: Place) -> tuple[float, float, float, float]:
    """Left, top, right, bottom in fractions of the picture of what is read of a figure that stands there."""
    height = 486 * place.scale / 256
    width = height * CROP_SIZE[1] / CROP_SIZE[0]
    bottom = place.y / 256 + 0.02
    return place.x / 256 - width / 2, bottom - height, place.x / 256 + width / 2, bottom


def crop(pictures: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Cuts one box out of each picture.

    Args:
        pictures: (batch, 3, height, width) in [−1, 1].
        boxes: (batch, 4), left, top, right, bottom in fractions.
        size: height and width of the result.
    Returns:
        (batch, 3, *size), bilinear, of the picture averaged down to at most twice the longer side of `size`.
    """
    most = 2 * max(size)
    if pictures.shape[-1] > most:
        pictures = F.interpolate(pictures, (most, most), mode="area")
    center = boxes[:, :2] + boxes[:, 2:] - 1
    span = boxes[:, 2:] - boxes[:, :2]
    theta = torch.zeros(len(boxes), 2, 3, device=pictures.device)
    theta[:, 0, 0], theta[:, 1, 1] = span[:, 0], span[:, 1]
    theta[:, 0, 2], theta[:, 1, 2] = center[:, 0], center[:, 1]
    grid = F.affine_grid(theta, [len(boxes), 3, *size], align_corners=False)
    return F.grid_sample(pictures, grid, align_corners=False, padding_mode="zeros")


class Reader(nn.Module):
    """A small residual network with one linear head for each attribute.

    Args:
        heads: attribute → its values, in order.
        width: channels after the stem.
        size: height and width of the input.
    """

    def __init__(self, heads: dict[str, tuple[Any, ...]], width: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.heads = heads
        self.size = size
        stages = (width, 2 * width, 4 * width, 5 * width)
        layers: list[nn.Module] = [nn.Conv2d(3, width, 5, 2, 2, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        before = width
        for channels in stages[1:]:
            layers.append(Residual(before, channels))
            before = channels
        self.body = nn.Sequential(*layers)
        cells = -(-size[0] // 16) * -(-size[1] // 16)
        self.gather = nn.Sequential(nn.Flatten(), nn.Linear(before * cells, 384), nn.ReLU(), nn.Dropout(0.1))
        self.outputs = nn.ModuleDict({name: nn.Linear(384, len(values)) for name, values in heads.items()})

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        """Scores by attribute, each (batch, values), of crops (batch, 3, *size) in [−1, 1]."""
        features = self.gather(self.body(pictures))
        return {name: head(features) for name, head in self.outputs.items()}

    @torch.no_grad()
    def read(self, pictures: Tensor, batch: int = 64) -> dict[str, np.ndarray]:
        """Indices of the values read, by attribute, each (count,)."""
        self.eval()
        found: dict[str, list[np.ndarray]] = {name: [] for name in self.heads}
        for start in range(0, len(pictures), batch):
            part = pictures[start : start + batch].contiguous(memory_format=torch.channels_last)
            with torch.autocast(pictures.device.type, torch.bfloat16):
                scores = self(part)
            for name, value in scores.items():
                found[name].append(value.float().argmax(1).cpu().numpy())
        return {name: np.concatenate(parts) for name, parts in found.items()}


class Residual(nn.Module):
    """Two 3×3 convolutions, halving the resolution, around a 1×1 shortcut."""

    def __init__(self, before: int, channels: int) -> None:
        super().__init__()
        self.shortcut = nn.Conv2d(before, channels, 1, 2, bias=False)
        self.first = nn.Conv2d(before, channels, 3, 2, 1, bias=False)
        self.second = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norms[0](self.first(x)))
        return F.relu(self.norms[1](self.second(y)) + self.shortcut(x))


def character_reader() -> Reader:
    return Reader(CHARACTER_HEADS, 32, CROP_SIZE).to(memory_format=torch.channels_last)  # pyright: ignore


def scene_reader() -> Reader:
    return Reader(SCENE_HEADS, 16, SCENE_SIZE).to(memory_format=torch.channels_last)  # pyright: ignore


def character_targets(character: Character | None) -> list[int]:
    """Index of each head's value; HIDDEN where it cannot be seen. None is an empty place."""
    if character is None:
        return [0] + [HIDDEN] * (len(CHARACTER_HEADS) - 1)
    labels: dict[str, Any] = {"present": True, **character.labels()}
    return [
        values.index(labels[name]) if labels[name] in values else HIDDEN
        for name, values in CHARACTER_HEADS.items()
    ]


def scene_targets(scene: Scene) -> list[int]:
    """Index of each scene head's value; the time of a place without one and the weather indoors are
    HIDDEN."""
    outdoors = scene.time is not None
    return [
        a.BACKGROUNDS.index(scene.background),
        a.TIMES.index(scene.time) if scene.time in a.TIMES else HIDDEN,
        (None, *a.WEATHERS).index(scene.weather) if outdoors else HIDDEN,
    ]


@dataclass(frozen=True)
class Sample:
    """One crop to learn from: which picture, where, and what it shows."""

    picture: int
    box: tuple[float, float, float, float]
    targets: list[int]


def samples_of(index: int, scene: Scene) -> list[Sample]:
    """The crops of one scene: each character, and for an empty scene one place without anybody.

    Of every second scene the crops lie where the characters were asked to stand, of the others where they do
    stand, as well as a detector finds them.
    """
    count = len(scene.characters)
    if count == 0:
        choice = random.Random(index)
        number = choice.choice((1, 2))
        position = choice.choice(tuple(PLANS[number]))
        return [Sample(index, reading_box(number, position), character_targets(None))]
    if index % 2:
        rng = random.Random(index)
        boxes = [figure_box(_nearly(place, rng)) for place in places(scene)]
    else:
        boxes = [reading_box(count, c.position) for c in scene.characters]
    return [Sample(index, box, character_targets(c)) for box, c in zip(boxes, scene.characters, strict=True)]


def _nearly(place: Place, rng: random.Random) -> Place:
    """A place with a detector's usual error: the ground is harder to see than the head."""
    scale = place.scale * (1 + rng.gauss(0, 0.02))
    return Place(place.x + rng.gauss(0, 2), place.y + rng.gauss(0, 12 * place.scale), scale)


def train_reader(
    reader: Reader,
    pictures: Tensor,
    samples: Sequence[Sample],
    *,
    epochs: float,
    batch: int = 64,
    learning_rate: float = 2e-3,
    device: torch.device | None = None,
    seed: int = 0,
    report: Callable[[str], None] = lambda line: None,
) -> Reader:
    """Trains with cross-entropy summed over the heads, one-cycle rate, random shift, scale, blur and noise.

    Args:
        pictures: (count, size, size, 3) uint8, on the device.
        samples: crops into `pictures`.
    """
    device = device or torch.device("cpu")
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    reader.to(device).train()
    steps = int(epochs * len(samples) / batch)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=learning_rate, weight_decay=0.02, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, learning_rate, total_steps=steps + 1, pct_start=0.15
    )
    boxes = np.array([s.box for s in samples], dtype=np.float32)
    targets = np.array([s.targets for s in samples], dtype=np.int64)
    where = np.array([s.picture for s in samples])
    order = np.concatenate([rng.permutation(len(samples)) for _ in range(int(epochs) + 1)])
    for step in range(steps):
        chosen = order[step * batch : (step + 1) * batch]
        shift = rng.normal(0, 0.008, (len(chosen), 1, 2)).astype(np.float32)
        moved = (boxes[chosen].reshape(-1, 2, 2) + shift).reshape(-1, 4)
        whole = pictures[torch.from_numpy(where[chosen]).to(device)].permute(0, 3, 1, 2).float() / 127.5 - 1
        x = crop(whole, torch.from_numpy(moved).to(device), reader.size)
        x = _disturb(x, rng).contiguous(memory_format=torch.channels_last)
        truth = torch.from_numpy(targets[chosen]).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            scores = reader(x)
        loss = torch.zeros((), device=device)
        for column, value in enumerate(scores.values()):
            asked = truth[:, column]
            total = F.cross_entropy(value.float(), asked, ignore_index=HIDDEN, reduction="sum")
            loss = loss + total / (asked != HIDDEN).sum().clamp_min(1)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        if step % 100 == 99:
            report(f"step {step + 1}/{steps} loss {loss.item():.3f}")
    return reader.eval()


def _disturb(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Blur and noise on part of the batch: what an autoencoder does to a picture."""
    if rng.random() < 0.5:
        x = torch.lerp(x, F.avg_pool2d(x, 3, 1, 1), float(rng.uniform(0, 0.9)))
    if rng.random() < 0.5:
        x = x + float(rng.uniform(0, 0.08)) * torch.randn_like(x)
    return x


def save_reader(reader: nn.Module, path: Path) -> None:
    """Writes bf16 weights, batch statistics in float32."""
    tensors = {
        name: (
            value if "running" in name or not value.is_floating_point() else value.to(torch.bfloat16)
        ).contiguous()
        for name, value in reader.state_dict().items()
    }
    save_file(tensors, path)


def load_weights(path: Path) -> dict[str, Tensor]:
    """What :func:`save_reader` wrote, by name, in float32."""
    return {
        name: value.float() if value.is_floating_point() else value for name, value in load_file(path).items()
    }


def load_reader(reader: Reader, path: Path) -> Reader:
    """Fills a reader from `path`."""
    reader.load_state_dict(load_weights(path))
    return reader.eval()
