"""Does it matter how a prompt is written? The same prompts as XML, as tags, as sentences, and as `convert`
turns them.

    python benchmarks/prompt_forms.py --prompts 50        prints the texts, which needs no trained model

    python benchmarks/prompt_forms.py --prompts 50 --score    draws and scores every form (embedded model)

Each held-out scene's caption is written as XML, as tags and as a sentence, and converted into each other. All
forms of one
scene have the same noise, and the evaluation's readers score the pictures.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from newbie_image.prompt.convert import convert

FORMS = ("xml", "tags", "tags → xml", "sentence", "sentence → xml", "xml → tags")


def forms_of(xml: str, tags: str, sentence: str) -> dict[str, str]:
    """One scene's prompt in each form."""
    return {
        "xml": xml,
        "tags": tags,
        "tags → xml": convert(tags, "xml").text,
        "sentence": sentence,
        "sentence → xml": convert(sentence, "xml").text,
        "xml → tags": convert(xml, "tags").text.strip(),
    }


def captions(count: int) -> tuple[list[Any], list[dict[str, str]]]:
    """The held-out scenes of the evaluation, with one and two people in turn, and their texts."""
    from newbie_image.nano.captions import sentence_caption, tag_caption, xml_caption
    from newbie_image.nano.evaluate import held_out_scenes

    found = held_out_scenes(count)
    return found, [forms_of(xml_caption(s), tag_caption(s), sentence_caption(s)) for s in found]


def compare(
    pipeline: Any, character: Any, whole: Any, count: int, steps: int | None = None
) -> dict[str, Any]:
    """The evaluation's summary for each form.

    Args:
        pipeline: a loaded NewbiePipeline.
        character, whole: the trained readers of the evaluation.
        count: scenes; scene number i has the same noise in every form.
        steps: intervals of the time grid; the bundle's default without.
    """
    from newbie_image.nano.evaluate import generate, read_pictures, summarise

    scenes, texts = captions(count)
    return {
        form: summarise(
            *read_pictures(
                generate(pipeline, [t[form] for t in texts], steps=steps), scenes, character, whole
            )
        )
        for form in FORMS
    }


def table(scores: dict[str, Any]) -> str:
    """One row a form: mean share of attributes read back for one and for two people, and all of a person
    right.
    """
    rows = ["| form | 1 character | 2 characters | all right, 1 | all right, 2 |", "|---|---|---|---|---|"]
    for form, score in scores.items():
        one, two = score["1_characters"], score["2_characters"]
        values = (one["mean"], two["mean"], one["all_right"], two["all_right"])
        rows.append(f"| {form} | " + " | ".join(f"{100 * value:.1f} %" for value in values) + " |")
    return "\n".join(rows)


def score(count: int) -> str:
    """The table for the embedded model, in bf16."""
    from pathlib import Path

    import torch

    from newbie_image.nano.recipe import load_readers
    from newbie_image.pipeline import NewbiePipeline

    pipeline = NewbiePipeline.from_pretrained("nano", torch_dtype=torch.bfloat16)
    character, whole = load_readers(Path(__file__).parent.parent / "assets" / "readers")
    return table(compare(pipeline, character, whole, count))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--prompts", type=int, default=50)
    arguments.add_argument("--score", action="store_true", help="draw every form with the embedded model")
    chosen = arguments.parse_args()
    if chosen.score:
        print(score(chosen.prompts))
        return
    print(json.dumps(captions(chosen.prompts)[1], ensure_ascii=False, indent=2))


if __name__ == "__main__":
    main()
