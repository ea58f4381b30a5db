"""Which device and number format a model runs in on this machine, and why."""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from newbie_image.errors import DeviceError

DTYPES: dict[str, torch.dtype] = {
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp32": torch.float32,
}
_LONG_NAMES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32", "half": "fp16", "float": "fp32"}
_BF16_FLAGS = ("amx_bf16", "avx512_bf16")


@dataclass(frozen=True)
class DeviceChoice:
    """Where to run.

    Args:
        device: the device.
        dtype: of weights and activations; the sampler's own arithmetic is float32 in any case.
        reason: one line for the log: why this device and this dtype.
    """

    device: torch.device
    dtype: torch.dtype
    reason: str


def choose_device(device: str | None = None, dtype: str | torch.dtype | None = None) -> DeviceChoice:
    """Take the device and dtype that were asked for, or the best that there are.

    Args:
        device: ``cuda``, ``cuda:1``, ``mps``, ``cpu``; None or ``auto`` for the first of these that exists.
        dtype: ``bf16``, ``fp16``, ``fp32`` (torch's own names too); None or ``auto``: bf16 where the device
            computes in it natively, else fp16 on CUDA and MPS, else fp32.

    Raises:
        DeviceError: if the machine does not have the device, or the dtype is unknown.
    """
    chosen, why = _device(device)
    if dtype is None or dtype == "auto":
        kind, because = _best_dtype(chosen)
    else:
        kind, because = _named_dtype(dtype), "as asked for"
    return DeviceChoice(chosen, kind, f"{chosen} ({why}), {dtype_name(kind)} ({because})")


def dtype_name(dtype: torch.dtype) -> str:
    """The short name of a dtype: bf16, fp16, fp32, else torch's own."""
    for name, value in DTYPES.items():
        if value == dtype:
            return name
    return str(dtype).removeprefix("torch.")


def cpu_computes_bf16() -> bool:
    """Whether this processor multiplies in bfloat16 itself (AVX512-BF16, AMX, or Arm's BF16)."""
    if sys.platform == "linux":
        try:
            text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return False
        flags = next(
            (line for line in text.splitlines() if line.startswith(("flags", "Features"))), ""
        ).split()
        return any(flag in flags for flag in (*_BF16_FLAGS, "bf16"))
    # Apple's cores have it from the M2 on, but torch's CPU kernels there are slower in it than in float32.
    return platform.machine().lower() in ("amd64", "x86_64") and _torch_reports_bf16()


def _torch_reports_bf16() -> bool:
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(probe()) if probe is not None else False


def _device(asked: str | None) -> tuple[torch.device, str]:
    if asked is None or asked == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda"), f"the first CUDA device, {torch.cuda.get_device_name(0)}"
        if torch.backends.mps.is_available():
            return torch.device("mps"), "no CUDA device, but Apple's GPU"
        return torch.device("cpu"), "neither a CUDA device nor Apple's GPU was found"
    try:
        device = torch.device(asked)
    except RuntimeError:
        raise DeviceError(f"unknown device {asked!r}; give cuda, cuda:1, mps or cpu") from None
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            found = "no CUDA device" if not count else f"{count} CUDA device(s), numbered from 0"
            raise DeviceError(
                f"device {asked!r} was asked for, but torch sees {found}; use --device cpu or another"
            )
    elif device.type == "mps":
        if not torch.backends.mps.is_available():
            raise DeviceError(
                "device 'mps' was asked for, but this is no Apple GPU machine; use --device cpu"
            )
    elif device.type != "cpu":
        raise DeviceError(f"device {asked!r} is not supported; give cuda, cuda:1, mps or cpu")
    return device, "as asked for"


def _best_dtype(device: torch.device) -> tuple[torch.dtype, str]:
    if device.type == "cuda":
        # Emulated bf16 on cards before Ampere would be slower than fp16, which they compute natively.
        if torch.cuda.get_device_capability(device) >= (8, 0):
            return torch.bfloat16, "native on this card"
        return torch.float16, "this card has no native bf16"
    if device.type == "mps":
        return torch.bfloat16, "native on Apple's GPU"
    if cpu_computes_bf16():
        return torch.bfloat16, "this processor multiplies in bf16"
    return torch.float32, "this processor has no native bf16"


def _named_dtype(asked: str | torch.dtype) -> torch.dtype:
    if isinstance(asked, torch.dtype):
        if asked not in DTYPES.values():
            raise DeviceError(f"dtype {dtype_name(asked)} is not supported; give bf16, fp16 or fp32")
        return asked
    name = asked.removeprefix("torch.").lower()
    name = _LONG_NAMES.get(name, name)
    if name not in DTYPES:
        raise DeviceError(f"unknown dtype {asked!r}; give bf16, fp16 or fp32")
    return DTYPES[name]


def compute_device(module: object) -> torch.device | None:
    """Where a module computes: an offloaded one says it by its hook, others by their weights."""
    hook = getattr(module, "_hf_hook", None)
    device = getattr(hook, "execution_device", None)
    if device is not None:
        return torch.device(device)
    if isinstance(module, torch.nn.Module):
        parameter = next(module.parameters(), None)
        return None if parameter is None else parameter.device
    return None


def cast_module(module: object, dtype: torch.dtype) -> None:
    """Cast a model's weights; other objects are left alone.

    diffusers' own ``to`` warns of modules that must stay in float32 even where there are none.
    """
    if isinstance(module, torch.nn.Module):
        torch.nn.Module.to(module, dtype=dtype)


def bring_to_device(module: object) -> None:
    """Let an offloaded module's hook move it in before a method other than forward is called."""
    hook = getattr(module, "_hf_hook", None)
    pre_forward = getattr(hook, "pre_forward", None)
    if pre_forward is not None:
        pre_forward(module)
