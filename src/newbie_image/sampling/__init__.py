"""From noise to clean latents: the time grid, the solvers of the flow ODE, and guidance."""

from __future__ import annotations

from newbie_image.sampling.guidance import Guidance, check_finite, guided_velocity, one_batch
from newbie_image.sampling.schedule import GRIDS, sigmas, time_grid
from newbie_image.sampling.solvers import SOLVERS, Solver, Step, VelocityFn, make_solver

__all__ = [
    "GRIDS",
    "SOLVERS",
    "Guidance",
    "Solver",
    "Step",
    "VelocityFn",
    "check_finite",
    "guided_velocity",
    "make_solver",
    "one_batch",
    "sigmas",
    "time_grid",
]
