"""The time axis of sampling, and the points on it where the velocity is asked for.

Time runs from t = 0 (noise) to t = 1 (data): x_t = t · data + (1 − t) · noise, and the velocity is
data − noise. This is the convention everywhere in this package. diffusers and ComfyUI count the other way
round, sigma = 1 − t, and negate the velocity; :func:`sigmas` translates.

A grid is a tensor of N + 1 ascending times for N intervals. Upstream's `num_steps` counts the points, so its
18 are our 17.

Sources: upstream `transport/integrators.py` (class `ode`) for the shifted axis; Esser et al. 2024
(arXiv 2403.03206), equation 23, for the shift itself; ComfyUI's `simple` scheduler for that grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch

from newbie_image.errors import RequestError

SIMPLE_TRAIN_STEPS = 1000


def shift_time(t: torch.Tensor, shift: float) -> torch.Tensor:
    """Move times towards the noise, as t / (t + shift − shift · t).

    With shift 6 half of all points lie below t = 1/7, where the composition is decided. The ends stay.
    In sigma = 1 − t this is diffusers' and ComfyUI's shift · sigma / (1 + (shift − 1) · sigma).

    Args:
        t: times in [0, 1], any shape.
        shift: > 0; 1 changes nothing, below 1 moves towards the data.

    Returns:
        Shifted times, same shape and dtype.
    """
    # The order of the operations is upstream's, so that float32 grids agree to the last bit: a truncation
    # limit that falls on a grid point must fall on the same side of it.
    return t / (t + shift - shift * t)


def uniform_grid(steps: int, shift: float) -> torch.Tensor:
    """Evenly spaced times, then shifted: upstream's grid.

    diffusers' pipelines for this family of models pass sigmas = linspace(1, 1/N, N): the same points.

    Args:
        steps: intervals, ≥ 1.
        shift: > 0.

    Returns:
        (steps + 1,) float32 on the CPU, from 0 to 1.
    """
    return shift_time(torch.linspace(0.0, 1.0, steps + 1, dtype=torch.float32), shift)


def simple_grid(steps: int, shift: float) -> torch.Tensor:
    """ComfyUI's `simple` scheduler: every (1000 / steps)-th of a table of 1000 shifted sigmas, then 0.

    It equals :func:`uniform_grid` where steps divides 1000.

    Args:
        steps: intervals, 1 … 1000.
        shift: > 0.

    Returns:
        (steps + 1,) float32 on the CPU, from 0 to 1.
    """
    if steps > SIMPLE_TRAIN_STEPS:
        raise RequestError(
            f"{steps} steps are not possible on the simple grid, which has {SIMPLE_TRAIN_STEPS} points; "
            f"give at most {SIMPLE_TRAIN_STEPS} or choose the uniform grid"
        )
    stride = SIMPLE_TRAIN_STEPS / steps
    rows = [int(k * stride) for k in range(steps)] + [SIMPLE_TRAIN_STEPS]
    return shift_time(torch.tensor(rows, dtype=torch.float32) / SIMPLE_TRAIN_STEPS, shift)


GRIDS: dict[str, Callable[[int, float], torch.Tensor]] = {"uniform": uniform_grid, "simple": simple_grid}


def time_grid(steps: int, shift: float = 1.0, grid: str = "uniform") -> torch.Tensor:
    """The times at which a picture is sampled.

    Args:
        steps: intervals, a whole number ≥ 1.
        shift: time shift, > 0; 1 is none, the published model uses 6.
        grid: a key of GRIDS.

    Returns:
        (steps + 1,) float32 on the CPU, strictly ascending from 0 (noise) to 1 (data).

    Raises:
        RequestError: steps, shift or grid is not allowed.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise RequestError(f"steps {steps!r} is not allowed; give a whole number of at least 1")
    if not 0.0 < shift < float("inf"):
        raise RequestError(f"shift {shift!r} is not allowed; give a number above 0 (1 is none, 6 is usual)")
    if grid not in GRIDS:
        raise RequestError(f"unknown time grid {grid!r}; choose one of {', '.join(GRIDS)}")
    times = GRIDS[grid](steps, shift)
    # The shift's rounding may leave the end a hair beside 1, where solvers do without a last evaluation.
    times[0], times[-1] = 0.0, 1.0
    return times


def grid_times(grid: torch.Tensor | Sequence[float]) -> tuple[float, ...]:
    """The grid as Python floats, checked, so that no step has to ask the device for a time.

    Args:
        grid: at least two ascending times in [0, 1], first noise, last data. A grid may start after 0,
            where the latents are already partly a picture.

    Returns:
        The times.

    Raises:
        RequestError: the grid is too short, not ascending or leaves [0, 1].
    """
    times = tuple(float(t) for t in (grid.tolist() if isinstance(grid, torch.Tensor) else grid))
    ascending = all(a < b for a, b in pairwise(times))
    if len(times) < 2 or not ascending or times[0] < 0.0 or times[-1] > 1.0:
        raise RequestError(
            f"a time grid of {len(times)} points {times[:4]}… is not allowed; "
            "give at least two strictly ascending times within [0, 1]"
        )
    return times


def sigmas(grid: torch.Tensor | Sequence[float]) -> list[float]:
    """The grid on diffusers' axis: sigma = 1 − t, descending.

    Args:
        grid: ascending times in [0, 1].

    Returns:
        As many sigmas, from noise (1) to data (0).
    """
    return [1.0 - t for t in grid_times(grid)]
