"""How far are adapters here from what their own libraries compute? The table in `docs/adapters.md`.

    python benchmarks/adapters.py

PEFT runs here, on the tiny model of the tests. LyCORIS need not be installed: what it wrote and computed on
upstream's transformer is stored in `tests/parity/fixtures/adapters` (see `tests/parity/compare_adapters.py`).
Float32, random weights; every figure is ‖ours − theirs‖ / ‖theirs‖ of the velocity.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import peft
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from newbie_image.checkpoints.adapters import AdapterStack
from newbie_image.checkpoints.files import open_source
from newbie_image.checkpoints.foreign import load_part
from newbie_image.checkpoints.merging import merge_into_files
from newbie_image.checkpoints.recognise import recognise
from newbie_image.models.next_dit import NextDiT
from tests.checkpoints.test_adapters import PEFT_CONFIGS, model, relative_error, run
from tests.parity.test_adapter_parity import (
    HALF,
    KINDS,
    STACK,
    STACKED_AT,
    STRENGTH,
    model_and_inputs,
    path_of,
    velocities,
)

COLUMNS = ("load", "scale", "stack", "fuse", "unload", "merge")
Run = Callable[[NextDiT], Tensor]


def peft_row(kind: str, folder: Path) -> dict[str, str]:
    """PEFT with one adapter, with half of it, and with two, beside ours with its files."""
    theirs = peft.get_peft_model(model(), PEFT_CONFIGS[kind])
    theirs.add_adapter("second", PEFT_CONFIGS[kind])
    torch.manual_seed(7)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "lora_" in name or "lokr_" in name or "hada_" in name:
                parameter.normal_(std=0.2)
    theirs.eval().save_pretrained(folder)
    whole = run(theirs)
    _scale(theirs, 0.5)
    half = run(theirs)
    _scale(theirs, 2.0)
    theirs.base_model.set_adapter(["default", "second"])
    return row(model, run, folder, whole, (0.5, half), (folder / "second", run(theirs)))


def lycoris_row(kind: str) -> dict[str, str]:
    """LyCORIS' stored velocity, at the strength at which it was computed."""
    given = model_and_inputs()[1]
    theirs = velocities()
    scale = STRENGTH.get(kind, 1.0)

    @torch.no_grad()
    def velocity(transformer: NextDiT) -> Tensor:
        return transformer(**given)

    def fresh() -> NextDiT:
        return model_and_inputs()[0]

    scaled = (HALF, theirs[f"{kind}@{HALF}"])
    cells = row(fresh, velocity, path_of(kind), theirs[kind], scaled, strength=scale)
    if kind in STACK:
        stack = AdapterStack(transformer := fresh())
        for each in STACK:
            stack.load(path_of(each), scale=STACKED_AT)
        cells["stack"] = f"{relative_error(velocity(transformer), theirs['stack']):.0e} ¹"
    return cells


def row(
    fresh: Callable[[], NextDiT],
    velocity: Run,
    path: Path,
    expected: Tensor,
    scaled: tuple[float, Tensor] | None = None,
    stacked: tuple[Path, Tensor] | None = None,
    *,
    strength: float = 1.0,
) -> dict[str, str]:
    """One line of the table."""
    transformer = fresh()
    plain = velocity(transformer)
    stack = AdapterStack(transformer)
    name = stack.load(path, scale=strength).name
    cells = {"load": f"{relative_error(velocity(transformer), expected):.0e}"}
    cells["changes"] = f"{relative_error(plain, expected):.2f}"
    if scaled is not None:
        stack.set_scales({name: scaled[0]})
        cells["scale"] = f"{relative_error(velocity(transformer), scaled[1]):.0e}"
        stack.set_scales({name: strength})
    if stacked is not None:
        stack.load(stacked[0], name="second")
        cells["stack"] = f"{relative_error(velocity(transformer), stacked[1]):.0e}"
        stack.unload("second")
    stack.fuse()
    cells["fuse"] = f"{relative_error(velocity(transformer), expected):.0e}"
    stack.unload()
    cells["unload"] = "to the bit" if torch.equal(velocity(transformer), plain) else "differs"
    with tempfile.TemporaryDirectory() as place:
        transformer.save_pretrained(str(Path(place) / "model" / "transformer"))
        (file,) = merge_into_files(
            recognise(Path(place) / "model"), [(path, strength)], Path(place) / "merged"
        ).files
        merged = load_part("transformer", file.parent, open_source(file), None)
        cells["merge"] = f"{relative_error(velocity(merged), expected):.0e}"
    return cells


def _scale(adapted: torch.nn.Module, factor: float) -> None:
    for module in adapted.modules():
        if isinstance(module, peft.tuners.tuners_utils.BaseTunerLayer):
            module.scale_layer(factor)


def main() -> None:
    """Print the table."""
    print(f"PEFT {peft.__version__}")
    print(f"| written by | kind | {' | '.join(COLUMNS)} | the adapter changes |")
    print("|" + "---|" * (len(COLUMNS) + 3))
    for kind in PEFT_CONFIGS:
        with tempfile.TemporaryDirectory() as place:
            show("PEFT", kind, peft_row(kind, Path(place) / "adapter"))
    for kind in KINDS:
        show("LyCORIS", kind.replace("_", " "), lycoris_row(kind))


def show(library: str, kind: str, cells: dict[str, str]) -> None:
    """One line of it."""
    shown = " | ".join(cells.get(column, "–") for column in (*COLUMNS, "changes"))
    shown = shown.replace("0e+00", "0")
    print(f"| {library} | {kind} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
