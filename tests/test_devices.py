"""Choice of device and dtype."""

from __future__ import annotations

import pytest
import torch

from newbie_image import devices
from newbie_image.devices import choose_device, compute_device, dtype_name
from newbie_image.errors import DeviceError


def test_on_the_cpu_bf16_only_where_the_processor_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "cpu_computes_bf16", lambda: True)
    assert choose_device("cpu").dtype == torch.bfloat16
    monkeypatch.setattr(devices, "cpu_computes_bf16", lambda: False)
    choice = choose_device("cpu")
    assert choice.dtype == torch.float32
    assert "no native bf16" in choice.reason


@pytest.mark.parametrize(("name", "dtype"), [("bf16", torch.bfloat16), ("float32", torch.float32)])
def test_a_dtype_may_be_asked_for(name: str, dtype: torch.dtype) -> None:
    choice = choose_device("cpu", name)
    assert choice.dtype == dtype
    assert "asked for" in choice.reason
    assert choose_device("cpu", dtype).dtype == dtype


def test_the_best_device_is_taken_and_the_reason_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    choice = choose_device()
    assert choice.device.type == "cpu"
    assert "neither" in choice.reason
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device().device.type == "mps"


@pytest.mark.parametrize(
    ("device", "dtype", "words"),
    [
        ("gpu", None, "cuda, cuda:1, mps or cpu"),
        ("xla", None, "not supported"),
        ("cpu", "int8", "bf16, fp16 or fp32"),
        ("cpu", torch.float64, "bf16, fp16 or fp32"),
    ],
)
def test_what_is_unknown_is_refused(device: str, dtype: str | torch.dtype | None, words: str) -> None:
    with pytest.raises(DeviceError, match=words):
        choose_device(device, dtype)


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="no CUDA device"):
        choose_device("cuda")
    with pytest.raises(DeviceError, match="mps"):
        choose_device("mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(DeviceError, match="2 CUDA"):
        choose_device("cuda:2")


def test_names_and_places() -> None:
    assert [dtype_name(d) for d in (torch.bfloat16, torch.float16, torch.float32)] == ["bf16", "fp16", "fp32"]
    assert compute_device(torch.nn.Linear(1, 1)) == torch.device("cpu")
    assert compute_device(object()) is None
