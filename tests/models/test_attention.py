"""Each attention backend against the formula written out, and padding that is never a key."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from newbie_image.errors import ConfigError, DeviceError
from newbie_image.models import attention
from newbie_image.models.attention import KeyPadding, attend, check_backend


def states(kv_heads: int = 2, heads: int = 6, tokens: int = 11) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return tuple(torch.randn(3, tokens, count, 8, generator=draw) for count in (heads, kv_heads, kv_heads))  # type: ignore[return-value]


def padding(packed: bool = False) -> KeyPadding:
    valid = torch.arange(11)[None] < torch.tensor([[11], [7], [1]])
    return KeyPadding.pack(valid) if packed else KeyPadding(valid)


@pytest.mark.parametrize("kv_heads", [2, 6])
@pytest.mark.parametrize("mask", [None, padding()])
def test_sdpa_equals_the_formula(kv_heads: int, mask: KeyPadding | None) -> None:
    query, key, value = states(kv_heads)
    expected = attend(query, key, value, mask, "math")
    assert expected.shape == (3, 11, 48)
    torch.testing.assert_close(attend(query, key, value, mask, "sdpa"), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(attend(query, key, value, mask, "auto"), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mask", [None, padding()])
def test_folded_groups_equal_the_formula(mask: KeyPadding | None) -> None:
    """The way of masked batches on CUDA and of everything on MPS; it runs on every device."""
    query, key, value = states()
    folded = attention._sdpa_folded(query[:, :5], key, value, mask)
    torch.testing.assert_close(folded, attend(query[:, :5], key, value, mask, "math"), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", ["sdpa", "math"])
def test_padding_is_never_a_key(backend: attention.AttentionBackend) -> None:
    query, key, value = states()
    mask = padding()
    other = torch.where(mask.valid[..., None, None], key, 1e4)
    torch.testing.assert_close(
        attend(query, other, value, mask, backend), attend(query, key, value, mask, backend)
    )


def test_packed_keys_say_where_the_valid_keys_lie() -> None:
    packed = padding(packed=True).packed
    assert packed is not None
    assert packed.indices.tolist() == [*range(11), *range(11, 18), 22]
    assert packed.starts.tolist() == [0, 11, 18, 19]
    assert packed.longest == 11


def test_unknown_backend_names_what_is_allowed() -> None:
    with pytest.raises(ConfigError, match=r"'xformers'.*auto, sdpa, flash, math"):
        check_backend("xformers")


def test_flash_without_cuda_says_what_to_use() -> None:
    with pytest.raises(DeviceError, match=r"needs a CUDA device.*'sdpa'"):
        check_backend("flash", "cpu")
    with pytest.raises(DeviceError, match="'flash'"):
        attend(*states(), None, "flash")


@pytest.mark.gpu
@pytest.mark.parametrize("mask", [None, padding()])
@pytest.mark.parametrize("backend", ["sdpa", "flash"])
def test_cuda_backends_equal_the_formula(
    mask: KeyPadding | None, backend: attention.AttentionBackend
) -> None:
    if backend == "flash" and not attention.flash_available():
        pytest.skip("flash-attn is not installed")
    query, key, value = (part.to("cuda", torch.bfloat16) for part in states())
    on_device = None if mask is None else KeyPadding.pack(mask.valid.cuda())
    expected = attend(query, key, value, on_device, "math")
    torch.testing.assert_close(attend(query, key, value, on_device, backend), expected, rtol=2e-2, atol=2e-2)


def test_appended_scores_are_taken_by_the_backend_that_was_asked_for() -> None:
    query, key, value = (each.to(torch.bfloat16) for each in states())
    batch, tokens = key.shape[:2]
    generator = torch.Generator().manual_seed(1)
    asked, given = (torch.randn(batch, tokens, 3, generator=generator) for _ in range(2))
    valid = torch.ones(batch, tokens, dtype=torch.bool)
    written = KeyPadding(valid, bias=(asked @ given.transpose(1, 2))[:, None])
    appended = KeyPadding(valid, factors=(asked, given))
    exact = attend(query, key, value, written, "math")
    assert torch.equal(attend(query, key, value, appended, "math"), exact)
    with pytest.raises(DeviceError, match="takes no added scores, which binding needs"):
        attend(query, key, value, appended, "flash")
