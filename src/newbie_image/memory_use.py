"""How much memory a run took at its highest, and what to say when it was not enough."""

from __future__ import annotations

import sys

import torch

from newbie_image.request import GenerationRequest


def reset_peak_memory(device: torch.device) -> None:
    """Begin a new measurement where the device keeps one."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int | None:
    """Highest memory in bytes: since the last reset on CUDA, of the whole process on the CPU, else None."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type != "cpu" or sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in KiB, macOS in bytes.
    return peak if sys.platform == "darwin" else peak * 1024


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device's or the machine's memory did not suffice."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    text = str(error)
    return any(sign in text for sign in ("out of memory", "can't allocate memory", "not enough memory"))


def memory_advice(request: GenerationRequest, error: BaseException, plan: str | None = None) -> str:
    """One line: what ran out, and what can be changed; ``plan`` says what would fit, where that is known."""
    advice = [
        "a smaller batch" if request.batch > 1 else None,
        "--offload model",
        None if request.tiled else "tiled decoding",
        "a smaller resolution",
    ]
    options = ", ".join(option for option in advice if option)
    reason = str(error).splitlines()[0].split(". ")[0]
    fits = "" if plan is None else f"; what should fit is {plan}"
    return (
        f"memory ran out at {request.width}×{request.height}, batch {request.batch} ({reason}); "
        f"try {options}{fits}"
    )
