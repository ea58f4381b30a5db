"""Room for tensors and copies into it, also where one tensor is made of several.

A quantised weight wraps the tensors that hold its numbers (whole numbers, scales). What moves weights between
host and device does it with each of them, so that every format moves that torch can take apart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass


def is_quantised(tensor: object) -> bool:
    """Whether a tensor wraps others that hold its numbers."""
    return is_traceable_wrapper_subclass(tensor)


def parts_of(tensor: Tensor) -> list[Tensor]:
    """The tensors that hold the numbers: those inside a quantised one, else the tensor itself."""
    if not is_quantised(tensor):
        return [tensor]
    names, _ = _apart(tensor)
    return [part for name in names for part in parts_of(getattr(tensor, name))]


def held_bytes(tensor: Tensor) -> int:
    """Bytes of the numbers, scales included."""
    return sum(part.nbytes for part in parts_of(tensor))


def room_like(tensor: Tensor, device: torch.device) -> Tensor:
    """Uninitialised room on a device for a copy of a tensor."""
    return _remade(tensor, lambda part: torch.empty_like(part, device=device))


def copy_into(room: Tensor, tensor: Tensor, *, non_blocking: bool = False) -> Tensor:
    """Copy a tensor into room that was made for it, and give the room back."""
    for target, source in zip(parts_of(room), parts_of(tensor), strict=True):
        target.copy_(source, non_blocking=non_blocking)
    return room


def pinned(tensor: Tensor) -> Tensor:
    """The tensor in pinned memory, or as it is where the system does not give any."""
    try:
        return _remade(tensor.detach(), lambda part: part.pin_memory())
    except RuntimeError:
        return tensor


def _remade(tensor: Tensor, make: Callable[[Tensor], Tensor]) -> Tensor:
    if not is_quantised(tensor):
        return make(tensor)
    names, context = _apart(tensor)
    inner = {name: _remade(getattr(tensor, name), make) for name in names}
    kind: Any = type(tensor)
    return kind.__tensor_unflatten__(inner, context, tensor.shape, tensor.stride())


def _apart(tensor: Tensor) -> tuple[list[str], Any]:
    whole: Any = tensor
    return whole.__tensor_flatten__()
