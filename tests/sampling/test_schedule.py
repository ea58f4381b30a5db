from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from hypothesis import given
from hypothesis import strategies as st

from newbie_image.errors import RequestError
from newbie_image.sampling.schedule import GRIDS, grid_times, shift_time, sigmas, time_grid


@given(
    steps=st.integers(1, 200),
    shift=st.floats(0.05, 50.0),
    grid=st.sampled_from(sorted(GRIDS)),
)
def test_a_grid_of_n_steps_has_n_intervals_from_noise_to_data(steps: int, shift: float, grid: str) -> None:
    times = time_grid(steps, shift, grid)
    assert times.shape == (steps + 1,)
    assert times[0] == 0.0
    assert times[-1] == 1.0
    assert bool((times.diff() > 0).all())


def test_the_shift_moves_towards_the_noise() -> None:
    assert shift_time(torch.tensor(0.5), 6.0).item() == pytest.approx(1 / 7)
    assert bool((time_grid(20, 6.0)[1:-1] < time_grid(20, 1.0)[1:-1]).all())
    torch.testing.assert_close(time_grid(20, 1.0), torch.linspace(0, 1, 21))


@pytest.mark.parametrize("steps", [1, 7, 28, 50])
def test_uniform_is_the_grid_that_diffusers_pipelines_ask_for(steps: int) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=6.0)
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps).tolist())
    torch.testing.assert_close(
        torch.tensor(sigmas(time_grid(steps, 6.0))), scheduler.sigmas, rtol=0, atol=5e-7
    )


@pytest.mark.parametrize("steps", [20, 28, 30])
def test_simple_takes_every_so_manieth_of_a_thousand_shifted_sigmas(steps: int) -> None:
    table = [6.0 * (s / 1000) / (1 + 5.0 * (s / 1000)) for s in range(1, 1001)]
    picked = [table[-(1 + int(k * 1000 / steps))] for k in range(steps)] + [0.0]
    np.testing.assert_allclose(sigmas(time_grid(steps, 6.0, "simple")), picked, atol=2e-7)


def test_simple_is_uniform_where_steps_divide_a_thousand() -> None:
    torch.testing.assert_close(time_grid(20, 6.0, "simple"), time_grid(20, 6.0), rtol=0, atol=1e-7)
    assert not torch.allclose(time_grid(28, 6.0, "simple"), time_grid(28, 6.0), atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((0,), "steps 0"),
        ((2.5,), "steps 2.5"),
        ((4, 0.0), "shift 0.0"),
        ((4, float("nan")), "shift nan"),
        ((4, 1.0, "karras"), "unknown time grid 'karras'; choose one of uniform, simple"),
        ((1001, 1.0, "simple"), "at most 1000"),
    ],
)
def test_a_bad_grid_is_refused_with_what_is_allowed(arguments: tuple, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        time_grid(*arguments)


@pytest.mark.parametrize("times", [[0.5], [0.0, 0.0, 1.0], [1.0, 0.0], [-0.1, 1.0], [0.0, 1.1]])
def test_times_must_ascend_within_the_axis(times: list[float]) -> None:
    with pytest.raises(RequestError, match="strictly ascending"):
        grid_times(times)
