"""Which words the picture reads: attention of image tokens to caption tokens, collected while it is drawn.

Two kinds of maps. `attention` is the softmax itself, the mean over heads. `similarity` is the likeness of
what attention gives an image token and a caption token (as in ConceptAttention, arXiv 2502.04320), which also
says what a token of the picture has become. Only chosen blocks and steps are looked at, one sum is kept for
each kind, and nothing is collected unless somebody looks. How far guidance pulls can be noted beside them.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import torch
from torch import Tensor

from newbie_image.errors import RequestError
from newbie_image.models.attention import KeyPadding
from newbie_image.models.layers import JointAttention

Kind = Literal["attention", "similarity"]
MAX_SCORES: Final = 2**24
"""Scores of attention that are written out at a time: 64 MiB, and as much again for their softmax."""


@dataclass
class Sight:
    """A collector of maps for the first rows of a batch, those of the prompt.

    Args:
        blocks: joint blocks to look at, by number; None for the middle third.
        steps: steps to look at, by number from 0; None for all.
        kind: see the module.
        chunk: image tokens that are looked at in one go, at most; fewer where their scores would be more than
            MAX_SCORES, which bounds memory.
        pull: also note, at every step, how far guidance pulls.

    Attributes:
        total: (rows, caption tokens, image tokens) float32 on the CPU, sum over what was looked at; None at
            first.
        looks: how many looks the sum holds.
        step: number of the present step; the reader of the events sets it.
        pulls: step → (calls, rows): the norm of conditional minus unconditional velocity over a whole picture
            (channels, rows and columns). Steps without guidance are not in it.
    """

    blocks: tuple[int, ...] | None = None
    steps: frozenset[int] | None = None
    kind: Kind = "attention"
    chunk: int = 1024
    pull: bool = False
    total: Tensor | None = field(default=None, init=False)
    looks: int = field(default=0, init=False)
    step: int = field(default=0, init=False)
    pulls: dict[int, list[list[float]]] = field(default_factory=dict, init=False)
    _image: int = field(default=0, init=False)
    _rows: int = field(default=0, init=False)

    @property
    def maps(self) -> Tensor:
        """(rows, caption tokens, image tokens): the mean of what was collected.

        Raises:
            ValueError: nothing was collected.
        """
        if self.total is None:
            raise ValueError("nothing was looked at: no step or block of those asked for was run")
        return self.total / self.looks

    def forget(self) -> None:
        """Begins anew."""
        self.total, self.looks = None, 0
        self.pulls.clear()

    def check(self, blocks: int, steps: int) -> None:
        """Holds what is asked for against a model of `blocks` joint blocks and a run of `steps` steps.

        Raises:
            RequestError: a block or step that is not there, or nothing that could be looked at.
        """
        for name, asked, count in (("block", self.blocks, blocks), ("step", self.steps, steps)):
            unknown = sorted(number for number in asked or () if not 0 <= number < count)
            if unknown:
                raise RequestError(
                    f"there is no {name} {unknown[0]} to look at; from 0 there are 0 to {count - 1}"
                )
            if asked is not None and not asked:
                raise RequestError(f"no {name} to look at; give at least one of 0 to {count - 1}")
        if self.kind == "similarity" and set(self._chosen(blocks)) == {blocks - 1}:
            raise RequestError(
                f"similarity cannot be seen in block {blocks - 1} alone, the last one, which keeps the "
                "picture only; give a block below it, or the kind attention"
            )

    def _chosen(self, count: int) -> Sequence[int]:
        """The blocks that are looked at, of `count`."""
        return block_numbers("middle", count) if self.blocks is None else self.blocks

    def note_pull(self, conditional: Tensor, unconditional: Tensor) -> None:
        """Notes how far guidance pulls, if that is wanted.

        Args:
            conditional, unconditional: (batch, channels, height/8, width/8) velocities.
        """
        if self.pull:
            apart = conditional.float() - unconditional.float()
            norms = torch.linalg.vector_norm(apart, dim=tuple(range(1, apart.ndim))).tolist()
            self.pulls.setdefault(self.step, []).append(norms)

    @contextlib.contextmanager
    def watching(self, transformer: Any, image_tokens: int, rows: int) -> Iterator[None]:
        """Looks at what the transformer does inside, at its first `rows` samples."""
        if self.steps is not None and self.step not in self.steps:
            yield
            return
        chosen = self._chosen(len(transformer.layers))
        self._image, self._rows = image_tokens, rows
        handles = []
        for number in chosen:
            attention = transformer.layers[number].attention
            if self.kind == "attention":
                handles.append(attention.register_forward_pre_hook(self._look))
            else:
                handles.append(attention.register_forward_hook(self._compare))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _look(self, module: JointAttention, arguments: Sequence[Any]) -> None:
        states, rotary, padding = arguments[:3]
        states, rotary = states[: self._rows], rotary.rows(0, self._rows)
        with torch.no_grad():
            query, key, _ = module._project(states, rotary)
            self._add(_attention(query, key, padding, self._image, self.chunk))

    def _compare(self, _module: JointAttention, _arguments: Sequence[Any], output: Tensor) -> None:
        if output.shape[1] <= self._image:
            return  # the last block keeps the picture alone
        with torch.no_grad():
            states = torch.nn.functional.normalize(output[: self._rows].float(), dim=-1)
            image, caption = states[:, : self._image], states[:, self._image :]
            self._add(caption @ image.transpose(1, 2))

    def _add(self, found: Tensor) -> None:
        found = found.float().cpu()
        if self.total is not None and self.total.shape != found.shape:
            raise RequestError(
                f"maps of (pictures, caption tokens, image tokens) {tuple(self.total.shape)} and "
                f"{tuple(found.shape)} cannot be added; look at one batch of pictures under one prompt"
            )
        self.total = found if self.total is None else self.total + found
        self.looks += 1


def block_numbers(name: str, count: int) -> tuple[int, ...]:
    """The blocks that a word means, of `count` joint blocks: a third of them at least one block wide.

    Args:
        name: all, early, middle or late.
        count: at least 1.

    Raises:
        RequestError: another word.
    """
    third = count // 3
    spans = {
        "all": range(count),
        "early": range(max(1, third)),
        "middle": range(third, count - third),
        "late": range(count - max(1, third), count),
    }
    if name not in spans:
        raise RequestError(f"unknown blocks {name!r}; choose one of {', '.join(spans)}, or numbers as 0-3,7")
    return tuple(spans[name])


def _attention(query: Tensor, key: Tensor, padding: KeyPadding | None, image: int, chunk: int) -> Tensor:
    """(batch, caption tokens, image tokens): what share of its attention each image token gives each word."""
    batch, _, heads, channels = query.shape
    groups = key.shape[2]
    chunk = max(1, min(chunk, MAX_SCORES // (batch * heads * key.shape[1])))
    parts = []
    for start in range(0, image, chunk):
        asks = query[:, start : min(start + chunk, image)].float().unflatten(2, (groups, -1))
        scores = torch.einsum("bqgrd,bkgd->bgrqk", asks, key.float()) / math.sqrt(channels)
        told = _added(padding, batch, slice(start, start + asks.shape[1]))
        if told is not None:
            scores = scores + told[:, None, None]
        parts.append(scores.softmax(-1)[..., image:].sum((1, 2)) / heads)
    return torch.cat(parts, 1).transpose(1, 2)


def _added(padding: KeyPadding | None, batch: int, queries: slice) -> Tensor | None:
    """(batch, queries or 1, tokens) of added scores."""
    if padding is None:
        return None
    if padding.factors is not None:
        asked, given = padding.factors
        return asked[:batch, queries].float() @ given[:batch].float().transpose(1, 2)
    if padding.bias is not None:
        return padding.bias[:batch, 0, queries].float()
    barred = ~padding.valid[:batch, None, :]
    return torch.zeros_like(barred, dtype=torch.float32).masked_fill(barred, -math.inf)


def character_maps(maps: Tensor, groups: Sequence[int], characters: int) -> Tensor:
    """The mean map of each character's tokens.

    Args:
        maps: (caption tokens, image tokens).
        groups: of each caption token, see `GroupedText`; padding behind them is left out.
        characters: how many there are.
    Returns:
        (characters, image tokens); nothing but 0 for a character without tokens.
    """
    of = torch.tensor(groups)
    found = maps.new_zeros(characters, maps.shape[1])
    for number in range(1, characters + 1):
        if number in groups:
            found[number - 1] = maps[: len(of)][of == number].mean(0)
    return found


def found_masks(maps: Tensor, groups: Sequence[int], grid: tuple[int, int], characters: int) -> Tensor:
    """Regions from what an early step's picture reads: where a character's words are read more than others'.

    Args:
        maps: (caption tokens, image tokens), from `Sight`.
        groups: of each caption token, see `GroupedText`.
        grid: image tokens downwards and across.
        characters: how many there are.
    Returns:
        (characters, rows, columns) in [0, 1]; an image token's shares sum to 1 at most, and its background's
        is what is left. A character of whom the text says nothing has no region.
    """
    mass = character_maps(maps, groups, characters)
    # Each character's words against its own mean: long blocks and loud ones count alike.
    mass = (mass / mass.mean(1, keepdim=True).clamp_min(1e-12)).view(characters, 1, *grid)
    smooth = torch.nn.functional.avg_pool2d(mass, 3, 1, 1, count_include_pad=False)[:, 0]
    share = smooth.pow(4) / smooth.pow(4).sum(0, keepdim=True).clamp_min(1e-12)
    strong = (smooth.amax(0) / smooth.amax(0).mean().clamp_min(1e-12)).clamp(0, 1)
    return share * strong
