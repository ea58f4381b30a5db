"""What looking costs: seconds of sampling with a collector, as a ratio to none.

    PYTHONPATH=src python benchmarks/sight_cost.py --steps 6 --rounds 3

The same picture of two characters, each choice in turn in every round; the median is shown, with the memory
that the collector's sum takes.
"""

from __future__ import annotations

import argparse
import statistics

import torch

from newbie_image.binding.sight import Kind, Sight, block_numbers
from newbie_image.nano.captions import xml_caption
from newbie_image.nano.evaluate import held_out_scenes
from newbie_image.pipeline import NewbiePipeline
from newbie_image.request import GenerationRequest

CHOICES: tuple[tuple[str, Kind, str, int], ...] = (
    ("attention, middle, every step", "attention", "middle", 1),
    ("attention, all, every step", "attention", "all", 1),
    ("attention, middle, every third step", "attention", "middle", 3),
    ("similarity, middle, every step", "similarity", "middle", 1),
    ("similarity, all, every step", "similarity", "all", 1),
)
"""Label, kind, blocks, every how many steps."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="nano")
    arguments = parser.parse_args()
    pipeline = NewbiePipeline.from_pretrained(arguments.model, torch_dtype=torch.float32)
    count = len(pipeline.transformer.layers)
    request = GenerationRequest(xml_caption(held_out_scenes(2)[1]), seed=7, steps=arguments.steps)
    seconds: dict[str, list[float]] = {"off": [], **{label: [] for label, *_ in CHOICES}}
    sizes: dict[str, int] = {}
    for turn in range(arguments.rounds + 1):
        for label in seconds:
            sights: list[Sight] = []
            for name, kind, blocks, every in CHOICES:
                if name == label:
                    seen = frozenset(range(0, arguments.steps, every))
                    sights.append(Sight(block_numbers(blocks, count), seen, kind, pull=True))
            *_, done = pipeline.stream(request, decode=False, sights=sights)
            if turn:  # the first round warms up
                seconds[label].append(done.seconds["sampling"])  # type: ignore[union-attr]
            for sight in sights:
                assert sight.total is not None
                sizes[label] = sight.total.numel() * sight.total.element_size()
    off = statistics.median(seconds["off"])
    print("| looked at | seconds | ratio to off | its sum |\n|---|---|---|---|")
    for label, taken in seconds.items():
        now = statistics.median(taken)
        print(f"| {label} | {now:.2f} | {now / off:.3f} | {sizes.get(label, 0) / 1024:.0f} KiB |")


if __name__ == "__main__":
    main()
