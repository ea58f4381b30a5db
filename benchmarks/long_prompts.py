"""What `--long-prompt` costs and saves: the same held-out prompts whole, cut, and read by group.

    PYTHONPATH=src python benchmarks/long_prompts.py --prompts 48

The embedded model's prompts are short, so the limit is set for each prompt: to one token less than it has,
where by group next to nothing is lost and the difference is that of reading apart; to a share of its tokens.
One picture each, with the same noise, scored by the evaluation's readers.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from newbie_image.nano.captions import xml_caption
from newbie_image.nano.evaluate import held_out_scenes, read_pictures, summarise
from newbie_image.nano.recipe import load_readers
from newbie_image.pipeline import NewbiePipeline
from newbie_image.request import GenerationRequest, PictureDone

SHARES = (0.8, 0.6)


def draw(
    pipe: NewbiePipeline, prompts: list[str], choice: str, limit: Callable[[int], int] | None
) -> tuple[np.ndarray, float]:
    """A picture a prompt, (prompts, height, width, 3) uint8, and the mean share of tokens read."""
    settings = pipe.settings
    pictures, read = [], []
    for number, prompt in enumerate(prompts):
        tokens = len(pipe.tokenizer(settings.text.system_prompt_xml + prompt)["input_ids"])
        if limit is not None:
            text = settings.text.model_copy(update={"max_tokens": limit(tokens)})
            pipe.settings = settings.model_copy(update={"text": text})
        request = pipe.complete(GenerationRequest(prompt, seed=number, long_prompt=choice))
        with torch.no_grad():
            read.append(float(pipe.encode(request).mask[0].sum()) / tokens)
        *_, last = pipe.stream(request)
        assert isinstance(last, PictureDone)
        pictures.append(np.asarray(last.images[0].image))
        pipe.settings = settings
    return np.stack(pictures), float(np.mean(read))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument(
        "--prompts", type=int, default=48, help="held-out scenes; half have two characters"
    )
    chosen = arguments.parse_args()
    scenes = held_out_scenes(chosen.prompts)
    prompts = [xml_caption(scene) for scene in scenes]
    pipe = NewbiePipeline.from_pretrained("nano", torch_dtype=torch.bfloat16)
    character, whole = load_readers(Path(__file__).parent.parent / "assets" / "readers")
    cases: list[tuple[str, str, Callable[[int], int] | None]] = [
        ("whole", "cut", None),
        ("by group, one token too long", "groups", lambda tokens: tokens - 1),
    ]
    for share in SHARES:
        for choice in ("cut", "groups"):
            cases.append((f"{choice}, {share:.0%} fit", choice, lambda tokens, s=share: int(tokens * s)))
    print("| read | tokens read | 1 character | 2 characters |\n|---|---|---|---|")
    for name, choice, limit in cases:
        pictures, read = draw(pipe, prompts, choice, limit)
        score: dict[str, Any] = summarise(*read_pictures(pictures, scenes, character, whole))
        one, two = (100 * score[f"{count}_characters"]["mean"] for count in (1, 2))
        print(f"| {name} | {read:.0%} | {one:.1f} % | {two:.1f} % |", flush=True)


if __name__ == "__main__":
    main()
