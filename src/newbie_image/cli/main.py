"""Where the command `newbie` begins. `newbie prompt` goes straight to its own options, because importing what
the other commands need takes longer than its answer.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command with the arguments of the process, and leave with its exit code."""
    if sys.argv[1:2] != ["prompt"]:
        from newbie_image.cli.app import app

        app(prog_name="newbie")
        return
    from newbie_image.cli.prompt_arguments import run

    try:
        code = run(sys.argv[2:])
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)
