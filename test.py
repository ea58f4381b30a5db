"""One picture with everything fixed. Edit the names in capitals, run it, look at success_output.png.

The picture holds what made it: `newbie replay success_output.png` makes it again and says whether it is the
same to the bit.
"""

import sys
import time
from pathlib import Path

import torch

from newbie_image import GenerationRequest, NewbieError, NewbiePipeline
from newbie_image.cli.drawing import check_prompt, draw, summary
from newbie_image.cli.messages import say_error
from newbie_image.provenance import save_picture

PROMPT = """<character_1>
  <gender>1girl</gender>
  <appearance>blue_hair, twintails, red_eyes</appearance>
  <clothing>black_beret, white_serafuku, red_pleated_skirt, black_thighhighs</clothing>
  <expression>one_eye_closed</expression>
  <pose>standing</pose>
  <position>left</position>
</character_1>
<character_2>
  <gender>1girl</gender>
  <appearance>blonde_hair, wavy_hair, green_eyes, rabbit_ears</appearance>
  <clothing>green_sweater, white_long_skirt</clothing>
  <expression>smile</expression>
  <pose>waving</pose>
  <position>right</position>
</character_2>
<general_tags>
  <count>2girls</count>
  <background>cherry_blossoms</background>
  <lighting>day</lighting>
</general_tags>"""
NEGATIVE = ""
MODEL = "nano"  # an embedded model's name, or the folder of a bundle
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPE = torch.float32  # torch.bfloat16 for the large model on a graphics card
STEPS = 12
GUIDANCE = 3.0
SEED = 7
OUTPUT = "success_output.png"


def main() -> None:
    start = time.perf_counter()
    pipe = NewbiePipeline.from_pretrained(MODEL, torch_dtype=DTYPE)
    pipe.to(torch.device(DEVICE), dtype=DTYPE)
    print(f"{MODEL} loaded on {DEVICE} in {time.perf_counter() - start:.1f} s")

    request = GenerationRequest(
        PROMPT, negative_prompt=NEGATIVE, steps=STEPS, guidance_scale=GUIDANCE, seed=SEED
    )
    check_prompt(request)
    drawn = draw(pipe, request)
    sha256 = save_picture(OUTPUT, drawn.pictures[0], request)
    print(f"{Path(OUTPUT).resolve()} written ({summary(drawn.seconds)})\nsha256 {sha256}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        refused = f"test.py takes no arguments ({sys.argv[1]})"
        print(f"error: {refused}; edit the names in capitals, or run newbie generate", file=sys.stderr)
        sys.exit(2)
    try:
        main()
    except NewbieError as error:
        say_error(error)
        sys.exit(2)
