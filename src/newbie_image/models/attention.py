"""Attention behind one function, with grouped queries, padding that is never a key, and added scores.

Backends: `sdpa` is torch's scaled_dot_product_attention, `flash` the flash-attn package (CUDA, half
precision), `math` the formula written out in float32, for checking, and `auto` takes `flash` where it pays
(padded batches on CUDA with the package installed) and `sdpa` elsewhere.
"""

from __future__ import annotations

import importlib.util
import math
from typing import Literal, NamedTuple, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from newbie_image.errors import ConfigError, DeviceError

AttentionBackend = Literal["auto", "sdpa", "flash", "math"]
ATTENTION_BACKENDS: tuple[str, ...] = get_args(AttentionBackend)


class PackedKeys(NamedTuple):
    """Where the valid keys of a padded batch lie, for kernels that take sequences of uneven length.

    Attributes:
        indices: (valid keys,) int64, places in the flattened (batch · tokens).
        starts: (batch + 1,) int32, where each sample's keys begin and end.
        longest: number of keys of the longest sample.
    """

    indices: Tensor
    starts: Tensor
    longest: int


class KeyPadding(NamedTuple):
    """Which tokens may be keys, for whom, and how gladly they are looked at.

    Attributes:
        valid: (batch, tokens) bool.
        packed: the same for kernels that want it.
        bias: (batch, 1, tokens, tokens) float32, added to the scores of query and key; −inf where a key is
            barred, padding included; None where only padding is.
        factors: the same bias as queries (batch, tokens, rank) and keys (batch, tokens, rank) whose product
            it is: appended to queries and keys for kernels that take no mask; its barred pairs are finite.
    """

    valid: Tensor
    packed: PackedKeys | None = None
    bias: Tensor | None = None
    factors: tuple[Tensor, Tensor] | None = None

    @staticmethod
    def pack(valid: Tensor) -> KeyPadding:
        """Both forms of a mask. Reads sizes back from the device: for preparing, never for a step."""
        counts = valid.sum(dim=1, dtype=torch.int32)
        starts = F.pad(counts.cumsum(0, dtype=torch.int32), (1, 0))
        return KeyPadding(valid, PackedKeys(valid.flatten().nonzero().flatten(), starts, int(counts.max())))


_NO_ADDED_SCORES = (
    "attention backend 'flash' takes no added scores, which binding needs; use 'sdpa' or 'auto'"
)


def flash_available() -> bool:
    """Whether the flash-attn package can be imported."""
    return importlib.util.find_spec("flash_attn") is not None


def check_backend(backend: str, device: torch.device | str | None = None) -> AttentionBackend:
    """Returns the backend if it is known and can run on the device.

    Raises:
        ConfigError: unknown name.
        DeviceError: flash without a CUDA device or without its package.
    """
    if backend not in ATTENTION_BACKENDS:
        raise ConfigError(
            f"unknown attention backend {backend!r}; allowed are {', '.join(ATTENTION_BACKENDS)}"
        )
    if backend == "flash":
        if device is not None and torch.device(device).type != "cuda":
            raise DeviceError(
                f"attention backend 'flash' needs a CUDA device, the model is on {device}; "
                "use 'sdpa' or 'auto'"
            )
        if not flash_available():
            raise DeviceError(
                "attention backend 'flash' needs the package flash-attn, which is not installed; "
                "run `pip install flash-attn --no-build-isolation` or use 'sdpa' or 'auto'"
            )
    return cast(AttentionBackend, backend)


