"""Captions as both encoders read them: tokens, groups, and batches of about equally long texts."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from newbie_image.models.gemma_text import PREFIX
from newbie_image.nano.alignment import token_labels
from newbie_image.nano.captions import complete_caption, varied_caption, xml_caption
from newbie_image.nano.dataset import Store
from newbie_image.nano.parts import TransformerRecipe
from newbie_image.nano.regional import Boxes, caption_boxes, stacked
from newbie_image.nano.tokenizer import TAG_SYSTEM_PROMPT, XML_SYSTEM_PROMPT, build_tokenizer
from newbie_image.nano.world.scene import Scene

GEMMA_PAD: Final = 0
JINA_PAD: Final = 1


@dataclass(frozen=True)
class Batch:
    """Tokenised captions with the indices of their pictures.

    indices: (batch,). said: (batch,) float32, 0 where the caption is empty. ids, mask, groups, pooled_ids,
    pooled_mask: (batch, length) int64; groups are 0 throughout where the caption is encoded whole.
    boxes: (batch, people, 4) float32, see :mod:`newbie_image.nano.regional`. full: (batch,) bool, whether
    binding `full` acts where there are boxes.
    """

    indices: np.ndarray
    said: np.ndarray
    ids: Tensor
    mask: Tensor
    groups: Tensor
    pooled_ids: Tensor
    pooled_mask: Tensor
    boxes: Tensor
    full: Tensor


@dataclass(frozen=True)
class GroupedTokens:
    """One caption: Gemma's tokens with their groups (see `GemmaTextModel`), and Jina's; the regions that its
    characters are kept to, none where they are not."""

    ids: list[int]
    groups: list[int]
    pooled_ids: list[int]
    boxes: Boxes = ()

    @property
    def length(self) -> int:
        return max(len(self.ids), len(self.pooled_ids))


def caption_blocks(caption: str) -> dict[int, str]:
    """The blocks of a caption in XML by character number, and last, as 0, what is no character's."""
    pieces = re.split(r"<character_(\d+)>.*?</character_\1>\s*", caption, flags=re.DOTALL)
    found = re.finditer(r"<character_(\d+)>.*?</character_\1>", caption, flags=re.DOTALL)
    blocks = {int(match[1]): match[0] for match in found}
    return {**blocks, 0: "".join(pieces[::2])}


def _padded(rows: list[list[int]], length: int, fill: int) -> tuple[Tensor, Tensor]:
    """(rows, length) int64 padded on the right, and 1 where there is something."""
    values = torch.full((len(rows), length), fill)
    mask = torch.zeros((len(rows), length), dtype=torch.int64)
    for row, (value, seen) in zip(rows, zip(values, mask, strict=True), strict=True):
        value[: len(row)] = torch.tensor(row, dtype=torch.int64)
        seen[: len(row)] = 1
    return values, mask


class Captioner:
    """Draws batches of captions, sorted so that texts of one batch are about equally long."""

    def __init__(self, store: Store, recipe: TransformerRecipe, few_lengths: bool = False) -> None:
        self.store = store
        self.recipe = recipe
        self.lengths = recipe.text_lengths if few_lengths else ()
        self.gemma = build_tokenizer("gemma")
        self.jina = build_tokenizer("jina")
        self.scenes: dict[int, Any] = {}
        self._labels: dict[int, np.ndarray] = {}

    def pool(
        self, rng: random.Random, candidates: np.ndarray, varied: bool = True, batches: int = 4
    ) -> Iterator[Batch]:
        """Yields `batches` batches over random `candidates` (picture indices); with
        `varied`, half of the captions are (see `varied_caption`)."""
        size = self.recipe.batch
        rows: list[tuple[int, GroupedTokens]] = []
        for _ in range(size * batches):
            index = int(candidates[rng.randrange(len(candidates))])
            empty = rng.random() < self.recipe.unconditional
            vary = varied and rng.random() < 0.5
            scene, caption = self.scene(index), ""
            if vary and not empty:
                caption = varied_caption(scene, rng)
            elif not empty:
                caption = complete_caption(scene, rng, self.recipe.shuffled, self.recipe.unplaced)
            apart, regional = rng.random() < self.recipe.apart, rng.random() < self.recipe.regional
            rows.append((index, self.tokens(caption, apart, scene if regional else None)))
        rows.sort(key=lambda row: row[1].length)
        order = list(range(batches))
        rng.shuffle(order)
        for part in order:
            chosen = rows[part * size : (part + 1) * size]
            longest = max(tokens.length for _, tokens in chosen)
            length = next((n for n in self.lengths if n >= longest), -(-longest // 8) * 8)
            yield Batch(
                np.array([index for index, _ in chosen]),
                np.array([len(tokens.pooled_ids) > 2 for _, tokens in chosen], dtype=np.float32),
                *_padded([tokens.ids for _, tokens in chosen], length, GEMMA_PAD),
                _padded([tokens.groups for _, tokens in chosen], length, 0)[0],
                *_padded([tokens.pooled_ids for _, tokens in chosen], length, JINA_PAD),
                stacked([tokens.boxes for _, tokens in chosen]),
                torch.tensor([rng.random() < self.recipe.full for _ in chosen]),
            )

    def tokens(self, caption: str, apart: bool, scene: Scene | None = None) -> GroupedTokens:
        """A caption's tokens, encoded whole, or each character's block apart behind the system prompt; then
        the pooled vector is that of the general tags alone, and with `scene` characters are kept to their
        regions: those that the caption says, or where it says none those of the scene, whose people it names
        in their order."""
        if not (apart and caption.startswith("<character_")):
            ids = self.gemma(with_system_prompt(caption)).input_ids
            return GroupedTokens(ids, [0] * len(ids), self.jina(caption).input_ids)
        blocks = caption_blocks(caption)
        first = len(self.gemma(XML_SYSTEM_PROMPT).input_ids)
        ids: list[int] = []
        groups: list[int] = []
        for number, text in blocks.items():
            encoded = self.gemma(XML_SYSTEM_PROMPT + text).input_ids
            if not ids:
                ids, groups = encoded[:first], [PREFIX] * first
            ids += encoded[first:]
            groups += [number] * (len(encoded) - first)
        boxes: Boxes = ()
        if scene is not None:
            boxes = caption_boxes(caption) or caption_boxes(xml_caption(scene))
        return GroupedTokens(ids, groups, self.jina(blocks[0]).input_ids, boxes)

    def labels(self, indices: np.ndarray, side: int) -> np.ndarray:
        """Token labels of pictures, (batch, side·side, labels) int64, remembered."""
        for index in map(int, indices):
            if index not in self._labels:
                self._labels[index] = token_labels(self.scene(index), side)
        return np.stack([self._labels[int(index)] for index in indices]).astype(np.int64)

    def scene(self, index: int) -> Any:
        """The scene of a picture, remembered."""
        if index not in self.scenes:
            self.scenes[index] = self.store.scene(index)
        return self.scenes[index]


def with_system_prompt(caption: str) -> str:
    """What Gemma reads of a caption: its kind's system prompt in front; nothing in front of an empty one."""
    if not caption:
        return ""
    return (XML_SYSTEM_PROMPT if caption.lstrip().startswith("<") else TAG_SYSTEM_PROMPT) + caption
