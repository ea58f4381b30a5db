"""Formats that weights can have: what they take, and where they do not work. Pure arithmetic, no torch."""

from __future__ import annotations

from newbie_image.errors import DeviceError, RequestError

QUANTISATIONS = ("none", "fp8", "int8", "int4")
GROUP = 32
"""Weights of a row that share a scale and a lowest value in int4."""


def matrix_bytes(kind: str, weights: int, rows: int, item: int) -> int:
    """Bytes of matrices.

    Args:
        kind: one of QUANTISATIONS.
        weights, rows: in all of them together.
        item: bytes of a weight that is not quantised.
    """
    if kind == "none":
        return weights * item
    if kind == "int4":
        return weights // 2 + weights // GROUP * 4
    # A float32 scale a row; int8 also keeps a zero point of one byte.
    return weights + rows * (5 if kind == "int8" else 4)


def scratch_bytes(kind: str, weights: int, item: int) -> int:
    """Bytes of what a matrix is multiplied from: all formats are brought back to the activations' first."""
    if kind == "none":
        return 0
    # fp8 goes through two float32 copies, int4 through its numbers a byte each.
    return weights * {"int8": item, "int4": 1 + item, "fp8": 8 + item}[kind]


def check_format(kind: str, dtype: str | None = None, device: str | None = None) -> None:
    """Refuse a format that is unknown or does not work with a dtype or a device; planning and running alike.

    Args:
        kind: one of QUANTISATIONS.
        dtype: of the activations: ``bf16``, ``fp16``, ``fp32``; None where it is not known yet.
        device: kind of device: ``cuda``, ``cpu``, ``mps``; None likewise.

    Raises:
        RequestError: an unknown format.
        DeviceError: a dtype or device on which the format does not work.
    """
    if kind not in QUANTISATIONS:
        raise RequestError(f"unknown quantisation {kind!r}; choose one of {', '.join(QUANTISATIONS)}")
    if kind == "int8" and dtype == "fp16":
        raise DeviceError(
            "int8 weights are multiplied before they are scaled, which goes beyond fp16's largest number; "
            "take --dtype bf16, or --quantise fp8"
        )
    if kind == "fp8" and device == "mps":
        raise DeviceError("Apple's GPU has no 8-bit floats; take --quantise int8 or int4 there")
