"""Weights of four bits: two to a byte, with a scale and a lowest value for every 32 of a row.

torchao's own four-bit formats need kernels of CUDA or XPU, or take sixteen bytes a weight while they are
multiplied (NF4). This one is brought back to the activations' format by plain torch, so that it runs wherever
torch does.

A row of weights w is kept as w ≈ lowest + scale · n with n from 0 to 15, both in bfloat16, so 5 bits a weight
in all. Of normally distributed weights that loses 7.8 % (root mean square), NF4 at 4.1 bits 9.2 %.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchao.utils import TorchAOBaseTensor

from newbie_image.memory.formats import GROUP

_LEVELS = 15


class Packed4Tensor(TorchAOBaseTensor):
    """A matrix of four-bit numbers that a linear layer takes as its weight.

    Args:
        qdata: (rows, columns/2) uint8; the even column is in the lower four bits.
        scale, lowest: (rows, columns/32) bfloat16.
        dtype: of the matrix that it stands for.
    """

    tensor_data_names = ["qdata", "scale", "lowest"]  # noqa: RUF012 (torchao reads lists)
    tensor_attribute_names = ["dtype"]  # noqa: RUF012

    qdata: Tensor
    scale: Tensor
    lowest: Tensor

    def __new__(cls, qdata: Tensor, scale: Tensor, lowest: Tensor, dtype: torch.dtype) -> Packed4Tensor:
        shape = (qdata.shape[0], 2 * qdata.shape[1])
        make: Any = torch.Tensor._make_wrapper_subclass  # pyright: ignore[reportAttributeAccessIssue]
        return make(cls, shape, dtype=dtype, device=qdata.device, requires_grad=False)

    def __init__(self, qdata: Tensor, scale: Tensor, lowest: Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        self.qdata, self.scale, self.lowest = qdata, scale, lowest

    @classmethod
    def pack(cls, weight: Tensor) -> Packed4Tensor:
        """Pack a matrix (rows, columns); the columns are a multiple of 32."""
        grouped = weight.detach().float().unflatten(-1, (-1, GROUP))
        lowest, highest = grouped.aminmax(dim=-1, keepdim=True)
        # Rounded first, so that the numbers are chosen for what will be there.
        lowest = lowest.bfloat16()
        scale = ((highest - lowest.float()) / _LEVELS).bfloat16()
        step = scale.float().clamp_min(torch.finfo(torch.float32).tiny)
        numbers = ((grouped - lowest.float()) / step).round_().clamp_(0, _LEVELS).to(torch.uint8).flatten(1)
        packed = numbers[:, 0::2] | numbers[:, 1::2] << 4
        return cls(packed, scale.squeeze(-1), lowest.squeeze(-1), weight.dtype)

    def dequantize(self, dtype: torch.dtype | None = None) -> Tensor:
        """The matrix (rows, columns) again, rounded."""
        numbers = torch.stack((self.qdata & _LEVELS, self.qdata >> 4), dim=-1)
        grouped = numbers.view(self.shape[0], -1, GROUP).to(dtype or self.dtype)
        return grouped.mul_(self.scale.unsqueeze(-1)).add_(self.lowest.unsqueeze(-1)).flatten(1)


def _linear(func: Any, types: Any, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> Tensor:
    given = dict(zip(("input", "weight", "bias"), args, strict=False)) | (kwargs or {})
    states: Tensor = given["input"]
    return F.linear(states, given["weight"].dequantize(states.dtype), given.get("bias"))


for _operation in (torch.ops.aten.linear.default,):
    Packed4Tensor.implements(_operation)(_linear)
Packed4Tensor.implements_torch_function(F.linear)(_linear)
