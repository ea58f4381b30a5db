"""How fast is a prompt read, and does the time grow with the text? And how long does the command take?

    python benchmarks/prompt_speed.py

Seconds are CPU seconds of this process (best of several), so that a busy machine does not blur them.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from newbie_image.prompt import parse
from newbie_image.prompt.lint import check

BLOCK = (
    "<character_{n}>\n  <n>miku</n>\n  <gender>1girl</gender>\n"
    "  <appearance>blue_hair, <!-- weight:1.2 -->long_twintails, teal_eyes, &lt;3, hair_between_eyes</appearance>\n"
    "  <clothing>white_serafuku, blue_pleated_skirt</clothing>\n  <expression>smile, >_<</expression>\n</character_{n}>\n"
)
HOSTILE = {
    "commas": "a,",
    "open marks": "<n>",
    "end marks": "</n>",
    "crossed unknown marks": "<a><b></a></b>",
    "faces": "<3 ",
}


def text_of(size: int) -> str:
    """A prompt of about that many bytes."""
    out: list[str] = []
    length = 0
    while length < size - len(BLOCK):
        out.append(BLOCK.replace("{n}", str(len(out) + 1)))
        length += len(out[-1])
    return "".join(out)


def cost(text: str, repeats: int) -> float:
    """CPU seconds of one reading, the best of three rounds."""
    best = float("inf")
    for _ in range(3):
        begin = time.process_time()
        for _ in range(repeats):
            parse(text, strict=False)
        best = min(best, (time.process_time() - begin) / repeats)
    return best


def main() -> None:
    print("bytes     tags    ms      ns a byte   check ms")
    for size in (1024, 4096, 16384, 65536, 131072, 262144):
        text = text_of(size)
        seconds = cost(text, max(1, 262144 // size // 4))
        prompt = parse(text)
        begin = time.process_time()
        check(prompt)
        checked = time.process_time() - begin
        each = seconds / len(text) * 1e9
        print(f"{len(text):<9} {len(prompt.tags):<7} {seconds * 1e3:<7.2f} {each:<11.0f} {checked * 1e3:.1f}")
    print("\nhostile text   ms at 64 KiB   at 128 KiB   at 256 KiB")
    for name, piece in HOSTILE.items():
        row = [cost((piece * (size // len(piece) + 1))[:size], 1) * 1e3 for size in (65536, 131072, 262144)]
        print(f"{name:<24} {row[0]:<10.1f} {row[1]:<10.1f} {row[2]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "prompt.xml"
        file.write_text(text_of(1024), encoding="utf-8")
        print("\nnewbie prompt …   seconds from the shell, CPU seconds (best of five)")
        for arguments in (["check"], ["flatten"], ["format"], ["convert", "--to", "json"]):
            command = [
                sys.executable,
                "-m",
                "newbie_image",
                "prompt",
                arguments[0],
                str(file),
                *arguments[1:],
            ]
            rows = [shell(command) for _ in range(5)]
            wall, used = min(r[0] for r in rows), min(r[1] for r in rows)
            print(f"{' '.join(arguments):<17} {wall:.2f}  {used:.2f}")


def shell(command: list[str]) -> tuple[float, float]:
    """Seconds on the clock and CPU seconds of one run of a command."""
    import resource

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    wall = time.perf_counter() - begin
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
