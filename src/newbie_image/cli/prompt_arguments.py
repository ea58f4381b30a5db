"""The options of `newbie prompt …`, read with argparse.

The other commands are typer's. These are not, because importing typer with pydantic takes longer than
anything that they do themselves, and they are there to answer at once, in an editor at every save.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

from newbie_image.cli import prompt
from newbie_image.cli.messages import say_error, say_usage_error
from newbie_image.errors import NewbieError, PromptError

Options = Callable[[argparse.ArgumentParser], None]


class _Command(NamedTuple):
    run: Callable[..., int]
    options: Options


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        say_usage_error(message, self.prog)
        raise SystemExit(2)


def _file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE|-", help="The prompt's file, or - for standard input.")


def _flag(parser: argparse.ArgumentParser, *names: str, to: str, about: str) -> None:
    parser.add_argument(*names, dest=to, action="store_true", help=about)


def _switch(parser: argparse.ArgumentParser, name: str, about: str) -> None:
    parser.add_argument(name, action=argparse.BooleanOptionalAction, default=True, help=about)


def _tolerant(parser: argparse.ArgumentParser) -> None:
    _flag(parser, "--tolerant", to="tolerant", about="Repair what is broken and say what was assumed.")


def _write(parser: argparse.ArgumentParser) -> None:
    _flag(parser, "-w", "--write", to="write", about="Write the result back to the file.")


def _check(parser: argparse.ArgumentParser) -> None:
    _file(parser)
    _flag(parser, "--fix", to="fix", about="Mend what can be mended and write the file back.")
    _flag(parser, "--warnings-as-errors", to="warnings_as_errors", about="Exit with 1 on warnings.")
    parser.add_argument(
        "--size", metavar="WxH", default="", help="The picture's size, to compare <resolution> with."
    )
    _flag(parser, "--negative", to="negative", about="It is a negative prompt, which needs no people.")
    _switch(parser, "--hints", "Also say hints.")
    _tolerant(parser)


def _format(parser: argparse.ArgumentParser) -> None:
    _file(parser)
    _write(parser)
    _flag(parser, "--check", to="only_check", about="Say whether anything would change; exit 1 if so.")
    _switch(parser, "--notes", "Keep notes.")
    _tolerant(parser)


def _flatten(parser: argparse.ArgumentParser) -> None:
    _file(parser)
    _flag(parser, "--groups", to="groups", about="The text of each group apart.")
    parser.add_argument("--form", default="typed", help="With --groups: typed or flat.")
    _tolerant(parser)


def _convert(parser: argparse.ArgumentParser) -> None:
    _file(parser)
    notations = "xml, tags, flat, sentence, json, yaml, toml, a1111, comfyui or novelai"
    parser.add_argument("--to", default="xml", help=f"{notations}.")
    parser.add_argument(
        "--from", dest="source", default="", help="The notation of FILE; guessed without this."
    )
    _flag(parser, "--explain", to="explained", about="Say of each word what became of it.")
    _tolerant(parser)


def _explain(parser: argparse.ArgumentParser) -> None:
    _file(parser)
    parser.add_argument("--model", default="nano", help="The bundle whose tokenizers and limits count.")
    parser.add_argument("--text-form", dest="form", default="typed", help="typed or flat.")
    _tolerant(parser)


def _diff(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", metavar="A", help="The older prompt.")
    parser.add_argument("b", metavar="B", help="The newer prompt.")
    _flag(parser, "--patch", to="patch", about="Write the patch that `apply` takes.")


def _apply(parser: argparse.ArgumentParser) -> None:
    _file(parser)
    parser.add_argument("patch", metavar="PATCH", help="A patch from `newbie prompt diff A B --patch`.")
    _write(parser)


def _schema(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kind", default="rng", help="rng (RELAX NG), xsd, or json (of the JSON form).")


def _new(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--characters", type=int, default=1, metavar="N", help="How many people, 1 to 16.")


def _name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="The template's name.")


def _fill(parser: argparse.ArgumentParser) -> None:
    _name(parser)
    parser.add_argument("values", nargs="*", metavar="key=value", help="What goes into a blank.")


COMMANDS: dict[str, _Command] = {
    "check": _Command(prompt.check, _check),
    "format": _Command(prompt.format_, _format),
    "flatten": _Command(prompt.flatten, _flatten),
    "convert": _Command(prompt.convert, _convert),
    "explain": _Command(prompt.explain, _explain),
    "diff": _Command(prompt.diff, _diff),
    "apply": _Command(prompt.apply, _apply),
    "schema": _Command(prompt.schema, _schema),
    "new": _Command(prompt.new, _new),
    "template list": _Command(prompt.template_list, lambda parser: None),
    "template show": _Command(prompt.template_show, _name),
    "template fill": _Command(prompt.template_fill, _fill),
}


def run(arguments: Sequence[str]) -> int:
    """Run `newbie prompt` with these arguments.

    Returns:
        The exit code. An error is one line on standard error, with `--json` an object on standard output.

    Raises:
        SystemExit: 0 after --help, 2 after a mistake in the options.
    """
    name, rest = _split(arguments)
    if name not in COMMANDS:
        return _no_command(name, rest)
    command = COMMANDS[name]
    about = (command.run.__doc__ or "").strip()
    parser = _Parser(prog=f"newbie prompt {name}", description=about, allow_abbrev=False)
    command.options(parser)
    _flag(parser, "--json", to="as_json", about="Answer with one JSON object.")
    chosen: dict[str, Any] = vars(parser.parse_intermixed_args(rest))
    try:
        return command.run(**chosen)
    except NewbieError as error:
        if chosen["as_json"]:
            line, column = (error.line, error.column) if isinstance(error, PromptError) else (None, None)
            told = {"kind": type(error).__name__, "message": str(error), "line": line, "column": column}
            prompt.say_json({"ok": False, "error": told})
        elif os.environ.get("NEWBIE_DEBUG"):
            raise
        else:
            say_error(error)
        return 2


def _split(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """The command's name, of one word or two, and what follows it."""
    rest = list(arguments)
    name = rest.pop(0) if rest else ""
    if name == "template" and rest and not rest[0].startswith("-"):
        name += " " + rest.pop(0)
    return name, rest


def _no_command(name: str, rest: Sequence[str]) -> int:
    """The list of commands for `--help` and for nothing at all; otherwise a mistake."""
    inside = "template " if name.partition(" ")[0] == "template" else ""
    shown = {n.removeprefix(inside): c for n, c in COMMANDS.items() if n.startswith(inside)}
    word = name.removeprefix(inside) if name != "template" else ""
    asked = {word, *rest} & {"-h", "--help"}
    if word and not asked:
        import difflib

        near = difflib.get_close_matches(word, shown, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(shown)}"
        say_usage_error(f"no command {word!r}; {hint}", f"newbie prompt {inside}".rstrip())
        return 2
    wide = max(map(len, shown))
    lines = [f"usage: newbie prompt {inside}COMMAND …", ""]
    lines += [f"  {n:<{wide}}  {(c.run.__doc__ or '').strip().splitlines()[0]}" for n, c in shown.items()]
    lines += ["", f"newbie prompt {inside}COMMAND --help says more."]
    (sys.stdout if asked else sys.stderr).write("\n".join(lines) + "\n")
    return 0 if asked else 2
