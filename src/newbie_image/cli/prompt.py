"""`newbie prompt …`: check, format, convert, compare and explain prompts, without a model.

Results go to standard output, remarks to standard error; each function returns the exit code: 0 clean, 1
warnings where `--warnings-as-errors` was asked for, 2 errors. With `as_json` there is one JSON object on
standard output. :mod:`prompt_arguments` declares the options. The modules of the language are imported inside
the commands, so that the answer comes at once.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from newbie_image.errors import ConfigError, OutputError, PromptError

if TYPE_CHECKING:
    from newbie_image.prompt import Prompt, TextForm

_MOST = 1024 * 1024


def read_bytes(file: str) -> bytes:
    """A file's bytes, or those of standard input for `-`.

    Raises:
        ConfigError: it cannot be read, or has over 1 MiB.
    """
    try:
        if file == "-":
            data = sys.stdin.buffer.read(_MOST + 1)
        else:
            with Path(file).open("rb") as stream:
                data = stream.read(_MOST + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"cannot read {file}: {reason}; give the path of a text file, or - for input"
        ) from None
    if len(data) > _MOST:
        raise ConfigError(f"{file} has over 1 MiB; prompts have at most 256 KiB")
    return data


def write_text(file: str, text: str) -> None:
    """Write a file by way of a temporary one beside it, so that it is never half-written. A link stays a
    link, and the file keeps its permissions.

    Raises:
        OutputError: it cannot be written.
    """
    target = Path(os.path.realpath(file))
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8", newline="")
        temporary.chmod(target.stat().st_mode & 0o7777)
        temporary.replace(target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OutputError(
            f"cannot write {file}: {error.strerror}; choose another place with shell redirection"
        ) from None


def say_json(values: dict[str, Any]) -> None:
    say(json.dumps(values, ensure_ascii=False, indent=2) + "\n")


def say(text: str) -> None:
    """Text to standard output as UTF-8, without a newline of its own."""
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode("utf-8", "replace"))
    sys.stdout.buffer.flush()


def _parse(file: str, tolerant: bool) -> Prompt:
    from newbie_image.prompt import parse

    return parse(read_bytes(file), strict=not tolerant)


def _form(text: str) -> TextForm:
    if text == "typed" or text == "flat":
        return text
    raise ConfigError(f"text form {text!r} is unknown; choose typed or flat")


def check(
    file: str,
    *,
    fix: bool = False,
    warnings_as_errors: bool = False,
    size: str = "",
    negative: bool = False,
    hints: bool = True,
    tolerant: bool = False,
    as_json: bool = False,
) -> int:
    """Say what is wrong with a prompt, and mend it with --fix."""
    from newbie_image.cli.prompt_report import report_lines, summary
    from newbie_image.prompt import lint

    prompt = _parse(file, tolerant)
    found = lint.check(prompt, size=_size(size), negative=negative)
    mended: tuple[Any, ...] = ()
    if fix:
        prompt, mended = lint.fix(prompt, strict=not tolerant)
        found = lint.check(prompt, size=_size(size), negative=negative)
        if prompt.source and file != "-" and mended:
            write_text(file, prompt.source)
    found = tuple(d for d in found if hints or d.severity != "hint")
    if as_json:
        fixed = {"fixed": [d.as_dict() for d in mended], "text": prompt.source} if fix else {}
        worst = not any(d.severity != "hint" for d in found)
        say_json({"ok": worst, "kind": prompt.kind, "diagnostics": [d.as_dict() for d in found], **fixed})
    else:
        piped = fix and file == "-"
        stream = sys.stderr if piped else sys.stdout
        report = "".join(line + "\n" for line in report_lines(found, prompt.source, file, stream.isatty()))
        if piped:
            say(prompt.source)
            sys.stderr.write(report)
        else:
            say(report)
        sys.stderr.write(summary(found, mended) + "\n")
    if any(d.severity == "error" for d in found):
        return 2
    return 1 if warnings_as_errors and any(d.severity == "warning" for d in found) else 0


def _size(text: str) -> tuple[int, int] | None:
    if not text:
        return None
    width, _, height = text.lower().partition("x")
    if not (width.isascii() and width.isdigit() and height.isascii() and height.isdigit()):
        raise ConfigError(f"size {text!r} is not WIDTHxHEIGHT; write for example 1024x1024")
    return int(width[:9]), int(height[:9])


def format_(
    file: str,
    *,
    write: bool = False,
    only_check: bool = False,
    notes: bool = True,
    tolerant: bool = False,
    as_json: bool = False,
) -> int:
    """Lay a prompt out in the canonical form, notes kept."""
    from newbie_image.cli.prompt_report import say_assumptions
    from newbie_image.prompt.grammar import MAX_BYTES
    from newbie_image.prompt.write import format_prompt
    from newbie_image.prompt.write import write as canonical

    prompt = _parse(file, tolerant)
    text = format_prompt(prompt) if notes else canonical(prompt)
    if text and not text.endswith("\n") and prompt.source.endswith("\n"):
        text += "\n"
    size = len(text.encode("utf-8"))
    if size > MAX_BYTES:
        raise PromptError(
            f"laid out, the prompt would have {size:,} bytes; at most {MAX_BYTES:,} (256 KiB) are read; "
            "shorten it"
        )
    changed = text != prompt.source
    if as_json:
        say_json({"ok": True, "changed": changed, "text": text})
    elif not only_check:
        if write and file != "-":
            write_text(file, text)
        else:
            say(text if text.endswith("\n") or not text else text + "\n")
    if tolerant and not as_json:
        say_assumptions(prompt, file)
    return 1 if only_check and changed else 0


def flatten(
    file: str, *, groups: bool = False, form: str = "typed", tolerant: bool = False, as_json: bool = False
) -> int:
    """The flat sequence [char1]blue_hair, … with the place of every tag."""
    from newbie_image.cli.prompt_report import say_assumptions
    from newbie_image.prompt import flatten as flat
    from newbie_image.prompt import group_texts

    prompt = _parse(file, tolerant)
    placed = flat(prompt)
    texts = group_texts(prompt, _form(form))
    if as_json:
        say_json(
            {
                "ok": True,
                "kind": prompt.kind,
                "text": placed.text,
                "tags": [_place(p) for p in placed.places],
                "groups": {
                    k: {"text": t.text, "tags": [_place(p) for p in t.places]} for k, t in texts.items()
                },
            }
        )
        return 0
    if groups:
        say("\n".join(f"# {key}\n{text.text}\n" for key, text in texts.items()))
    else:
        say(placed.text + "\n")
    if tolerant:
        say_assumptions(prompt, file)
    return 0


def _place(place: Any) -> dict[str, Any]:
    tag = place.tag
    line, column = tag.span.line, tag.span.column
    source = {"start": tag.start, "end": tag.end, "line": line, "column": column}
    return {
        "path": tag.path,
        "text": tag.text,
        "weight": tag.weight,
        "group": place.group,
        "start": place.start,
        "end": place.end,
        "source": source,
    }


def convert(
    file: str,
    *,
    to: str = "xml",
    source: str = "",
    explained: bool = False,
    tolerant: bool = False,
    as_json: bool = False,
) -> int:
    """Write a prompt in another notation."""
    from newbie_image.cli.prompt_report import say_assumptions
    from newbie_image.prompt import convert as converted
    from newbie_image.prompt.parse import read_text

    text = read_text(read_bytes(file), strict=not tolerant)
    name = "" if file == "-" else file
    notation: Any = source or None
    target: Any = to
    done = converted(text, target, source=notation, strict=not tolerant, name=name)
    if as_json:
        words = [
            {"written": e.written, "tag": e.tag, "path": e.path, "reason": e.reason} for e in done.explained
        ]
        unknown, remarks = list(done.unknown), list(done.remarks)
        say_json({"ok": True, "text": done.text, "explained": words, "unknown": unknown, "remarks": remarks})
        return 0
    say(done.text)
    if explained:
        for e in done.explained:
            sys.stderr.write(f"{e.written} → {e.tag}  in {e.path}  ({e.reason})\n")
    for remark in done.remarks:
        sys.stderr.write(remark + "\n")
    if tolerant and done.prompt.source == text:
        say_assumptions(done.prompt, file)
    return 0


def explain(
    file: str, *, model: str = "nano", form: str = "typed", tolerant: bool = False, as_json: bool = False
) -> int:
    """What the model will be told: texts, tokens of each tag, what is cut off, weights, groups, places."""
    from newbie_image.cli.prompt_explain import explain_prompt, explanation_lines
    from newbie_image.cli.prompt_report import say_assumptions

    prompt = _parse(file, tolerant)
    told = explain_prompt(prompt, model, _form(form))
    if as_json:
        say_json({"ok": True, **told})
        return 0
    say("\n".join(explanation_lines(told)) + "\n")
    if tolerant:
        say_assumptions(prompt, file)
    return 0


def diff(a: str, b: str, *, patch: bool = False, as_json: bool = False) -> int:
    """What changed between two prompts, in words."""
    from newbie_image.cli.prompt_report import say_assumptions
    from newbie_image.prompt.diff import diff as differences
    from newbie_image.prompt.diff import words

    first, second = _parse(a, True), _parse(b, True)
    made = differences(first, second)
    if patch or as_json:
        say_json({"ok": True, **made.as_dict()} if as_json else made.as_dict())
    else:
        say("".join(line + "\n" for line in words(made, first, second)))
    for prompt, file in ((first, a), (second, b)):
        say_assumptions(prompt, file)
    return 0


def apply(file: str, patch: str, *, write: bool = False, as_json: bool = False) -> int:
    """Apply a patch to a prompt. The result is given to the byte, without a newline of its own."""
    from newbie_image.cli.prompt_report import say_assumptions
    from newbie_image.prompt.diff import Patch
    from newbie_image.prompt.diff import apply as changed

    text = read_bytes(patch).decode("utf-8", "replace")
    prompt = _parse(file, True)
    result = changed(prompt, Patch.from_json(text))
    say_assumptions(prompt, file)
    if as_json:
        say_json({"ok": True, "text": result.source})
    elif write and file != "-":
        write_text(file, result.source)
    else:
        say(result.source)
        if sys.stdout.isatty() and not result.source.endswith("\n"):
            say("\n")
    return 0


def schema(*, kind: str = "rng", as_json: bool = False) -> int:
    """The grammar for editors."""
    from newbie_image.prompt import schema as grammar_of

    text = grammar_of(kind)
    if as_json:
        say_json({"ok": True, "kind": kind, "schema": text})
    else:
        say(text)
    return 0


def new(*, characters: int = 1, as_json: bool = False) -> int:
    """A prompt to begin with."""
    from newbie_image.prompt.templates import skeleton

    text = skeleton(characters)
    if as_json:
        say_json({"ok": True, "text": text})
    else:
        say(text)
    return 0


def template_list(*, as_json: bool = False) -> int:
    """The templates and what they are for."""
    from newbie_image.prompt.templates import template, template_names

    found = [template(name) for name in template_names()]
    if as_json:
        listed = [{"name": t.name, "about": t.about, "variables": dict(t.variables)} for t in found]
        say_json({"ok": True, "templates": listed})
    else:
        wide = max((len(t.name) for t in found), default=0)
        say("".join(f"{t.name:<{wide}}  {t.about}\n" for t in found))
    return 0


def template_show(name: str, *, as_json: bool = False) -> int:
    """A template with its blanks."""
    from newbie_image.prompt.templates import template

    found = template(name)
    if as_json:
        variables = dict(found.variables)
        say_json({"ok": True, "name": name, "about": found.about, "variables": variables, "text": found.text})
    else:
        say(found.text)
    return 0


def template_fill(name: str, values: Sequence[str], *, as_json: bool = False) -> int:
    """A template with its blanks filled."""
    from newbie_image.prompt.templates import template

    given: dict[str, str] = {}
    for value in values:
        key, equals, text = value.partition("=")
        if not equals:
            raise ConfigError(f"{value!r} is not key=value; write for example hair=blue_hair")
        given[key.strip()] = text
    prompt = template(name).fill(given)
    if as_json:
        say_json({"ok": True, "name": name, "text": prompt.source})
    else:
        say(prompt.source)
    return 0
