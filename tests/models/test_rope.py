"""Rotary tables against complex numbers, and their staying float32."""

from __future__ import annotations

import torch

from newbie_image.models.rope import RotaryTables, rotate, sequence_positions

AXES_DIMS, AXES_LENS = (4, 6, 2), (64, 32, 16)


def complex_rotation(states: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    angles = []
    for axis, channels in enumerate(AXES_DIMS):
        frequencies = 10000.0 ** -(torch.arange(0, channels, 2, dtype=torch.float64) / channels)
        angles.append(positions[..., axis, None].double() * frequencies)
    turn = torch.polar(torch.ones(1, dtype=torch.float64), torch.cat(angles, dim=-1))
    pairs = torch.view_as_complex(states.double().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * turn[:, :, None]).flatten(-2)


def test_rotation_is_complex_multiplication() -> None:
    positions = sequence_positions(torch.tensor([5, 2]), rows=3, columns=4, text_length=7)
    states = torch.randn(2, 19, 3, 12)
    turned = rotate(states, RotaryTables(AXES_DIMS, AXES_LENS)(positions))
    expected = complex_rotation(states, positions)
    torch.testing.assert_close(turned.double(), expected, rtol=1e-5, atol=1e-6)


def test_positions_are_caption_index_and_caption_length_row_column() -> None:
    positions = sequence_positions(torch.tensor([5, 2]), rows=2, columns=3, text_length=6)
    assert positions.dtype == torch.int64
    assert positions[1, :6].tolist() == [[2, 0, 0], [2, 0, 1], [2, 0, 2], [2, 1, 0], [2, 1, 1], [2, 1, 2]]
    assert positions[0, 6:, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert not positions[0, 6:, 1:].any()


def test_tables_stay_float32_and_exact_when_the_model_changes_dtype() -> None:
    tables = RotaryTables(AXES_DIMS, AXES_LENS)
    before = tables.get_buffer("cos_0").clone()
    tables.to(torch.bfloat16)
    assert tables.get_buffer("cos_0").dtype == torch.float32
    assert torch.equal(tables.get_buffer("cos_0"), before)
    assert not tables.state_dict()


def test_tables_are_real_after_a_model_was_made_on_the_meta_device() -> None:
    with torch.device("meta"):
        tables = RotaryTables(AXES_DIMS, AXES_LENS)
    tables.to_empty(device="cpu")
    assert torch.equal(tables.get_buffer("sin_1"), RotaryTables(AXES_DIMS, AXES_LENS).get_buffer("sin_1"))
