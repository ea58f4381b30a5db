"""The embedded model's tokenizers: one piece for each word of the world's language, bytes for everything
else.

White space, commas and closing tags carry nothing that the next opening tag does not, so they make no
token; that keeps a picture of two characters near sixty tokens. `blue_hair` is one piece, `blue_hoodie` two
(`blue_`, `hoodie`).
"""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Final

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from newbie_image.nano.captions import sentence_caption
from newbie_image.nano.world import attributes as a
from newbie_image.nano.world.scene import sample_scene

XML_SYSTEM_PROMPT: Final = (
    "You are an assistant designed to generate high-quality anime images based on xml format prompts. "
    "<Prompt Start> "
)
TAG_SYSTEM_PROMPT: Final = (
    "You are an assistant designed to generate high-quality images with the highest degree of "
    "image-text alignment based on textual prompts. <Prompt Start> "
)
SEPARATORS: Final = r"</[^<>]*>|[\s,，、]+"
OPENING_TAGS: Final = (
    *(f"<character_{i}>" for i in range(1, 7)),
    *(
        f"<{name}>"
        for name in (
            "character",
            "n",
            "name",
            "gender",
            "appearance",
            "clothing",
            "body_type",
            "expression",
            "pose",
            "action",
            "interaction",
            "position",
            "general_tags",
            "count",
            "artists",
            "style",
            "background",
            "environment",
            "perspective",
            "composition",
            "atmosphere",
            "lighting",
            "weather",
            "time",
            "location",
            "resolution",
            "quality",
            "objects",
            "other",
            "caption",
            "scene",
            "image",
            "img",
            "prompt",
            "document",
        )
    ),
)
SIZE: Final = 1024


def _pieces() -> list[str]:
    words: dict[str, None] = dict.fromkeys(OPENING_TAGS)
    for group in (
        a.GENDERS,
        a.HAIR_STYLES,
        a.EXPRESSIONS,
        a.TOPS,
        a.BOTTOMS,
        a.LEGWEAR,
        a.HEADWEAR,
        a.POSES,
        a.INTERACTIONS,
        a.BACKGROUNDS,
        a.TIMES,
        a.WEATHERS,
        tuple(a.FIGURES),
    ):
        words |= dict.fromkeys(group)
    words |= dict.fromkeys(f"{color}_hair" for color in a.HAIR_COLORS)
    words |= dict.fromkeys(f"{color}_eyes" for color in a.EYE_COLORS)
    words |= dict.fromkeys(f"{color}_" for color in a.CLOTHES_COLORS)
    words |= dict.fromkeys(f"holding_{thing}" for thing in a.HELD)
    words |= dict.fromkeys(("glasses", "solo"))
    words |= dict.fromkeys(f"{n}{kind}" for n in range(1, 7) for kind in ("girl", "girls", "boy", "boys"))
    for layouts in a.POSITIONS.values():
        for layout in layouts:
            words |= dict.fromkeys(layout)
    for seed in range(400):
        sentence = sentence_caption(sample_scene(seed), random.Random(seed))
        words |= dict.fromkeys(w for w in re.split(r"[\s,]+", sentence.rstrip(".")) if w)
    words |= dict.fromkeys(w for n in a.FIGURES for w in n.split("_"))
    return list(words)


def build_tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """Makes a tokenizer.

    Args:
        kind: "gemma" (`<bos>` in front) or "jina" (`<s> … </s>`).
    """
    specials = {
        "gemma": ("<pad>", "<eos>", "<bos>", "<unk>"),
        "jina": ("<s>", "<pad>", "</s>", "<unk>"),
    }[kind]
    vocabulary: list[tuple[str, float]] = [(token, 0.0) for token in specials]
    vocabulary += [(f"<0x{byte:02X}>", -20.0) for byte in range(256)]
    taken = {token for token, _ in vocabulary}
    vocabulary += [(chr(code), -12.0) for code in range(33, 127) if chr(code) not in taken]
    taken = {token for token, _ in vocabulary}
    vocabulary += [(piece, -2.0 - 0.01 * i / 1000) for i, piece in enumerate(_pieces()) if piece not in taken]
    systems = [XML_SYSTEM_PROMPT.strip(), TAG_SYSTEM_PROMPT.strip()] if kind == "gemma" else []
    while len(vocabulary) < SIZE - len(systems):
        vocabulary.append((f"<unused_{len(vocabulary)}>", -100.0))
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=3, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(SEPARATORS), behavior="removed")  # pyright: ignore
    tokenizer.decoder = decoders.ByteFallback()  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in (*specials, *systems)])
    start = "<bos>" if kind == "gemma" else "<s>"
    single = "<bos> $A" if kind == "gemma" else "<s> $A </s>"
    names = [start] if kind == "gemma" else ["<s>", "</s>"]
    tokenizer.post_processor = processors.TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
        single=single, special_tokens=[(name, tokenizer.token_to_id(name)) for name in names]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=start,
        eos_token="<eos>" if kind == "gemma" else "</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )


def save_tokenizers(folder: Path) -> None:
    """Writes `tokenizer/` (Gemma's place) and `clip_tokenizer/` (Jina's) into a bundle."""
    build_tokenizer("gemma").save_pretrained(folder / "tokenizer")
    build_tokenizer("jina").save_pretrained(folder / "clip_tokenizer")
