"""`newbie prompt …`: check, format, convert, compare and explain prompts, without a model.

Results go to standard output, errors and remarks to standard error. Exit codes: 0 clean, 1 warnings where
`--warnings-as-errors` was asked for, 2 errors. With `--json` there is one JSON object on standard output,
also for an
error. The modules of the language are imported inside the commands, so that the answer comes at once.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from newbie_image.errors import ConfigError, NewbieError, OutputError, PromptError

if TYPE_CHECKING:
    from newbie_image.prompt import Prompt

prompt_app = typer.Typer(
    name="prompt",
    help="Check, format, convert, compare and explain prompts.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
template_app = typer.Typer(help="Prompts with blanks to fill.", no_args_is_help=True, rich_markup_mode=None)
prompt_app.add_typer(template_app, name="template")

File = Annotated[str, typer.Argument(metavar="FILE|-", help="The prompt's file, or - for standard input.")]
Json = Annotated[bool, typer.Option("--json", help="Answer with one JSON object.")]
Tolerant = Annotated[bool, typer.Option("--tolerant", help="Repair what is broken and say what was assumed.")]
Write = Annotated[bool, typer.Option("--write", "-w", help="Write the result back to the file.")]

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
    """Write a file by way of a temporary one beside it, so that it is never half-written.

    Raises:
        OutputError: it cannot be written.
    """
    target = Path(file)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8", newline="")
        temporary.replace(target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OutputError(
            f"cannot write {file}: {error.strerror}; choose another place with shell redirection"
        ) from None


@contextmanager
def answering(as_json: bool) -> Iterator[None]:
    """With `--json`, turn an error into the object `{"ok": false, "error": {…}}` and exit code 2."""
    try:
        yield
    except NewbieError as error:
        if not as_json:
            raise
        place = {"line": error.line, "column": error.column} if isinstance(error, PromptError) else {}
        say_json({"ok": False, "error": {"kind": type(error).__name__, "message": str(error), **place}})
        raise typer.Exit(2) from None


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


def _give(file: str, text: str, write: bool) -> None:
    if write and file != "-":
        write_text(file, text)
    else:
        say(text if text.endswith("\n") or not text else text + "\n")


@prompt_app.command()
def check(
    file: File,
    fix: Annotated[
        bool, typer.Option("--fix", help="Mend what can be mended and write the file back.")
    ] = False,
    warnings_as_errors: Annotated[
        bool, typer.Option("--warnings-as-errors", help="Exit with 1 on warnings.")
    ] = False,
    size: Annotated[
        str, typer.Option(metavar="WxH", help="The picture's size, to compare <resolution> with.")
    ] = "",
    hints: Annotated[bool, typer.Option("--hints/--no-hints", help="Also say hints.")] = True,
    tolerant: Tolerant = False,
    as_json: Json = False,
) -> None:
    """Say what is wrong with a prompt, and mend it with --fix."""
    with answering(as_json):
        from newbie_image.cli.prompt_report import report_lines, summary
        from newbie_image.prompt import lint

        prompt = _parse(file, tolerant)
        found = lint.check(prompt, size=_size(size))
        mended: tuple[Any, ...] = ()
        if fix:
            prompt, mended = lint.fix(prompt, strict=not tolerant)
            found = lint.check(prompt, size=_size(size))
            if prompt.source and file != "-" and mended:
                write_text(file, prompt.source)
        found = tuple(d for d in found if hints or d.severity != "hint")
        if as_json:
            fixed = {"fixed": [d.as_dict() for d in mended], "text": prompt.source} if fix else {}
            worst = not any(d.severity != "hint" for d in found)
            say_json({"ok": worst, "kind": prompt.kind, "diagnostics": [d.as_dict() for d in found], **fixed})
        elif fix and file == "-":
            say(prompt.source)
        else:
            say(
                "".join(line + "\n" for line in report_lines(found, prompt.source, file, sys.stdout.isatty()))
            )
            sys.stderr.write(summary(found, mended) + "\n")
    if any(d.severity == "error" for d in found):
        raise typer.Exit(2)
    if warnings_as_errors and any(d.severity == "warning" for d in found):
        raise typer.Exit(1)


def _size(text: str) -> tuple[int, int] | None:
    if not text:
        return None
    width, _, height = text.lower().partition("x")
    if not (width.isascii() and width.isdigit() and height.isascii() and height.isdigit()):
        raise ConfigError(f"size {text!r} is not WIDTHxHEIGHT; write for example 1024x1024")
    return int(width[:9]), int(height[:9])


@prompt_app.command("format")
def format_(
    file: File,
    write: Write = False,
    only_check: Annotated[
        bool, typer.Option("--check", help="Say whether anything would change; exit 1 if so.")
    ] = False,
    notes: Annotated[bool, typer.Option("--notes/--no-notes", help="Keep notes.")] = True,
    tolerant: Tolerant = False,
    as_json: Json = False,
) -> None:
    """Lay a prompt out in the canonical form, notes kept."""
    with answering(as_json):
        from newbie_image.cli.prompt_report import say_assumptions
        from newbie_image.prompt.write import format_prompt
        from newbie_image.prompt.write import write as canonical

        prompt = _parse(file, tolerant)
        text = format_prompt(prompt) if notes else canonical(prompt)
        changed = text != prompt.source
        if as_json:
            say_json({"ok": True, "changed": changed, "text": text})
        elif not only_check:
            _give(file, text, write)
        if tolerant and not as_json:
            say_assumptions(prompt)
    if only_check and changed:
        raise typer.Exit(1)


@prompt_app.command()
def flatten(
    file: File,
    groups: Annotated[bool, typer.Option("--groups", help="The text of each group apart.")] = False,
    form: Annotated[str, typer.Option(help="With --groups: typed or flat.")] = "typed",
    tolerant: Tolerant = False,
    as_json: Json = False,
) -> None:
    """The flat sequence [char1]blue_hair, … with the place of every tag."""
    with answering(as_json):
        from newbie_image.prompt import flatten as flat
        from newbie_image.prompt import group_texts

        prompt = _parse(file, tolerant)
        if form not in ("typed", "flat"):
            raise ConfigError(f"form {form!r} is unknown; choose typed or flat")
        placed = flat(prompt)
        texts = group_texts(prompt, "flat" if form == "flat" else "typed")
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
        elif groups:
            say("\n".join(f"# {key}\n{text.text}\n" for key, text in texts.items()))
        else:
            say(placed.text + "\n")


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


@prompt_app.command()
def convert(
    file: File,
    to: Annotated[
        str, typer.Option(help="xml, tags, flat, sentence, json, yaml, toml, a1111 or comfyui.")
    ] = "xml",
    source: Annotated[str, typer.Option("--from", help="The notation of FILE; guessed without this.")] = "",
    explained: Annotated[bool, typer.Option("--explain", help="Say of each word what became of it.")] = False,
    tolerant: Tolerant = False,
    as_json: Json = False,
) -> None:
    """Write a prompt in another notation."""
    with answering(as_json):
        from newbie_image.prompt import convert as conversion
        from newbie_image.prompt.parse import read_text

        text = read_text(read_bytes(file), strict=not tolerant)
        name = "" if file == "-" else file
        notation: Any = source or None
        target: Any = to
        done = conversion.convert(text, target, source=notation, strict=not tolerant, name=name)
        if as_json:
            words = [
                {"written": e.written, "tag": e.tag, "path": e.path, "reason": e.reason}
                for e in done.explained
            ]
            unknown, remarks = list(done.unknown), list(done.remarks)
            say_json(
                {"ok": True, "text": done.text, "explained": words, "unknown": unknown, "remarks": remarks}
            )
            return
        say(done.text)
        if explained:
            for e in done.explained:
                sys.stderr.write(f"{e.written} → {e.tag}  in {e.path}  ({e.reason})\n")
        if done.unknown:
            sys.stderr.write(f"not understood, kept as it is: {', '.join(done.unknown)}\n")
        for remark in done.remarks:
            sys.stderr.write(remark + "\n")


@prompt_app.command()
def explain(
    file: File,
    model: Annotated[str, typer.Option(help="The bundle whose tokenizers and limits count.")] = "nano",
    form: Annotated[str, typer.Option("--text-form", help="typed or flat.")] = "typed",
    tolerant: Tolerant = False,
    as_json: Json = False,
) -> None:
    """What the model will be told: texts, tokens of each tag, what is cut off, weights, groups, places."""
    with answering(as_json):
        from newbie_image.cli.prompt_explain import explain_prompt, explanation_lines

        if form not in ("typed", "flat"):
            raise ConfigError(f"text form {form!r} is unknown; choose typed or flat")
        told = explain_prompt(_parse(file, tolerant), model, "flat" if form == "flat" else "typed")
        if as_json:
            say_json({"ok": True, **told})
        else:
            say("\n".join(explanation_lines(told)) + "\n")


@prompt_app.command()
def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="The older prompt.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The newer prompt.")],
    patch: Annotated[bool, typer.Option("--patch", help="Write the patch that `apply` takes.")] = False,
    as_json: Json = False,
) -> None:
    """What changed between two prompts, in words."""
    with answering(as_json):
        from newbie_image.prompt import diff as differences

        first, second = _parse(a, True), _parse(b, True)
        made = differences.diff(first, second)
        if patch or as_json:
            say_json({"ok": True, **made.as_dict()} if as_json else made.as_dict())
        else:
            say("".join(line + "\n" for line in differences.words(made, first, second)))


@prompt_app.command()
def apply(
    file: File,
    patch: Annotated[
        str, typer.Argument(metavar="PATCH", help="A patch from `newbie prompt diff A B --patch`.")
    ],
    write: Write = False,
    as_json: Json = False,
) -> None:
    """Apply a patch to a prompt."""
    with answering(as_json):
        from newbie_image.prompt import diff as differences

        text = read_bytes(patch).decode("utf-8", "replace")
        result = differences.apply(_parse(file, True), differences.Patch.from_json(text))
        if as_json:
            say_json({"ok": True, "text": result.source})
        else:
            _give(file, result.source, write)


@prompt_app.command()
def schema(
    kind: Annotated[str, typer.Option(help="rng (RELAX NG), xsd, or json (of the JSON form).")] = "rng",
    as_json: Json = False,
) -> None:
    """The grammar for editors."""
    with answering(as_json):
        from newbie_image.prompt import schema as schemas

        text = schemas.schema(kind)
        if as_json:
            say_json({"ok": True, "kind": kind, "schema": text})
        else:
            say(text)


@prompt_app.command()
def new(
    characters: Annotated[int, typer.Option(help="How many people, 1 to 16.")] = 1,
    as_json: Json = False,
) -> None:
    """A prompt to begin with."""
    with answering(as_json):
        from newbie_image.prompt.templates import skeleton

        text = skeleton(characters)
        if as_json:
            say_json({"ok": True, "text": text})
        else:
            say(text)


@template_app.command("list")
def template_list(as_json: Json = False) -> None:
    """The templates and what they are for."""
    with answering(as_json):
        from newbie_image.prompt.templates import template, template_names

        found = [template(name) for name in template_names()]
        if as_json:
            say_json(
                {
                    "ok": True,
                    "templates": [
                        {"name": t.name, "about": t.about, "variables": dict(t.variables)} for t in found
                    ],
                }
            )
        else:
            wide = max((len(t.name) for t in found), default=0)
            say("".join(f"{t.name:<{wide}}  {t.about}\n" for t in found))


@template_app.command("show")
def template_show(name: str, as_json: Json = False) -> None:
    """A template with its blanks."""
    with answering(as_json):
        from newbie_image.prompt.templates import template

        found = template(name)
        if as_json:
            variables = dict(found.variables)
            say_json(
                {"ok": True, "name": name, "about": found.about, "variables": variables, "text": found.text}
            )
        else:
            say(found.text)


@template_app.command("fill")
def template_fill(
    name: str,
    values: Annotated[list[str] | None, typer.Argument(metavar="key=value…")] = None,
    as_json: Json = False,
) -> None:
    """A template with its blanks filled."""
    with answering(as_json):
        from newbie_image.prompt.templates import template

        given: dict[str, str] = {}
        for value in values or []:
            key, equals, text = value.partition("=")
            if not equals:
                raise ConfigError(f"{value!r} is not key=value; write for example hair=blue_hair")
            given[key.strip()] = text
        prompt = template(name).fill(given)
        if as_json:
            say_json({"ok": True, "name": name, "text": prompt.source})
        else:
            say(prompt.source)
