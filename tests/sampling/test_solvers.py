"""Solvers against known solutions, against diffusers, and against their own documentation."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_flow_match_heun_discrete import FlowMatchHeunDiscreteScheduler

from newbie_image.errors import RequestError
from newbie_image.request import SAMPLERS
from newbie_image.sampling import SOLVERS, Step, make_solver, time_grid

ALL = sorted(SOLVERS)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*(shape or (2, 4, 4, 6)), generator=torch.Generator().manual_seed(seed))


def curved(x: torch.Tensor, t: float) -> torch.Tensor:
    """A velocity that depends on both, with no symmetry that could hide a mistake."""
    return torch.sin(1.3 * x) - 0.4 * x + math.cos(2.0 * t) + 0.3 * t * x.roll(1, dims=-1)


def last(name: str, velocity, x: torch.Tensor, grid) -> Step:
    *_, step = make_solver(name).run(velocity, x, grid)
    return step


def relative_error(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


def test_the_solvers_are_those_a_request_may_name() -> None:
    assert set(SOLVERS) == set(SAMPLERS)
    with pytest.raises(RequestError, match="unknown sampler 'ddim'; choose one of euler, midpoint"):
        make_solver("ddim")


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("steps", [1, 2, 9])
def test_straight_flows_are_solved_exactly(name: str, steps: int) -> None:
    start, data = noise(seed=1), noise(seed=2)
    for step in make_solver(name).run(lambda x, t: data - start, start, time_grid(steps, 6.0)):
        torch.testing.assert_close(step.latents, step.t * data + (1 - step.t) * start, rtol=0, atol=3e-6)
        torch.testing.assert_close(step.prediction, data, rtol=0, atol=3e-6)


@pytest.mark.parametrize("name", ALL)
def test_order_of_convergence(name: str) -> None:
    """dx/dt = k · x · cos(2t), whose solution is exp(k · sin(2t) / 2). The interval inside (0, 1) keeps every
    solver at its own order: at t = 0 and t = 1 the logarithmic ones are of first order by construction."""
    rates = torch.tensor([-2.0, -0.5, 1.0, 2.5]).reshape(1, 4, 1, 1)

    def error(steps: int) -> float:
        grid = torch.linspace(0.1, 0.8, steps + 1, dtype=torch.float64)
        end = last(name, lambda x, t: rates * x * math.cos(2.0 * t), torch.ones(1, 4, 1, 1), grid).latents
        return float((end - torch.exp(rates * (math.sin(1.6) - math.sin(0.2)) / 2.0)).norm())

    measured = math.log2(error(40) / error(80))
    order = SOLVERS[name].order
    assert order - 0.3 < measured < order + 0.4


@pytest.mark.parametrize("name", ALL)
def test_whole_grid_converges(name: str) -> None:
    def error(steps: int) -> float:
        end = last(name, lambda x, t: x * math.cos(2.0 * t), torch.ones(1, 1, 1, 1), time_grid(steps, 3.0))
        return abs(end.latents.item() - math.exp(math.sin(2.0) / 2.0))

    assert error(160) < error(40)
    assert error(160) < 0.02 if SOLVERS[name].order == 1 else error(160) < 2e-3


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_velocities_cost_what_is_documented(name: str, steps: int) -> None:
    asked: list[float] = []

    def counted(x: torch.Tensor, t: float) -> torch.Tensor:
        asked.append(t)
        return curved(x, t)

    last(name, counted, noise(), time_grid(steps, 6.0))
    assert len(asked) == SOLVERS[name].evaluations(steps)
    assert tuple(asked) == SOLVERS[name].asked_times(time_grid(steps, 6.0))
    assert all(isinstance(t, float) and 0.0 <= t < 1.0 for t in asked)


def diffusers_run(scheduler, x: torch.Tensor) -> torch.Tensor:
    """A diffusers sampling loop; it counts time as sigma = 1 − t and wants the velocity negated."""
    for timestep, sigma in zip(scheduler.timesteps, scheduler.sigmas.tolist(), strict=False):
        x = scheduler.step(-curved(x, 1.0 - sigma), timestep, x, return_dict=False)[0]
    return x


def test_euler_is_diffusers() -> None:
    grid = time_grid(12, 6.0)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)
    scheduler.set_timesteps(sigmas=(1.0 - grid[:-1]).tolist())
    assert (
        relative_error(last("euler", curved, noise(), grid).latents, diffusers_run(scheduler, noise())) < 1e-6
    )


@pytest.mark.parametrize("steps", [2, 11])
def test_heun_is_diffusers(steps: int) -> None:
    scheduler = FlowMatchHeunDiscreteScheduler(shift=6.0)
    scheduler.set_timesteps(steps)
    scheduler.set_begin_index(0)  # its timesteps repeat, so that it cannot find itself by them
    grid = (1.0 - scheduler.sigmas.double()).unique_consecutive()
    x = diffusers_run(scheduler, noise())
    assert relative_error(last("heun", curved, noise(), grid).latents, x) < 1e-5


@pytest.mark.parametrize("steps", [2, 8, 20])
@pytest.mark.parametrize("from_pure_noise", [True, False])
def test_dpmpp_2m_is_diffusers(steps: int, from_pure_noise: bool) -> None:
    scheduler = DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=6.0, final_sigmas_type="zero"
    )
    scheduler.set_timesteps(steps)
    if from_pure_noise:
        scheduler.sigmas = 1.0 - time_grid(steps, 6.0)
    grid = 1.0 - scheduler.sigmas.double()
    assert (
        relative_error(last("dpmpp_2m", curved, noise(), grid).latents, diffusers_run(scheduler, noise()))
        < 1e-5
    )


def test_res_multistep_integrates_predictions_that_are_linear_in_its_variable() -> None:
    """With lambda = −log(1 − t) the flow is dx/dlambda = D − x. Where D = a + b · lambda the two-step method
    is exact, which no other weights of the two predictions are; only its first step is of first order."""
    a, b = 0.7, -0.9
    grid = [0.0, 0.15, 0.4, 0.75]

    def velocity(x: torch.Tensor, t: float) -> torch.Tensor:
        return (a - b * math.log1p(-t) - x) / (1.0 - t)

    steps = list(make_solver("res_multistep").run(velocity, noise(), grid))
    for before, after in pairwise(steps):
        start, end = -math.log1p(-before.t), -math.log1p(-after.t)
        steady = a - b + b * start
        exact = math.exp(start - end) * (before.latents - steady) + a - b + b * end
        torch.testing.assert_close(after.latents, exact, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_arithmetic_is_float32_whatever_the_model_computes_in(name: str) -> None:
    seen: list[torch.dtype] = []

    def velocity(x: torch.Tensor, t: float) -> torch.Tensor:
        seen.append(x.dtype)
        return curved(x, t).bfloat16()

    step = last(name, velocity, noise().bfloat16(), time_grid(4, 6.0))
    assert step.latents.dtype == step.prediction.dtype == torch.float32
    assert set(seen) == {torch.float32}


@pytest.mark.parametrize("name", ALL)
def test_a_run_leaves_the_noise_alone_and_can_be_repeated(name: str) -> None:
    start, solver, grid = noise(), make_solver(name), time_grid(5, 6.0)
    first = [step.latents.clone() for step in solver.run(curved, start, grid)]
    assert torch.equal(start, noise())
    abandoned = solver.run(curved, noise(seed=3), grid)
    next(abandoned)
    abandoned.close()
    again = [step.latents for step in solver.run(curved, start, grid)]
    assert len(first) == 5
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("name", ALL)
def test_the_last_prediction_is_the_picture(name: str) -> None:
    step = last(name, curved, noise(), time_grid(6, 6.0))
    assert step.t == 1.0
    torch.testing.assert_close(step.prediction, step.latents, rtol=0, atol=1e-6)


def test_latents_sent_back_replace_the_solvers() -> None:
    grid = time_grid(4, 1.0)
    run = make_solver("euler").run(curved, noise(), grid)
    next(run)
    other = noise(seed=9)
    answered = run.send(other)
    expected = other + (grid[2] - grid[1]) * curved(other, grid[1].item())
    assert answered.index == 1
    torch.testing.assert_close(answered.latents, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_a_grid_may_start_late_and_stop_early(name: str) -> None:
    """A walk in two parts arrives where one walk does, for the solvers that carry nothing over."""
    grid = time_grid(6, 3.0).tolist()
    middle = last(name, curved, noise(), grid[:4])
    assert middle.t == grid[3]
    end = last(name, curved, middle.latents, grid[3:])
    whole = last(name, curved, noise(), grid)
    carried = name in ("dpmpp_2m", "res_multistep")
    torch.testing.assert_close(end.latents, whole.latents, rtol=0, atol=0.3 if carried else 2e-6)
