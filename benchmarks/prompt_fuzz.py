"""Does any input break the prompt language? Grammar-based and byte-mutated inputs against all that it
promises.

    python benchmarks/prompt_fuzz.py --inputs 200000 --seed 1

Each input must end in a Prompt or a PromptError, quickly; a prompt's spans must slice to its tags, its
canonical text must be
stable and mean the same, patches must give the other text, notations must keep tags and weights. The first
failure is printed
with its seed and stops the run.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter

from newbie_image.errors import PromptError
from newbie_image.prompt import grammar, parse, whole_text
from newbie_image.prompt.convert import convert
from newbie_image.prompt.diff import Patch, apply, diff
from newbie_image.prompt.document import Prompt
from newbie_image.prompt.fields import decode
from newbie_image.prompt.flatten import flatten, group_texts
from newbie_image.prompt.lint import check, fix
from newbie_image.prompt.mapping import dump, load
from newbie_image.prompt.write import format_prompt, write

TAGS = (
    "blue_hair", "long hair", "1girl", "2girls", "smile", "bleu_hair", "<3", ">_<", ":<", "^_^", "c++", "a & b", "&amp;",
    "&lt;3", "&#44;", "&#x1F600;", "&#0;", "&bogus;", "&#32;x", r"miku_\(vocaloid\)", r"\(^o^)/", r"\o/", "😀", "蓝发双马尾",
    "水手服+雨天", "猫耳 + 渐变发色", "T恤+黑发", "<![CDATA[<b>, & ]]>", "<lora:x:0.8>", "(a:1.2)", "((b))", "0.1,0.2,0.5,0.9",
    "left", "middle", "x" * 40, "<i>", "<b>bold</b>", "a<b", "a>b", "]]>", "-->", "&", ";", "\\", "“quote”", "'", '"', "\t",
    "\ufeff", "A girl with a hat.", "雨が降る", "[char2]red_eyes", "{{blank}}", "%", "#", "weight:2", "key: value", "[hat]",
)  # fmt: skip
NOTES = ("<!-- note -->", "<!---->", "<!-- weight:0.6 -->", "<!-- weight:1.3 -->", "<!-- weight:0 -->", "<!--weight:9-->",
         "<!-- weight:x -->", "<!-- weight:0.01 -->", "<!-- version: 2 -->", "<!-- a -- b -->", "<!-- weight:-1 -->")  # fmt: skip
SEPARATORS = (", ", ",", "，", "、", "\n", "\r\n", " + ", "+", " ", "", ",,", " , ")
NAMES = (
    *grammar.FIELDS, *grammar.ROOTS, "general_tags", "environment", "character_1", "character_2", "character_3", "character",
    "name", "danbooru_tags", "foo", "apperance", "Appearance", "b", "角色", "character_0", "character_12",
)  # fmt: skip
PIECES = ("<", ">", "</", "/>", "<!--", "-->", "<![CDATA[", "]]>", "&", ";", "&#", ",", "，", "\n", "\x00", "\ud83d", "\ufeff", "<?xml?>",
          "<!DOCTYPE x>", "<n>", "</n>", "<character_1>", "</character_1>", "\\(", "\\)", "weight:", "😀", " ", "\u3000", "\x0b", "\u2028")  # fmt: skip


def field_text(rng: random.Random) -> str:
    """The text of a field: tags, separators, notes."""
    out: list[str] = []
    for _ in range(rng.choice((0, 1, 1, 2, 3, 5))):
        if rng.random() < 0.2:
            out.append(rng.choice(NOTES))
        out.append(rng.choice(TAGS))
        if rng.random() < 0.1:
            out.append(rng.choice(NOTES))
        out.append(rng.choice(SEPARATORS))
    return "".join(out)


def element(rng: random.Random, depth: int) -> str:
    """An element, at times with the mistakes people make."""
    name = rng.choice(NAMES)
    inner = field_text(rng) if depth <= 0 or rng.random() < 0.5 else "".join(
        element(rng, depth - 1) for _ in range(rng.randrange(1, 4))
    )  # fmt: skip
    dice = rng.random()
    end = (
        ""
        if dice < 0.03
        else f"<{name}>"
        if dice < 0.04
        else f"</{rng.choice(NAMES)}>"
        if dice < 0.06
        else f"</{name}>"
    )
    start = f"<{name}/>" if rng.random() < 0.02 else f'<{name} a="1">' if rng.random() < 0.02 else f"<{name}>"
    lead = rng.choice(("", "", "\n", "  ", rng.choice(NOTES)))
    return f"{lead}{start}{inner}{end}"


def mutate(rng: random.Random, text: str) -> str:
    """A few pieces put in, taken out, moved or doubled."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(text) + 1)
        dice = rng.random()
        if dice < 0.4:
            text = text[:at] + rng.choice(PIECES) + text[at:]
        elif dice < 0.7:
            text = text[:at] + text[at + rng.randrange(1, 9) :]
        elif dice < 0.85:
            to = rng.randrange(len(text) + 1)
            text = text[:at] + text[to : to + 12] + text[at:]
        else:
            text = (
                text[:at]
                + chr(rng.choice((rng.randrange(128), rng.randrange(0x3000), rng.randrange(0x110000))))
                + text[at:]
            )
    return text


