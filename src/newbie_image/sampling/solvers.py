"""Solvers of the flow ODE dx/dt = velocity(x, t), from noise (t = 0) to data (t = 1).

A solver walks a given time grid, one interval at a time; the grid is ours (`schedule.py`), never a
scheduler's own. Its arithmetic is float32 whatever the velocity's dtype, and the times are Python floats, so
that a step asks the device for nothing.

Which part is whose: Euler steps are diffusers' `FlowMatchEulerDiscreteScheduler`, which takes any sigmas. Its
Heun scheduler takes none, `DPMSolverMultistepScheduler` builds flow sigmas of its own, and midpoint and
res_multistep it does not have; these four are ours, and the tests compare them with diffusers where it has a
counterpart, and with their published order of convergence.

=============  =====  ==============================  ===========================================
solver         order  velocities for N intervals      the same as
=============  =====  ==============================  ===========================================
euler          1      N                               diffusers, ComfyUI, upstream
midpoint       2      2 N                             upstream (torchdiffeq's fixed-grid midpoint)
heun           2      2 N − 1 (the last is Euler)     diffusers, ComfyUI
dpmpp_2m       2      N                               diffusers; DPM-Solver++ (arXiv 2211.01095)
res_multistep  2      N                               ComfyUI; RES (arXiv 2308.02157)
=============  =====  ==============================  ===========================================
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, cast

import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

from newbie_image.errors import RequestError
from newbie_image.sampling.schedule import grid_times, sigmas

VelocityFn = Callable[[torch.Tensor, float], torch.Tensor]
"""(latents (batch, channels, height/8, width/8) float32, t in [0, 1]) → velocity, same shape, any dtype."""


@dataclass(frozen=True)
class Step:
    """One interval of the grid was walked.

    Args:
        index: of the interval, from 0.
        t: time reached, the interval's end.
        latents: (batch, channels, height/8, width/8) float32, at time t.
        prediction: present guess of the clean latents (t = 1), same shape.
    """

    index: int
    t: float
    latents: torch.Tensor
    prediction: torch.Tensor


class Solver(ABC):
    """Walks a time grid. One object serves one run at a time; :meth:`run` starts it afresh."""

    name: ClassVar[str]
    order: ClassVar[int]

    @staticmethod
    @abstractmethod
    def evaluations(steps: int) -> int:
        """How many velocities a grid of `steps` intervals that ends at t = 1 costs."""

    @staticmethod
    def asked_times(grid: torch.Tensor | Sequence[float]) -> tuple[float, ...]:
        """The times at which :meth:`run` asks for the velocity, in order.

        What depends on time alone (AdaLN factors) can so be computed before a run.

        Args:
            grid: as for :meth:`run`.
        """
        return grid_times(grid)[:-1]

    def run(
        self, velocity_fn: VelocityFn, latents: torch.Tensor, grid: torch.Tensor | Sequence[float]
    ) -> Generator[Step, torch.Tensor | None, None]:
        """Walk the grid, yielding after each interval.

        Args:
            velocity_fn: the velocity at latents and time.
            latents: (batch, channels, height/8, width/8), noise where the grid starts at 0; not changed.
            grid: ascending times in [0, 1], one more than intervals.

        Yields:
            A :class:`Step` for each interval. A reader that wants to go on from other latents sends them
            back (`generator.send(latents)`); the answer is the next step.
        """
        times = grid_times(grid)
        x = latents.float()
        self._begin(times)
        for index in range(len(times) - 1):
            x, prediction = self._advance(velocity_fn, x, index)
            replaced = yield Step(index, times[index + 1], x, prediction)
            if replaced is not None:
                x = replaced.to(device=x.device, dtype=torch.float32)

    def _begin(self, times: tuple[float, ...]) -> None:
        """Forget the last run and take the new grid."""
        self._times = times

    @abstractmethod
    def _advance(
        self, velocity_fn: VelocityFn, x: torch.Tensor, index: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents after interval `index`, and the guess of the clean latents."""


