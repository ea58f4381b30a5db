"""Where the command `newbie` begins. `newbie prompt` goes straight to its own options, because importing what
the other commands need takes longer than its answer.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence

_FULL = (errno.ENOSPC, errno.EDQUOT)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command with these arguments, else those of the process, and leave with its exit code.

    A disk that is full where the answer goes (`--json > FILE`) is a line of error and exit code 2.
    """
    try:
        code = _run(sys.argv[1:] if arguments is None else list(arguments))
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        _drop_output()
        code = 1
    except OSError as error:
        if error.errno not in _FULL or os.environ.get("NEWBIE_DEBUG"):
            raise
        _drop_output()
        code = _say_full(error)
    sys.exit(code)


def _run(arguments: list[str]) -> int | str | None:
    """The exit code, as `sys.exit` takes it."""
    if arguments[:1] == ["prompt"]:
        from newbie_image.cli.prompt_arguments import run

        return run(arguments[1:])
    from newbie_image.cli.app import app

    try:
        app(arguments, prog_name="newbie")
    except SystemExit as left:
        return left.code
    return 0


def _drop_output() -> None:
    """Let what could not be written go, so that leaving does not try it again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say_full(error: OSError) -> int:
    from newbie_image.cli.messages import say_error
    from newbie_image.errors import OutputError

    where = error.filename or "the answer"
    say_error(OutputError(f"cannot write {where}: the disk is full; make room, or write to another one"))
    return 2
