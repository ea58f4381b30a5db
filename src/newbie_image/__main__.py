"""`python -m newbie_image` is the command `newbie`."""

from newbie_image.cli.main import main

main()