class Euler(Solver):
    """First order: a straight line over the interval. diffusers' scheduler does the step."""

    name = "euler"
    order = 1

    @staticmethod
    def evaluations(steps: int) -> int:
        return steps

    def _begin(self, times: tuple[float, ...]) -> None:
        super()._begin(times)
        descending = sigmas(times)
        self._scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)
        self._scheduler.set_timesteps(sigmas=descending[:-1])
        # It ends every grid at sigma 0, and counts intervals from where it is told to begin.
        self._scheduler.sigmas = torch.tensor(descending, dtype=torch.float32)
        self._scheduler.set_begin_index(0)

    def _advance(
        self, velocity_fn: VelocityFn, x: torch.Tensor, index: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        t = self._times[index]
        v = velocity_fn(x, t).float()
        # The scheduler counts its steps; the timestep it asks for is only read where it has not begun.
        negated, sample = cast("torch.FloatTensor", -v), cast("torch.FloatTensor", x)
        after = self._scheduler.step(negated, 1.0 - t, sample, return_dict=False)[0]
        return after, x + (1.0 - t) * v


class Midpoint(Solver):
    """Second order: the velocity in the middle of the interval carries all of it (upstream's default)."""

    name = "midpoint"
    order = 2

    @staticmethod
    def evaluations(steps: int) -> int:
        return 2 * steps

    @staticmethod
    def asked_times(grid: torch.Tensor | Sequence[float]) -> tuple[float, ...]:
        return tuple(t for a, b in pairwise(grid_times(grid)) for t in (a, a + 0.5 * (b - a)))

    def _advance(
        self, velocity_fn: VelocityFn, x: torch.Tensor, index: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        t, t_next = self._times[index], self._times[index + 1]
        half = 0.5 * (t_next - t)
        middle = x + half * velocity_fn(x, t).float()
        v = velocity_fn(middle, t + half).float()
        after = x + (t_next - t) * v
        return after, after + (1.0 - t_next) * v


class Heun(Solver):
    """Second order: the mean of the velocities at both ends.

    The interval that ends at t = 1 is an Euler step, as in diffusers and ComfyUI, so that the model is never
    asked at t = 1.
    """

    name = "heun"
    order = 2

    @staticmethod
    def evaluations(steps: int) -> int:
        return 2 * steps - 1

    @staticmethod
    def asked_times(grid: torch.Tensor | Sequence[float]) -> tuple[float, ...]:
        return tuple(t for a, b in pairwise(grid_times(grid)) for t in (a, b) if t < 1.0)

    def _advance(
        self, velocity_fn: VelocityFn, x: torch.Tensor, index: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        t, t_next = self._times[index], self._times[index + 1]
        v = velocity_fn(x, t).float()
        if t_next < 1.0:
            v = 0.5 * (v + velocity_fn(x + (t_next - t) * v, t_next).float())
        after = x + (t_next - t) * v
        return after, after + (1.0 - t_next) * v


class _Multistep(Solver):
    """Keeps the last interval's prediction of the clean latents, which gives the second order for free."""

    order = 2

    @staticmethod
    def evaluations(steps: int) -> int:
        return steps

    def _begin(self, times: tuple[float, ...]) -> None:
        super()._begin(times)
        self._previous: torch.Tensor | None = None

    def _advance(
        self, velocity_fn: VelocityFn, x: torch.Tensor, index: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        t, t_next = self._times[index], self._times[index + 1]
        prediction = x + (1.0 - t) * velocity_fn(x, t).float()
        keep = (1.0 - t_next) / (1.0 - t)
        after = keep * x + (1.0 - keep) * prediction
        if self._previous is not None and t_next < 1.0:
            slope = self._slope(self._times[index - 1], t, t_next)
            after = after + slope * (prediction - self._previous)
        self._previous = prediction
        return after, prediction

    @staticmethod
    @abstractmethod
    def _slope(t_before: float, t: float, t_next: float) -> float:
        """Weight of the difference of the last two predictions, 0 ≤ t_before < t < t_next < 1."""


class DPMSolverPlusPlus2M(_Multistep):
    """DPM-Solver++(2M), midpoint form, in the flow's own half log-SNR lambda = log(t / (1 − t)).

    At t = 0 lambda is −∞, so an interval after one that began there is of first order, as in diffusers.
    """

    name = "dpmpp_2m"

    @staticmethod
    def _slope(t_before: float, t: float, t_next: float) -> float:
        if t_before <= 0.0:
            return 0.0
        last = _half_log_snr(t) - _half_log_snr(t_before)
        h = _half_log_snr(t_next) - _half_log_snr(t)
        return -0.5 * t_next * math.expm1(-h) * h / last


class ResMultistep(_Multistep):
    """RES, two steps: exponential integrator in −log(1 − t). ComfyUI's `res_multistep`, without noise."""

    name = "res_multistep"

    @staticmethod
    def _slope(t_before: float, t: float, t_next: float) -> float:
        last = math.log1p(-t_before) - math.log1p(-t)
        h = math.log1p(-t) - math.log1p(-t_next)
        phi1 = -math.expm1(-h) / h
        phi2 = (1.0 - phi1) / h
        return h * phi2 * h / last


def _half_log_snr(t: float) -> float:
    return math.log(t) - math.log1p(-t)


SOLVERS: dict[str, type[Solver]] = {
    solver.name: solver for solver in (Euler, Midpoint, Heun, DPMSolverPlusPlus2M, ResMultistep)
}


def make_solver(name: str) -> Solver:
    """A solver by its name.

    Raises:
        RequestError: the name is none of SOLVERS.
    """
    if name not in SOLVERS:
        raise RequestError(f"unknown sampler {name!r}; choose one of {', '.join(SOLVERS)}")
    return SOLVERS[name]()
