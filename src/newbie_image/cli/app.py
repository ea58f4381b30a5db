"""The command `newbie`: which sub-commands there are, and what an error looks like.

A sub-command's module is imported when that sub-command runs, so that `newbie --help` neither imports torch
nor waits for anything.
"""

from __future__ import annotations

import importlib
import logging
import os
from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

from newbie_image import __version__
from newbie_image.cli.messages import say_error, say_usage_error
from newbie_image.errors import MissingDependencyError, NewbieError


@dataclass(frozen=True)
class _Command:
    """Where a sub-command lives: a typer app in a module, and its line in `newbie --help`."""

    module: str
    app: str
    help: str


COMMANDS: Final = {
    "generate": _Command("newbie_image.cli.generate", "generate_app", "Draw pictures of a prompt."),
    "create": _Command("newbie_image.cli.create", "create_app", "Draw one prompt after another, in a loop."),
    "explain": _Command(
        "newbie_image.cli.explain", "explain_app", "Show which words drew what, as maps and a page."
    ),
    "replay": _Command("newbie_image.cli.replay", "replay_app", "Make a picture again from its metadata."),
    "info": _Command("newbie_image.cli.info", "info_app", "Say what device, versions and models there are."),
    "plan": _Command("newbie_image.cli.plan", "plan_app", "Say what memory a picture takes, and how."),
    "prompt": _Command("newbie_image.cli.prompt_app", "prompt_app", "Check, format and convert prompts."),
    "weights": _Command("newbie_image.cli.weights", "weights_app", "Download, verify and convert weights."),
    "nano": _Command("newbie_image.cli.nano", "nano_app", "Train and score the embedded model."),
}
PACKAGES_OF_GROUPS: Final = {"resvg_py": "nano", "peft": "train"}


class NewbieGroup(TyperGroup):
    """A group that imports a sub-command when it is used and turns errors into one line and exit code 2."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, command in COMMANDS.items():
            self.add_command(TyperCommand(name=name, help=command.help), name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        if name in COMMANDS:
            _hush()
            command = _load(name)
        return name, command, rest

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except NewbieError as error:
            if os.environ.get("NEWBIE_DEBUG"):
                raise
            say_error(error)
        except typer.TyperException as error:
            message = error.format_message()
            if error.exit_code != 2 or "\n" in message:
                raise
            say_usage_error(message, getattr(getattr(error, "ctx", None), "command_path", "newbie"))
        raise typer.Exit(2)


def _hush() -> None:
    """Leave out what torchao, where it is installed, says of kernels for other machines than this.

    diffusers imports it whether it is asked for or not.
    """
    for name in ("torchao", "torch.utils._pytree", "diffusers.quantizers.torchao.torchao_quantizer"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _load(name: str) -> Any:
    command = COMMANDS[name]
    try:
        found = getattr(importlib.import_module(command.module), command.app)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        group = PACKAGES_OF_GROUPS.get(missing)
        if group is None:
            raise
        raise MissingDependencyError(
            f"newbie {name} needs the package {missing}: pip install 'newbie-image[{group}]'"
        ) from error
    return typer.main.get_command(found)


app = typer.Typer(
    name="newbie",
    cls=NewbieGroup,
    help="An XML prompt goes in, a picture goes out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"newbie-image {__version__}")
        raise typer.Exit


@app.callback()
def newbie(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_say_version, is_eager=True, help="Say the version and leave."),
    ] = False,
) -> None:
    """An XML prompt goes in, a picture goes out."""
