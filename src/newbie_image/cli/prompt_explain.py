"""What a bundle's encoders will read of a prompt: texts, tokens of each tag, what is cut off, weights,
groups, places.

Only the tokenizers of the bundle are loaded (`tokenizer/tokenizer.json`, `clip_tokenizer/tokenizer.json`),
not its models.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from newbie_image.errors import CheckpointError, MissingDependencyError
from newbie_image.prompt import PlacedText, Prompt, TextForm, encoder_text, group_texts
from newbie_image.prompt.grammar import POSITIONS, position_box


def explain_prompt(prompt: Prompt, model: str, form: TextForm) -> dict[str, Any]:
    """The whole account as plain values; the shape is described in docs/prompt.md.

    Raises:
        CheckpointError: the bundle or one of its tokenizers is missing or damaged.
    """
    from newbie_image.bundle import find_bundle, read_settings

    folder = find_bundle(model)
    text = read_settings(folder).text
    system = text.system_prompt_xml if prompt.kind == "xml" else text.system_prompt_tags
    whole = encoder_text(prompt, form)
    gemma, jina = _tokenizer(folder, "tokenizer"), _tokenizer(folder, "clip_tokenizer")
    encoders = {
        "text_encoder": _tokens(gemma, system, whole, text.max_tokens),
        "clip_model": _tokens(jina, "", whole, text.max_pooled_tokens),
    }
    groups = {key: placed.text for key, placed in group_texts(prompt, form).items()}
    dropped = [tag.path for tag in prompt.tags if tag.weight == 0]
    return {
        "bundle": folder.name,
        "kind": prompt.kind,
        "version": prompt.version,
        "text": whole.text,
        "system_prompt": system,
        "encoders": encoders,
        "tags": [_tag(tag, encoders) for tag in placed_tags(whole)],
        "groups": groups,
        "regions": {c.key: _region(c.position) for c in prompt.characters},
        "left_out": dropped,
    }


def placed_tags(whole: PlacedText) -> list[dict[str, Any]]:
    """The tags of a text with path, weight, group and place in it."""
    return [
        {
            "path": p.tag.path,
            "text": p.tag.text,
            "weight": p.tag.weight,
            "group": p.group,
            "start": p.start,
            "end": p.end,
        }
        for p in whole.places
    ]


def _tokenizer(folder: Path, name: str) -> Any:
    file = folder / name / "tokenizer.json"
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise MissingDependencyError(
            "explain needs the package tokenizers; run: pip install tokenizers"
        ) from None
    if not file.is_file():
        raise CheckpointError(
            f"{file} is missing; choose a bundle with tokenizers (--model), or make that one again"
        )
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare Exception for a damaged file
        raise CheckpointError(f"{file} cannot be read ({error}); copy the bundle again") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _tokens(tokenizer: Any, system: str, whole: PlacedText, limit: int) -> dict[str, Any]:
    """How many tokens the text has, where the limit cuts it, and the tokens of each tag by its path. Tokens
    that the tokenizer puts at the end are kept by the cut.
    """
    encoding = tokenizer.encode(system + whole.text)
    total = len(encoding.ids)
    at_end = 0
    while at_end < total and encoding.special_tokens_mask[-1 - at_end]:
        at_end += 1
    room = max(limit - at_end, 1)
    spans: dict[str, list[int]] = {}
    shift = len(system)
    index = 0
    starts = encoding.offsets
    for place in whole.places:
        begin, end = place.start + shift, place.end + shift
        while index < total and (starts[index][1] <= begin):
            index += 1
        last = index
        while last < total - at_end and starts[last][0] < end:
            last += 1
        spans[place.tag.path] = [index, last]
    kept = encoding.offsets[room - 1][1] if total > limit else len(system) + len(whole.text)
    cut = [path for path, (_, last) in spans.items() if total > limit and last > room]
    return {
        "tokens": total,
        "limit": limit,
        "cut_off": max(0, total - limit),
        "cut_text": whole.text[max(0, kept - shift) :] if total > limit else "",
        "cut_tags": cut,
        "tags": spans,
    }


def _tag(tag: dict[str, Any], encoders: dict[str, Any]) -> dict[str, Any]:
    return tag | {"tokens": {name: encoder["tags"][tag["path"]] for name, encoder in encoders.items()}}


def _region(position: str | None) -> list[float] | None:
    """A box as it is written, a place word as the middle of the place; None where neither is known."""
    if position is None:
        return None
    box = position_box(position)
    if box is not None:
        return list(box)
    middle = POSITIONS.get(position.strip().lower())
    return None if middle is None else list(middle)


def explanation_lines(told: dict[str, Any]) -> list[str]:
    """The account for people."""
    lines = [f"kind: {told['kind']}" + (f", version: {told['version']}" if told["version"] else "")]
    for name, encoder in told["encoders"].items():
        cut = (
            f", {encoder['cut_off']} CUT OFF from {encoder['cut_text'][:60]!r}" if encoder["cut_off"] else ""
        )
        lines.append(f"{name}: {encoder['tokens']} tokens of at most {encoder['limit']}{cut}")
    if told["system_prompt"]:
        lines.append(f"system prompt: {told['system_prompt']!r}")
    lines += ["", "text for the encoders:", told["text"].rstrip(), "", "tags (tokens of each encoder):"]
    wide = max((len(t["path"]) for t in told["tags"]), default=0)
    for tag in told["tags"]:
        spans = "  ".join(f"{a}-{b - 1}" for a, b in tag["tokens"].values())
        weight = f"  weight {tag['weight']:g}" if tag["weight"] != 1 else ""
        lines.append(f"  {tag['path']:<{wide}}  {spans:<12}  {tag['text']}{weight}")
    if told["left_out"]:
        lines.append(f"left out (weight 0): {', '.join(told['left_out'])}")
    places = {key: region for key, region in told["regions"].items() if region}
    if places:
        lines += ["", *(f"{key} at {', '.join(f'{v:g}' for v in region)}" for key, region in places.items())]
    lines += ["", f"groups: {', '.join(f'{k} ({len(v)} characters)' for k, v in told['groups'].items())}"]
    return lines
