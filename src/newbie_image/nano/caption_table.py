"""Captions tokenised ahead, with the labels of each picture's tokens: tables that training draws from by
index.

Every picture has the same rows: the complete caption in XML encoded whole, the same with its characters
apart, both again without positions, flat tags, a sentence, then `VARIED` captions as the last part of a
training varies them. A table is one `NNNNNN.npz` a block of renders, made by the process that renders the
block; tokens lie end to end, int16.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Final

import numpy as np

from newbie_image.nano import dataset
from newbie_image.nano.alignment import token_labels
from newbie_image.nano.caption_tokens import Captioner, GroupedTokens
from newbie_image.nano.captions import (
    in_any_order,
    sentence_caption,
    tag_caption,
    varied_caption,
    xml_caption,
)
from newbie_image.nano.dataset import Store
from newbie_image.nano.parts import TransformerRecipe
from newbie_image.nano.regional import stacked
from newbie_image.nano.world.scene import Scene

COMPLETE: Final = 6
"""Rows of a picture that say everything: XML whole and apart, without positions whole and apart, tags, a
sentence."""
VARIED: Final = 6


def complete_shares(apart: float, unplaced: float) -> tuple[float, ...]:
    """How often each complete row is drawn, as `complete_caption` has it: `apart` is the share of XML whose
    characters are encoded apart, `unplaced` that without positions."""
    xml = [place * way for place in (1 - unplaced, unplaced) for way in (1 - apart, apart)]
    return (*(0.94 * share for share in xml), 0.04, 0.02)


def caption_rows(captioner: Captioner, scene: Scene, seed: int) -> list[GroupedTokens]:
    """All rows of one picture. The same seed gives the same rows."""
    rng = random.Random(seed)
    xml = xml_caption(in_any_order(scene, rng, captioner.recipe.shuffled))
    unplaced = xml_caption(scene, positions=False)
    rows = [
        captioner.tokens(xml, False),
        captioner.tokens(xml, True, scene),
        captioner.tokens(unplaced, False),
        captioner.tokens(unplaced, True, scene),
        captioner.tokens(tag_caption(scene), False),
        captioner.tokens(sentence_caption(scene), False),
    ]
    for _ in range(VARIED):
        caption = varied_caption(scene, rng)
        rows.append(captioner.tokens(caption, rng.random() < captioner.recipe.apart, scene))
    return rows


@dataclass(frozen=True)
class Tables:
    """Rows of many pictures.

    ids, groups: all of Gemma's tokens end to end, int16 and int8. pooled_ids: Jina's, int16.
    lengths, pooled_lengths: (pictures, rows) int16. boxes: (pictures, rows, people, 4) float16, regions of
    what is encoded apart. people: (pictures,) int8, characters of each.
    labels: (pictures, tokens, labels) int8, as `token_labels`. indices: (pictures,) int64, of the store.
    """

    ids: np.ndarray
    groups: np.ndarray
    pooled_ids: np.ndarray
    lengths: np.ndarray
    pooled_lengths: np.ndarray
    boxes: np.ndarray
    people: np.ndarray
    labels: np.ndarray
    indices: np.ndarray

    @classmethod
    def of(cls, captioner: Captioner, scenes: Sequence[Scene], indices: np.ndarray, side: int) -> Tables:
        """Tables of some pictures; `side` is that of the grid of image tokens."""
        rows = [caption_rows(captioner, s, int(i)) for s, i in zip(scenes, indices, strict=True)]
        flat = [tokens for each in rows for tokens in each]
        return cls(
            np.array([i for tokens in flat for i in tokens.ids], dtype=np.int16),
            np.array([i for tokens in flat for i in tokens.groups], dtype=np.int8),
            np.array([i for tokens in flat for i in tokens.pooled_ids], dtype=np.int16),
            np.array([[len(tokens.ids) for tokens in each] for each in rows], dtype=np.int16),
            np.array([[len(tokens.pooled_ids) for tokens in each] for each in rows], dtype=np.int16),
            np.stack([stacked([tokens.boxes for tokens in each]).numpy() for each in rows]).astype(
                np.float16
            ),
            np.array([len(scene.characters) for scene in scenes], dtype=np.int8),
            np.stack([token_labels(scene, side) for scene in scenes]).astype(np.int8),
            indices,
        )

    @classmethod
    def joined(cls, tables: Sequence[Tables]) -> Tables:
        """Several tables as one, in their order."""
        names = cls.__dataclass_fields__
        return cls(**{name: np.concatenate([getattr(table, name) for table in tables]) for name in names})

    @classmethod
    def read(cls, folder: Path, limit: int | None = None) -> Tables:
        """The tables of a folder that :func:`prepare` fills, the first `limit` pictures of them.

        Raises:
            FileNotFoundError: it holds none.
        """
        files = sorted(folder.glob("[0-9]*.npz"))
        if limit is not None:
            files = files[: -(-limit // dataset.BLOCK)]
        if not files:
            raise FileNotFoundError(f"{folder} holds no caption tables; run the stage 'render' first")
        tables = []
        for file in files:
            with np.load(file) as held:
                tables.append(cls(**{name: held[name] for name in cls.__dataclass_fields__}))
        return cls.joined(tables)

    def write(self, file: Path) -> None:
        """Writes one file; it is there only when it is complete."""
        partial = file.with_suffix(".partial")
        with partial.open("wb") as out:
            np.savez(out, **{name: getattr(self, name) for name in self.__dataclass_fields__})
        partial.replace(file)


_captioners: dict[str, Captioner] = {}


def prepare_block(job: tuple[Store, Path, TransformerRecipe, int]) -> int:
    """Renders one block and writes its table, where they are missing; returns the block's number."""
    store, folder, recipe, block = job
    if not (store.folder / "done" / f"{block:06d}").exists():
        dataset._render_block((store, block))
    target = folder / f"{block:06d}.npz"
    if not target.exists():
        key = str(store.folder)
        captioner = _captioners.setdefault(key, Captioner(store, recipe))
        indices = np.arange(block * dataset.BLOCK, min((block + 1) * dataset.BLOCK, store.count))
        scenes = [store.scene(int(index)) for index in indices]
        # Image tokens are 2 × 2 latents, latents 1/8 of the picture.
        Tables.of(captioner, scenes, indices, store.size // 16).write(target)
    return block


def prepare(
    store: Store, folder: Path, recipe: TransformerRecipe, *, workers: int, until: float = float("inf")
) -> Iterator[int]:
    """Renders and tokenises block after block with all workers; yields how many pictures are ready.

    Args:
        store: what to render.
        folder: where the tables go.
        recipe: what share of the captions is encoded apart.
        workers: processes; one a core is right.
        until: `time.monotonic()` at which to stop; a block that is begun is finished.
    """
    folder.mkdir(parents=True, exist_ok=True)
    blocks = -(-store.count // dataset.BLOCK)
    missing = [block for block in range(blocks) if not (folder / f"{block:06d}.npz").exists()]
    ready = (blocks - len(missing)) * dataset.BLOCK
    yield min(ready, store.count)
    with ProcessPoolExecutor(workers, mp_context=_context()) as pool:
        waiting: set[Future[int]] = set()
        while missing or waiting:
            while missing and len(waiting) < workers and time.monotonic() < until:
                waiting.add(pool.submit(prepare_block, (store, folder, recipe, missing.pop(0))))
            if not waiting:
                break
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            ready += sum(1 for future in done if future.result() >= 0) * dataset.BLOCK
            yield min(ready, store.count)


def draw_scenes(scenes: Sequence[Scene], size: int, workers: int) -> np.ndarray:
    """Renders of some scenes, made by many processes: (scenes, size, size, 3) uint8."""
    with ProcessPoolExecutor(workers, mp_context=_context()) as pool:
        return np.stack(list(pool.map(_draw, [(scene, size) for scene in scenes], chunksize=4)))


def _draw(job: tuple[Scene, int]) -> np.ndarray:
    from newbie_image.nano.world.render import render

    return render(*job)


def _context() -> BaseContext:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    # Libraries are then loaded once for all workers.
    context.set_forkserver_preload([__name__, "newbie_image.nano.world.render"])
    return context
