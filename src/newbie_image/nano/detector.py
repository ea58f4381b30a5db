"""Finds the people in a picture: how many there are, where each stands and how large.

A small network that looks at the whole picture and is told nothing else: neither the prompt nor the number of
people nor the places of the world's plan. It learns from renders that are shifted and zoomed at random, so
that it cannot learn the plan's places by heart. Each figure is a peak of a heat map at its head (CenterNet,
Zhou et al. 2019, "Objects as Points").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from newbie_image.nano.readers import crop, load_weights
from newbie_image.nano.world.body import pose_offset
from newbie_image.nano.world.drawing import CANVAS
from newbie_image.nano.world.layout import Place, places
from newbie_image.nano.world.scene import Scene

SIDE: Final = 128
"""Pixels of the side that a picture is brought to before it is looked at."""
CELLS: Final = 32
"""Cells of the heat map's side."""
HEAD_CENTER: Final = -299.0
"""Height of a standing figure's head centre in its own units (y down, 0 is the ground)."""
USUAL_SCALE: Final = 0.38
MAX_PEOPLE: Final = 8
THRESHOLD: Final = 0.4
WIDTHS: Final = (16, 32, 64, 96)


def _block(before: int, after: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU())


@dataclass(frozen=True)
class Detection:
    """One figure that was found.

    Args:
        place: where it stands, in canvas units (256 × 256, as in :mod:`world.layout`).
        head: height of its head's centre in canvas units, which tells whether it stands, sits or jumps.
        confidence: how sure the detector is, 0 to 1.
    """

    place: Place
    head: float
    confidence: float


class Detector(nn.Module):
    """An hourglass of convolutions with five maps: heat, the head's offset in its cell (x, y), the logarithm
    of the scale, and how far the ground lies below the head."""

    def __init__(self) -> None:
        super().__init__()
        first, second, third, fourth = WIDTHS
        self.stem = _block(3, first, 2)
        self.widest = _block(first, second, 2)
        self.halved = nn.Sequential(_block(second, third, 2), _block(third, third))
        self.deepest = nn.Sequential(_block(third, fourth, 2), _block(fourth, fourth))
        self.deep = nn.Conv2d(fourth, third, 1)
        self.middle = _block(third, third)
        self.shallow = nn.Conv2d(third, second, 1)
        self.last = nn.Sequential(_block(second, 48), _block(48, 48))
        self.maps = nn.Conv2d(48, 5, 1)
        nn.init.constant_(self.maps.bias[:1], -3.0)  # type: ignore[index]

    def forward(self, pictures: Tensor) -> Tensor:
        """(batch, 5, CELLS, CELLS) raw maps of pictures (batch, 3, SIDE, SIDE) in [−1, 1]."""
        wide = self.widest(self.stem(pictures))
        middle = self.halved(wide)
        deep = self.deep(self.deepest(middle))
        middle = self.middle(middle + F.interpolate(deep, scale_factor=2.0))
        return self.maps(self.last(wide + F.interpolate(self.shallow(middle), scale_factor=2.0)))

    @torch.no_grad()
    def find(self, pictures: Tensor, batch: int = 32) -> list[list[Detection]]:
        """The figures of each picture, surest first, at most MAX_PEOPLE.

        Args:
            pictures: (batch, 3, height, width) in [−1, 1], of any size.
        """
        self.eval()
        found: list[list[Detection]] = []
        for start in range(0, len(pictures), batch):
            part = bring_to_side(pictures[start : start + batch])
            found += [_peaks(maps) for maps in self(part).float().cpu()]
        return found


def bring_to_side(pictures: Tensor) -> Tensor:
    """(batch, 3, SIDE, SIDE) of pictures of any size, averaged where there is more of them."""
    if pictures.shape[-2:] == (SIDE, SIDE):
        return pictures
    return F.interpolate(pictures, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)


def _peaks(maps: Tensor) -> list[Detection]:
    heat = maps[0].sigmoid()
    highest = F.max_pool2d(heat[None], 3, 1, 1)[0]
    rows, columns = torch.nonzero((heat == highest) & (heat >= THRESHOLD), as_tuple=True)
    cells = sorted(zip(rows.tolist(), columns.tolist(), strict=True), key=lambda cell: -float(heat[cell]))
    found: list[Detection] = []
    for row, column in cells:
        dx, dy, size, ground = maps[1:, row, column].tolist()
        scale = USUAL_SCALE * math.exp(max(-1.5, min(1.5, size)))
        x = (column + dx) * CANVAS / CELLS
        head = (row + dy) * CANVAS / CELLS
        place = Place(x, head - HEAD_CENTER * scale * (1 + ground), scale)
        # Two peaks on one head are one person.
        if all(math.hypot(place.x - o.place.x, place.y - o.place.y) > 45 * scale for o in found):
            found.append(Detection(place, head, float(heat[row, column])))
    return found[:MAX_PEOPLE]


@dataclass(frozen=True)
class _Figure:
    """Canvas units: head centre, ground line, canvas units a figure unit."""

    x: float
    head: float
    ground: float
    scale: float


def figures_of(scene: Scene) -> list[_Figure]:
    """Where the people of a render are."""
    return [
        _Figure(p.x, p.y + p.scale * (HEAD_CENTER + pose_offset(c)), p.y, p.scale)
        for c, p in zip(scene.characters, places(scene), strict=True)
    ]