def make_input(rng: random.Random) -> str | bytes:
    """One input: a prompt by the grammar, a plain list, or one of them mutated as text or as bytes."""
    text = (
        "".join(element(rng, 2) for _ in range(rng.randrange(1, 4)))
        if rng.random() < 0.8
        else field_text(rng)
    )
    dice = rng.random()
    if dice < 0.5:
        return text
    if dice < 0.85:
        return mutate(rng, text)
    data = bytearray(text.encode("utf-8", "replace"))
    for _ in range(rng.randrange(1, 5)):
        if data:
            data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def examine(text: str | bytes, rng: random.Random, *, deep: bool) -> str:
    """Check every promise on one input; the outcome's name. Raises AssertionError or anything that escapes."""
    outcome = "strict"
    try:
        prompt = parse(text)
    except PromptError as error:
        assert str(error)
        assert error.line is None or (
            error.source is not None and 0 <= (error.offset or 0) <= len(error.source)
        )
        try:
            prompt = parse(text, strict=False)
            outcome = "tolerant"
        except PromptError:
            return "refused"
    faithful(prompt)
    if deep:
        thorough(prompt, rng)
    return outcome


def faithful(prompt: Prompt) -> None:
    """Spans, encoder text, canonical text."""
    paths = [tag.path for tag in prompt.tags]
    assert len(set(paths)) == len(paths)
    last = 0
    for tag in prompt.tags:
        assert last <= tag.start < tag.end <= len(prompt.source)
        last = tag.end
        raw = tag.raw
        if "<!" not in raw and "]]>" not in raw and "</" not in raw:
            literal = "<![CDATA[" in prompt.source
            assert decode(raw) == tag.text or (literal and raw == tag.text), (raw, tag.text)
        assert tag.weight == 0 or 0.1 <= tag.weight <= 3
    whole = whole_text(prompt)
    for place in whole.places:
        assert whole.text[place.start : place.end] == place.tag.text
    canonical = write(prompt)
    again = parse(canonical)
    assert write(again) == canonical, canonical
    assert again.meaning() == prompt.meaning(), (again.meaning(), prompt.meaning())
    assert format_prompt(again) == canonical
    laid_out = format_prompt(prompt)
    assert format_prompt(parse(laid_out)) == laid_out, laid_out


def thorough(prompt: Prompt, rng: random.Random) -> None:
    """Checks, fixes, patches, notations, edits."""
    flat = flatten(prompt)
    for text in (flat, *group_texts(prompt).values(), *group_texts(prompt, "flat").values()):
        for place in text.places:
            assert text.text[place.start : place.end] == place.tag.text
    for diagnostic in check(prompt, size=(512, 512)):
        assert 0 <= diagnostic.start <= diagnostic.end <= len(prompt.source)
        assert diagnostic.message and "\n" not in diagnostic.code
    fix(prompt, strict=False)
    other = parse(
        "<character_1><n>rin</n><appearance>red_hair, <!-- weight:1.2 -->smile</appearance></character_1>"
    )
    for a, b in ((prompt, other), (other, prompt)):
        patch = diff(a, b)
        assert apply(a, Patch.from_json(patch.to_json())) == b
    for kind in ("json", "yaml", "toml"):
        assert unordered(load(dump(prompt, kind), kind)) == unordered(prompt), kind
    for notation in ("xml", "tags", "flat", "sentence", "a1111", "comfyui", "novelai"):
        convert(prompt, notation)
    if prompt.tags:
        tag = rng.choice(prompt.tags)
        texts = [t.text for t in prompt.tags]
        for weight in (1.5, 1.0):
            weighed = prompt.with_weight(tag.path, weight)
            assert weighed.kind != prompt.kind or [t.text for t in weighed.tags] == texts, weighed.source
            assert weighed.tag(tag.path).own_weight in (weight, None)
        others = [t.text for t in prompt.tags if t.path != tag.path]
        left = prompt.without(tag.path)
        assert left.kind != prompt.kind or [t.text for t in left.tags] == others, left.source
    for character in prompt.characters[:1]:
        for changed in (
            character.set("appearance", ["a, b", "<3"]),
            character.add("appearance", "a, b", "<3"),
        ):
            assert {"a, b", "<3"} <= set(changed.characters[0].get("appearance")), changed.source
    if len(prompt.characters) > 1:
        first, last = prompt.characters[0].number, prompt.characters[-1].number
        try:
            swapped = prompt.swap_characters(first, last)
        except PromptError:
            return
        assert sorted(t.text for t in swapped.tags) == sorted(t.text for t in prompt.tags)


def unordered(prompt: Prompt) -> tuple[str, str | None, list[tuple[str, str, float]]]:
    """What a prompt says; plain values do not keep where loose text stands between elements."""
    return prompt.kind, prompt.version, sorted((t.section, t.text, t.weight) for t in prompt.tags)


def run(inputs: int, seed: int, *, deep_every: int = 10) -> tuple[Counter[str], float]:
    """Examine that many inputs; the outcomes and the slowest input's seconds."""
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    for number in range(inputs):
        rng = random.Random(f"{seed}/{number}")
        text = make_input(rng)
        begin = time.process_time()
        try:
            outcomes[examine(text, rng, deep=number % deep_every == 0)] += 1
        except Exception:
            print(f"seed {seed}, input {number}: {text!r}")
            raise
        slowest = max(slowest, time.process_time() - begin)
    return outcomes, slowest


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--inputs", type=int, default=200_000)
    arguments.add_argument("--seed", type=int, default=1)
    chosen = arguments.parse_args()
    begin = time.process_time()
    outcomes, slowest = run(chosen.inputs, chosen.seed)
    seconds = time.process_time() - begin
    print(
        f"{chosen.inputs} inputs in {seconds:.0f} s of CPU, slowest {slowest * 1000:.1f} ms: {dict(outcomes)}"
    )


if __name__ == "__main__":
    main()
