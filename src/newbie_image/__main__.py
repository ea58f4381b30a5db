"""`python -m newbie_image` is the command `newbie`."""

from newbie_image.cli.app import app

app(prog_name="newbie")
