from __future__ import annotations

import pytest
import torch

from newbie_image.errors import NumericsError, RequestError
from newbie_image.sampling import Guidance, check_finite, guided_velocity, one_batch


def pair(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, 4, 4, 6, generator=generator), torch.randn(3, 4, 4, 6, generator=generator)


def test_guided_is_unconditional_plus_scale_times_the_difference() -> None:
    conditional, unconditional = pair()
    guided = Guidance(5.0).combine(conditional, unconditional)
    torch.testing.assert_close(guided, 5.0 * conditional - 4.0 * unconditional)


def test_renorm_limits_each_picture_by_itself() -> None:
    conditional, unconditional = pair()
    unconditional[0] = conditional[0] * 1.1  # guided[0] = 0.6 · conditional[0]: below the limit, left alone
    guided = Guidance(5.0, renorm=1.0).combine(conditional, unconditional)
    free = Guidance(5.0).combine(conditional, unconditional)
    torch.testing.assert_close(guided[0], free[0])
    for k in (1, 2):
        assert guided[k].norm().item() == pytest.approx(conditional[k].norm().item(), rel=1e-5)
        direction = torch.nn.functional.cosine_similarity(guided[k].flatten(), free[k].flatten(), dim=0)
        assert direction.item() == pytest.approx(1.0, abs=1e-6)


def test_renorm_survives_a_velocity_of_zero() -> None:
    zero = torch.zeros(1, 4, 2, 2)
    assert torch.equal(Guidance(5.0, renorm=1.0).combine(zero, zero), zero)


def test_guidance_stops_at_the_truncation_and_needs_no_negative_without_effect() -> None:
    guidance = Guidance(5.0, truncation=0.25)
    assert guidance.active(0.0)
    assert guidance.active(0.2499)
    assert not guidance.active(0.25)
    assert not Guidance(1.0).active(0.0)
    assert not Guidance(5.0, truncation=0.0).active(0.0)
    assert Guidance(1.0, renorm=0.5).active(0.0)  # a limit below the norm itself does change the velocity
    assert not Guidance(1.0, renorm=1.0).active(0.0)


def counted(value: torch.Tensor, calls: list[str], name: str):
    def call(x: torch.Tensor, t: float) -> torch.Tensor:
        calls.append(name)
        return value * t + x

    return call


def test_truncated_steps_cost_half() -> None:
    (conditional, unconditional), calls = pair(), []
    velocity = guided_velocity(
        Guidance(5.0, truncation=0.5),
        counted(conditional, calls, "prompt"),
        unconditional=counted(unconditional, calls, "negative"),
    )
    x = torch.zeros_like(conditional)
    torch.testing.assert_close(velocity(x, 0.4), 0.4 * (5.0 * conditional - 4.0 * unconditional))
    torch.testing.assert_close(velocity(x, 0.5), 0.5 * conditional)
    assert calls == ["prompt", "negative", "prompt"]


def test_one_batch_and_two_passes_are_equal() -> None:
    weight = torch.nn.Conv2d(4, 4, 3, padding=1)
    texts = torch.randn(6, 4, 1, 1)

    def model(text: torch.Tensor):
        return lambda x, t: torch.tanh(weight(x) + text * (1.0 - t))

    guidance, (x, _) = Guidance(4.0, renorm=1.0), pair()
    with torch.no_grad():
        two = guided_velocity(guidance, model(texts[:3]), unconditional=model(texts[3:]))(x, 0.3)
        one = guided_velocity(guidance, model(texts[:3]), paired=one_batch(model(texts)))(x, 0.3)
    torch.testing.assert_close(one, two, rtol=0, atol=1e-5)


def test_guidance_without_a_negative_is_refused_when_it_is_needed() -> None:
    velocity = guided_velocity(Guidance(5.0, truncation=0.5), lambda x, t: x)
    x = torch.ones(1, 4, 2, 2)
    assert torch.equal(velocity(x, 0.7), x)
    with pytest.raises(RequestError, match="set the guidance scale to 1"):
        velocity(x, 0.1)


@pytest.mark.parametrize("values", [{"scale": -1.0}, {"truncation": -0.1}, {"renorm": float("nan")}])
def test_negative_settings_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(RequestError, match=next(iter(values))):
        Guidance(**values)


@pytest.mark.parametrize(
    ("dtype", "advice"),
    [(torch.float16, "bf16"), (torch.bfloat16, "fp32"), (torch.float32, "weights")],
)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_latents_that_are_no_numbers_stop_the_run(dtype: torch.dtype, advice: str, value: float) -> None:
    latents = torch.zeros(2, 4, 4, 4)
    check_finite(latents, step=3, steps=28, t=0.25, dtype=dtype)
    latents[1, 2, 3, 0] = value
    with pytest.raises(NumericsError, match=rf"step 3 of 28 \(t = 0.2500\) in .*{advice}"):
        check_finite(latents, step=3, steps=28, t=0.25, dtype=dtype)
