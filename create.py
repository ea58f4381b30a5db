"""The loop: the model stays loaded, prompts come one after another.

    python create.py --steps 20 --cfg 4 --seed 7 --resolution 256x256

`python create.py --help` lists the options; each of them is also a `:command` in the loop (`:help`).
"""

from newbie_image.cli.create import main

if __name__ == "__main__":
    main()