def wants_packed_keys(backend: AttentionBackend, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a padded batch will go to the flash kernel, so that the packed form is worth making."""
    fits = device.type == "cuda" and dtype in (torch.float16, torch.bfloat16) and flash_available()
    return fits and backend in ("auto", "flash")


def attend(
    query: Tensor, key: Tensor, value: Tensor, padding: KeyPadding | None, backend: AttentionBackend = "auto"
) -> Tensor:
    """softmax(q·kᵀ/√head_dim)·v over the valid keys.

    Args:
        query: (batch, queries, heads, head_dim).
        key, value: (batch, tokens, kv_heads, head_dim); heads is a multiple of kv_heads.
        padding: which of the tokens are keys; None when all are, so that the fastest kernels apply.
        backend: see the module.
    Returns:
        (batch, queries, heads · head_dim) in the dtype of the query.
    Raises:
        DeviceError: flash asked for where it cannot run.
    """
    if backend == "math":
        return _written_out(query, key, value, padding)
    if padding is not None and padding.factors is not None:
        if backend == "flash":
            raise DeviceError(_NO_ADDED_SCORES)
        return _appended(query, key, value, padding.factors)
    flash = backend == "flash"
    if backend == "auto" and padding is not None and padding.packed is not None:
        flash = wants_packed_keys(backend, query.device, query.dtype)
    if flash:
        return _flash(query, key, value, padding)
    return _sdpa(query, key, value, padding)


def _sdpa(query: Tensor, key: Tensor, value: Tensor, padding: KeyPadding | None) -> Tensor:
    # torch groups queries itself on the CPU and in CUDA's flash kernel, which takes no mask; elsewhere it
    # would fall back to writing the scores out.
    grouped = query.shape[2] != key.shape[2]
    if grouped and not (query.is_cpu or (query.is_cuda and padding is None)):
        return _sdpa_folded(query, key, value, padding)
    mask = None if padding is None else _mask(padding, query)
    out = F.scaled_dot_product_attention(
        query.transpose(1, 2),
        key.transpose(1, 2),
        value.transpose(1, 2),
        attn_mask=mask,
        enable_gqa=grouped,
    )
    return out.transpose(1, 2).flatten(2)


def _appended(query: Tensor, key: Tensor, value: Tensor, factors: tuple[Tensor, Tensor]) -> Tensor:
    """A bias of low rank in further channels of queries and keys: no mask, so that flash kernels take it."""
    channels = query.shape[-1]
    rank = factors[0].shape[-1]
    room = -(channels + rank) % 8 + rank
    asked = F.pad(factors[0][:, : query.shape[1]] * math.sqrt(channels), (0, room - rank)).to(query.dtype)
    given = F.pad(factors[1], (0, room - rank)).to(key.dtype)
    query = torch.cat([query, asked[:, :, None].expand(-1, -1, query.shape[2], -1)], dim=-1)
    key = torch.cat([key, given[:, :, None].expand(-1, -1, key.shape[2], -1)], dim=-1)
    # Kernels want values as wide as keys.
    out = F.scaled_dot_product_attention(
        query.transpose(1, 2),
        key.transpose(1, 2),
        F.pad(value, (0, room)).transpose(1, 2),
        scale=1 / math.sqrt(channels),
        enable_gqa=query.shape[2] != key.shape[2],
    )
    return out[..., :channels].transpose(1, 2).flatten(2)


def _mask(padding: KeyPadding, query: Tensor) -> Tensor:
    """(batch, 1, queries or 1, tokens): booleans where there is no bias, else an added term."""
    if padding.bias is None:
        return padding.valid[:, None, None, :]
    return padding.bias[:, :, : query.shape[1]].to(query.dtype)


def _sdpa_folded(query: Tensor, key: Tensor, value: Tensor, padding: KeyPadding | None) -> Tensor:
    # The heads of a group ask the same keys, and no query is barred from any of them that another may see: so
    # a group is one head with more queries, which every kernel takes, masks included, without copies of keys.
    batch, queries, heads, _ = query.shape
    groups = key.shape[2]
    folded = query.unflatten(2, (groups, -1)).permute(0, 2, 3, 1, 4).flatten(2, 3)
    mask = None if padding is None else _mask(padding, query)
    if mask is not None and mask.shape[2] > 1:
        mask = mask.repeat(1, 1, heads // groups, 1)
    out = F.scaled_dot_product_attention(folded, key.transpose(1, 2), value.transpose(1, 2), attn_mask=mask)
    out = out.unflatten(2, (heads // groups, queries)).permute(0, 3, 1, 2, 4)
    return out.reshape(batch, queries, -1)


def _flash(query: Tensor, key: Tensor, value: Tensor, padding: KeyPadding | None) -> Tensor:
    check_backend("flash", query.device)
    from flash_attn import flash_attn_func, flash_attn_varlen_func  # pyright: ignore[reportMissingImports]

    if padding is None:
        return flash_attn_func(query, key, value).flatten(2)
    if padding.bias is not None:
        raise DeviceError(_NO_ADDED_SCORES)
    if padding.packed is None:
        raise DeviceError(
            "attention backend 'flash' needs padded captions prepared beforehand; "
            "call prepare_text() and velocity(), or use 'sdpa' or 'auto'"
        )
    batch, queries = query.shape[:2]
    indices, starts, longest = padding.packed
    # Only keys and values are packed; padded queries are computed and never read.
    out = flash_attn_varlen_func(
        query.flatten(0, 1),
        key.flatten(0, 1).index_select(0, indices),
        value.flatten(0, 1).index_select(0, indices),
        cu_seqlens_q=torch.arange(0, (batch + 1) * queries, queries, dtype=torch.int32, device=query.device),
        cu_seqlens_k=starts,
        max_seqlen_q=queries,
        max_seqlen_k=longest,
    )
    return out.unflatten(0, (batch, queries)).flatten(2)


def _written_out(query: Tensor, key: Tensor, value: Tensor, padding: KeyPadding | None) -> Tensor:
    groups = key.shape[2]
    grouped = query.float().unflatten(2, (groups, -1))
    scores = torch.einsum("bqgrd,bkgd->bgrqk", grouped, key.float()) / math.sqrt(query.shape[-1])
    if padding is not None and padding.factors is not None:
        asked, given = (each.float() for each in padding.factors)
        scores = scores + (asked[:, : query.shape[1]] @ given.transpose(1, 2))[:, None, None]
    elif padding is not None and padding.bias is not None:
        scores = scores + padding.bias[:, :, None, : query.shape[1]]
    elif padding is not None:
        scores = scores.masked_fill(~padding.valid[:, None, None, None, :], float("-inf"))
    out = torch.einsum("bgrqk,bkgd->bqgrd", scores.softmax(dim=-1), value.float())
    return out.flatten(2).to(query.dtype)
