"""Renders of the world on disk: a memory-mapped array that grows in the background and is read while it
grows.

A store is a folder with `pictures.npy` (count, size, size, 3) uint8, `eyes.npy` (count, size/8, size/8) uint8
importance, and `done/NNNNNN` marks, one a finished block. Scene i of a store has the seed `first_seed + i`,
so the
labels are never stored: `sample_scene(seed)` gives them back.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from newbie_image.errors import CheckpointError
from newbie_image.nano.world.held_out import without_held_out_pairs
from newbie_image.nano.world.scene import Scene, sample_scene

BLOCK = 250
HELD_OUT_SEED = 1_000_000_000
"""Seeds from here on are never trained on: evaluation uses them."""
READER_SEED = 500_000_000
"""Seeds of the renders that the evaluator's classifiers learn from; the generator never sees them."""


@contextmanager
def one_at_a_time(file: Path) -> Iterator[None]:
    """Holds a lock that other processes wait for; where the system has none (Windows), nothing is held."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True)
class Store:
    """A folder of renders.

    Args:
        folder: where it lies.
        count: pictures it will hold.
        size: pixels of a side.
        first_seed: the seed of picture 0.
        counts: probability of each number of characters.
        hold_out_pairs: nobody in it has one of :data:`world.held_out.HELD_OUT_PAIRS`.
    """

    folder: Path
    count: int
    size: int
    first_seed: int
    counts: dict[int, float]
    hold_out_pairs: bool = False

    @classmethod
    def create(
        cls,
        folder: Path,
        count: int,
        size: int,
        first_seed: int,
        counts: dict[int, float],
        hold_out_pairs: bool = False,
    ) -> Store:
        """Opens the folder, makes the (sparse) arrays if they are not there yet, and checks that it is the
        same."""
        store = cls(folder, count, size, first_seed, counts, hold_out_pairs)
        (folder / "done").mkdir(parents=True, exist_ok=True)
        with one_at_a_time(folder / "store.lock"):
            store._open()
        return store

    def _open(self) -> None:
        folder, count, size = self.folder, self.count, self.size
        description = json.dumps(
            {
                "count": count,
                "size": size,
                "first_seed": self.first_seed,
                "counts": {str(k): v for k, v in self.counts.items()},
                # Written only where it holds, so that folders from before it are still known.
                **({"hold_out_pairs": True} if self.hold_out_pairs else {}),
            }
        )
        note = folder / "store.json"
        if note.exists() and note.read_text() != description:
            raise CheckpointError(
                f"{folder} holds another set of renders ({note.read_text()}); remove it or name another"
            )
        if not note.exists():
            np.lib.format.open_memmap(
                folder / "pictures.npy", mode="w+", dtype=np.uint8, shape=(count, size, size, 3)
            ).flush()
            np.lib.format.open_memmap(
                folder / "eyes.npy", mode="w+", dtype=np.uint8, shape=(count, size // 4, size // 4)
            ).flush()
            note.write_text(description)

    def pictures(self) -> np.ndarray:
        """(count, size, size, 3) uint8, memory-mapped; only `finished()` indices hold pictures."""
        return np.load(self.folder / "pictures.npy", mmap_mode="r")

    def importance(self) -> np.ndarray:
        """(count, size/4, size/4) uint8: how much an error there counts, in tenths, memory-mapped."""
        return np.load(self.folder / "eyes.npy", mmap_mode="r")

    def scene(self, index: int) -> Scene:
        """The scene that picture `index` shows."""
        scene = sample_scene(self.first_seed + index, counts=self.counts)
        return without_held_out_pairs(scene) if self.hold_out_pairs else scene

    def finished(self) -> np.ndarray:
        """Indices of the pictures that are rendered, ascending."""
        blocks = sorted(int(name) for name in os.listdir(self.folder / "done"))
        if not blocks:
            return np.zeros(0, dtype=np.int64)
        spans = [np.arange(b * BLOCK, min((b + 1) * BLOCK, self.count)) for b in blocks]
        return np.concatenate(spans)

    def render(
        self, workers: int = 2, limit: int | None = None, until: float = float("inf")
    ) -> Iterator[int]:
        """Renders the blocks that are missing, in order; yields the number of finished pictures after each.
        At `until` (`time.monotonic()`) it stops with what has been begun."""
        wanted = (min(limit or self.count, self.count) + BLOCK - 1) // BLOCK
        missing = [b for b in range(wanted) if not (self.folder / "done" / f"{b:06d}").exists()]
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            for i, _ in enumerate(pool.map(_render_block, [(self, b) for b in missing])):
                yield (wanted - len(missing) + i + 1) * BLOCK
                if time.monotonic() > until:
                    pool.shutdown(cancel_futures=True)
                    break


def _render_block(job: tuple[Store, int]) -> None:
    from newbie_image.nano.world.render import importance, render

    store, block = job
    pictures = np.load(store.folder / "pictures.npy", mmap_mode="r+")
    weights = np.load(store.folder / "eyes.npy", mmap_mode="r+")
    for index in range(block * BLOCK, min((block + 1) * BLOCK, store.count)):
        scene = store.scene(index)
        pictures[index] = render(scene, store.size)
        coarse = importance(scene, store.size // 4)
        weights[index] = np.clip(coarse * 10, 0, 255).astype(np.uint8)
    pictures.flush()
    weights.flush()
    (store.folder / "done" / f"{block:06d}").touch()
