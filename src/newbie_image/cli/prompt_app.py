"""`newbie prompt` as the other commands see it: everything after the word goes to :mod:`prompt_arguments`."""

from __future__ import annotations

import typer

from newbie_image.cli.prompt_arguments import run

prompt_app = typer.Typer(add_completion=False)


@prompt_app.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}
)
def prompt(context: typer.Context) -> None:
    """Check, format, convert, compare and explain prompts."""
    raise typer.Exit(run(context.args))