def detector_targets(
    figures: Sequence[_Figure], box: tuple[float, float, float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """What the maps should be for a part of a picture.

    Args:
        figures: of the whole picture.
        box: the part: left, top, right, bottom in fractions of the picture.
    Returns:
        heat: (CELLS, CELLS) float32, 1 at each head and falling off around it.
        values: (4, CELLS, CELLS) float32, the other maps; NaN where there is no head.
    """
    left, top, right, bottom = box
    zoom = 1 / (right - left)
    heat = np.zeros((CELLS, CELLS), np.float32)
    values = np.full((4, CELLS, CELLS), np.nan, np.float32)
    grid = np.arange(CELLS) + 0.5
    for figure in figures:
        x = (figure.x / CANVAS - left) / (right - left) * CELLS
        y = (figure.head / CANVAS - top) / (bottom - top) * CELLS
        column, row = math.floor(x), math.floor(y)
        if not (0 <= column < CELLS and 0 <= row < CELLS):
            continue
        spread = max(0.7, 35 * figure.scale * zoom * CELLS / CANVAS)
        bump = np.exp(
            -((grid[None] - column - 0.5) ** 2 + (grid[:, None] - row - 0.5) ** 2) / (2 * spread**2)
        )
        heat = np.maximum(heat, bump.astype(np.float32))
        below = (figure.ground - figure.head) / (-HEAD_CENTER * figure.scale) - 1
        values[:, row, column] = (x - column, y - row, math.log(figure.scale * zoom / USUAL_SCALE), below)
    return heat, values


def train_detector(
    detector: Detector,
    pictures: Tensor,
    scenes: Sequence[Scene],
    *,
    epochs: float,
    batch: int = 32,
    learning_rate: float = 3e-3,
    device: torch.device | None = None,
    seed: int = 0,
    report: Callable[[str], None] = lambda line: None,
) -> Detector:
    """Trains with the penalty-reduced focal loss on the heat and L1 on the rest, one-cycle rate, on random
    parts of the pictures with blur and noise.

    Args:
        pictures: (count, size, size, 3) uint8, on the device.
        scenes: what each shows; scenes without anybody are welcome.
    """
    device = device or torch.device("cpu")
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    detector.to(device).train()
    steps = int(epochs * len(pictures) / batch)
    optimizer = torch.optim.AdamW(detector.parameters(), lr=learning_rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, learning_rate, total_steps=steps + 1, pct_start=0.15
    )
    figures = [figures_of(scene) for scene in scenes]
    order = np.concatenate([rng.permutation(len(pictures)) for _ in range(int(epochs) + 1)])
    for step in range(steps):
        chosen = order[step * batch : (step + 1) * batch]
        boxes = [_part(rng) for _ in chosen]
        whole = pictures[torch.from_numpy(chosen).to(device)].permute(0, 3, 1, 2).float() / 127.5 - 1
        x = _blur_and_noise(crop(whole, torch.tensor(boxes, device=device), (SIDE, SIDE)), rng)
        made = [detector_targets(figures[i], box) for i, box in zip(chosen, boxes, strict=True)]
        heat = torch.from_numpy(np.stack([m[0] for m in made])).to(device)
        values = torch.from_numpy(np.stack([m[1] for m in made])).to(device)
        loss = detector_loss(detector(x), heat, values)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        if step % 100 == 99:
            report(f"step {step + 1}/{steps} loss {loss.item():.3f}")
    return detector.eval()


def detector_loss(maps: Tensor, heat: Tensor, values: Tensor) -> Tensor:
    """The loss of raw maps (batch, 5, CELLS, CELLS) against :func:`detector_targets`, one number a figure."""
    peaks = (heat == 1).float()
    score = maps[:, 0].float()
    at_peaks = -F.logsigmoid(score) * (1 - score.sigmoid()) ** 2 * peaks
    elsewhere = -F.logsigmoid(-score) * score.sigmoid() ** 2 * (1 - heat) ** 4 * (1 - peaks)
    known = values.isfinite()
    distance = (maps[:, 1:].float() - values.nan_to_num()).abs() * known
    people = peaks.sum().clamp_min(1)
    return (at_peaks.sum() + elsewhere.sum()) / people + distance.sum() / people


def _part(rng: np.random.Generator) -> tuple[float, float, float, float]:
    """A part of a picture, or a little more than the whole: 0.75 to 1.25 of its side, anywhere."""
    if rng.random() < 0.3:
        return 0.0, 0.0, 1.0, 1.0
    side = float(rng.uniform(0.75, 1.25))
    x, y = (float(rng.uniform(min(0, 1 - side), max(0, 1 - side))) for _ in range(2))
    return x, y, x + side, y + side


def _blur_and_noise(x: Tensor, rng: np.random.Generator) -> Tensor:
    if rng.random() < 0.5:
        x = torch.lerp(x, F.avg_pool2d(x, 3, 1, 1), float(rng.uniform(0, 1)))
    if rng.random() < 0.5:
        x = x + float(rng.uniform(0, 0.12)) * torch.randn_like(x)
    return x


def load_detector(path: Path) -> Detector:
    """A detector with the weights of a file that :func:`readers.save_reader` wrote."""
    detector = Detector()
    detector.load_state_dict(load_weights(path))
    return detector.eval()
