"""`newbie plan`: what a picture takes in memory, and how it would be made in the memory there is."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from newbie_image.cli import options
from newbie_image.errors import DeviceError, RequestError

if TYPE_CHECKING:
    from newbie_image.memory.plan import Plan, Workload
    from newbie_image.memory.sizes import ModelSizes

plan_app = typer.Typer(add_completion=False)
ITEMS: Final = {"bf16": 2, "fp16": 2, "fp32": 4}
TABLE_MEMORIES: Final = ("6GB", "8GB", "12GB", "16GB", "24GB", "80GB")
TABLE_SIDES: Final = (896, 1024, 1536)
_TWICE: Final = ("midpoint", "heun")


@plan_app.command()
def plan(
    vram: Annotated[
        str | None, typer.Option("--vram", metavar="SIZE", help="As 8GB or 7.5GiB; without it the card's.")
    ] = None,
    resolution: options.ResolutionOption = None,
    model: Annotated[
        str, typer.Option("--model", "-m", metavar="published|NAME|PATH", help="Whose sizes to take.")
    ] = "published",
    dtype: Annotated[str, typer.Option("--dtype", metavar="|".join(ITEMS), help="Number format.")] = "bf16",
    steps: options.StepsOption = None,
    sampler: options.SamplerOption = None,
    batch: options.BatchOption = 1,
    transformer: options.TransformerOption = None,
    text_encoder: options.TextEncoderOption = None,
    clip_model: options.ClipModelOption = None,
    vae: options.VaeOption = None,
    quantise: options.QuantiseOption = "none",
    quantise_encoders: options.QuantiseEncodersOption = "none",
    trims: options.TrimsOption = "all",
    tokens: Annotated[int, typer.Option("--tokens", help="Tokens of the caption.")] = 512,
    guided: Annotated[bool, typer.Option(help="With a negative prompt's half.")] = True,
    table: Annotated[bool, typer.Option("--table", help="Common cards and sizes, as Markdown.")] = False,
    track: Annotated[
        bool,
        typer.Option("--track", help="Run the published classes without data and count bytes too (minutes)."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Say the predicted peak of each stage and the plan that would be chosen. Nothing is loaded."""
    if dtype not in ITEMS:
        raise DeviceError(f"unknown dtype {dtype!r}; give {', '.join(ITEMS)}")
    if track and model != "published":
        raise RequestError(f"--track counts the published model, not {model!r}; leave one of the two out")
    if not (1 <= batch <= 64 and tokens >= 1):
        raise RequestError(f"batch {batch} and tokens {tokens}; give 1 to 64, and 1 or more tokens")
    from newbie_image.memory.formats import check_format
    from newbie_image.memory.plan import Workload, check_work, read_memory
    from newbie_image.memory.trims import TRIMS, read_trims, trims_text

    given = {"transformer": transformer, "text_encoder": text_encoder, "clip_model": clip_model, "vae": vae}
    parts = {name: path for name, path in given.items() if path is not None}
    if track and parts:
        raise RequestError("--track counts the published classes; leave it or the parts from elsewhere out")
    choice = options.ModelChoice(quantise=quantise, quantise_encoders=quantise_encoders, trims=trims)
    at_work = read_trims(choice.trims)
    for kind in (choice.quantise, choice.quantise_encoders):
        check_format(kind, dtype)
    if track and {choice.quantise, choice.quantise_encoders} != {"none"}:
        raise RequestError("--track counts weights as they are; leave it or the quantisation out")
    sizes, evaluations = _sizes(model, parts), _evaluations(model, steps, sampler)
    sizes = sizes.quantised(choice.quantise, choice.quantise_encoders)
    width, height = options.read_resolution(resolution) if resolution else (1024, 1024)
    work = Workload(width, height, batch, guided, tokens, evaluations, ITEMS[dtype])
    if table:
        for line in _table(sizes, work, at_work, dtype if track else None):
            print(line, flush=True)
        return
    check_work(sizes, work)
    memory = read_memory(vram) if vram is not None else _device_memory()
    # What `generate` would not do by itself; it draws with nano where no model is named.
    same: dict[str, object] = {
        "--model": "newbie-exp0.1" if model == "published" else model,
        **{f"--{name.replace('_', '-')}": path for name, path in given.items()},
        "--resolution": f"{width}x{height}",
        "--batch": None if batch == 1 else batch,
        "--count": None if batch == 1 else batch,
        "--steps": steps,
        "--sampler": sampler,
        "--dtype": None if dtype == "bf16" else dtype,
        "--quantise": None if choice.quantise == "none" else choice.quantise,
        "--quantise-encoders": None if choice.quantise_encoders == "none" else choice.quantise_encoders,
        "--trims": None if at_work == TRIMS else trims_text(at_work),
    }
    words = [str(word) for pair in same.items() if pair[1] is not None for word in pair]
    _say(sizes, work, memory, at_work, dtype if track else None, as_json, words)


def _say(
    sizes: ModelSizes,
    work: Workload,
    memory: int,
    trims: tuple[str, ...],
    tracked_in: str | None,
    as_json: bool,
    same: list[str],
) -> None:
    from newbie_image.memory.plan import choose_plan, smallest_plan

    chosen = choose_plan(sizes, work, memory, trims)
    shown = chosen or smallest_plan(sizes, work, trims)
    counted = _track([(work, shown)], trims, tracked_in)[0] if tracked_in else None
    if as_json:
        facts: dict[str, Any] = {
            "model": sizes.name,
            "memory": memory,
            "fits": chosen is not None,
            "work": asdict(work),
            "quantise": sizes.transformer.quantised,
            "quantise_encoders": sizes.gemma.quantised,
            "trims": list(trims),
            "plan": asdict(shown) | {"peak": shown.peak, "needed": shown.needed},
            "tracked": None if counted is None else asdict(counted),
        }
        print(json.dumps(facts, indent=2))
        return
    what = f"{sizes.name}, {work.width}x{work.height}, batch {work.batch}, {_formats(sizes, work)}"
    print(f"{what}, {_gigabytes(memory)} of device memory")
    print(("plan: " if chosen else "no plan fits; the smallest is: ") + shown.describe())
    print("stage    weights  activations  predicted" + ("  tracked" if counted else ""))
    for place, stage in enumerate(shown.stages):
        figures = (stage.weights, stage.activations, stage.bytes)
        line = f"{stage.name:<7}{_number(figures[0]):>9}{_number(figures[1]):>13}{_number(figures[2]):>11}"
        print(line + (f"{_number(counted.stages[place].bytes):>9}" if counted else ""))
    print(
        f"with reserve and margin {_gigabytes(shown.needed)}; predicted by arithmetic, not measured on a card"
    )
    if chosen is not None:
        words = ["newbie", "generate", "PROMPT", "--offload", "auto", "--vram", f"{memory / 1e9:g}GB", *same]
        print("to run it so: " + shlex.join(words))


def _formats(sizes: ModelSizes, work: Workload) -> str:
    formats = {"the transformer's blocks": sizes.transformer.quantised, "the encoders": sizes.gemma.quantised}
    said = [f"{kind} in {where}" for where, kind in formats.items() if kind != "none"]
    return ", ".join([f"{work.item * 8}-bit weights", *said])


def _table(sizes: ModelSizes, work: Workload, trims: tuple[str, ...], tracked_in: str | None) -> list[str]:
    from newbie_image.memory.plan import check_work, choose_plan, read_memory

    beyond: dict[int, RequestError] = {}
    rows: list[tuple[str, Workload, Plan | None]] = []
    for side in TABLE_SIDES:
        at = replace(work, width=side, height=side)
        try:
            check_work(sizes, at)
        except RequestError as error:
            beyond[side] = error
            continue
        rows += [
            (memory, at, choose_plan(sizes, at, read_memory(memory), trims)) for memory in TABLE_MEMORIES
        ]
    different = list(dict.fromkeys((at, found) for _, at, found in rows if found is not None))
    counted = dict(zip(different, _track(different, trims, tracked_in), strict=True)) if tracked_in else {}
    lines = [
        "| card | picture | plan | text | steps | decode | predicted peak |"
        + (" tracked peak |" if counted else ""),
        "|---|---|---|---|---|---|---|" + ("---|" if counted else ""),
    ]
    for memory, at, found in rows:
        if found is None:
            lines.append(f"| {memory} | {at.width}² | none fits | | | | |" + (" |" if counted else ""))
            continue
        stages = " | ".join(_number(stage.bytes) for stage in found.stages)
        line = f"| {memory} | {at.width}² | {found.describe()} | {stages} | {_number(found.peak)} |"
        lines.append(line + (f" {_number(counted[at, found].peak)} |" if counted else ""))
    return [*lines, *(f"\n{side}²: {error}" for side, error in beyond.items())]


def _track(cases: list[tuple[Workload, Plan]], trims: tuple[str, ...], dtype: str) -> list[Plan]:
    from newbie_image.devices import DTYPES
    from newbie_image.memory.tracking import published_parts, track_plan

    parts = published_parts(DTYPES[dtype])
    return [track_plan(parts, work, chosen, DTYPES[dtype], trims=trims) for work, chosen in cases]


def _sizes(model: str, parts: dict[str, str]) -> ModelSizes:
    """Sizes of a model in any layout, with the parts from elsewhere in place of its own."""
    from newbie_image.bundle import find_bundle
    from newbie_image.checkpoints.recognise import PARTS
    from newbie_image.memory import sizes

    folder = None if model == "published" else find_bundle(model)
    whole = folder is None or all((folder / name / "config.json").is_file() for name in PARTS)
    if whole and not parts:
        return sizes.bundle_sizes(model)
    from newbie_image.checkpoints.opening import find_checkpoint, part_configs
    from newbie_image.checkpoints.vae_registry import find_vae

    elsewhere = {name: Path(path).expanduser() for name, path in parts.items()}
    if "vae" in parts:
        elsewhere["vae"] = find_vae(parts["vae"]).path
    if folder is None:
        files = elsewhere
        configs = {
            "transformer": sizes.PUBLISHED_TRANSFORMER,
            "text_encoder": sizes.PUBLISHED_GEMMA,
            "clip_model": sizes.PUBLISHED_JINA,
            "vae": sizes.PUBLISHED_VAE,
        }
    else:
        checkpoint = find_checkpoint(folder, elsewhere)
        if checkpoint.missing:
            options_ = " ".join(f"--{name.replace('_', '-')} PATH" for name in checkpoint.missing)
            raise RequestError(
                f"{folder} has no {', '.join(checkpoint.missing)}; say where it is ({options_})"
            )
        files, configs = dict(checkpoint.parts), {}
    configs = {**configs, **part_configs(files)}
    place = files.get("vae")
    weights = [] if place is None else [place] if place.is_file() else list(place.glob("*.safetensors"))
    name = "+".join([model if folder is None else folder.name, *(Path(path).name for path in parts.values())])
    return sizes.sizes_from_configs(
        name, *(configs[part] for part in PARTS), files=sum(file.stat().st_size for file in weights)
    )


def _evaluations(model: str, steps: int | None, sampler: str | None) -> int:
    from newbie_image.bundle import SETTINGS_FILE, Defaults, find_bundle, read_settings
    from newbie_image.request import GenerationRequest

    folder = None if model == "published" else find_bundle(model)
    ours = folder is not None and (folder / SETTINGS_FILE).is_file()
    defaults = read_settings(folder).defaults if folder is not None and ours else Defaults()
    request = GenerationRequest("", steps=steps or defaults.steps, sampler=sampler or defaults.sampler)
    return (request.steps or 1) * (2 if request.sampler in _TWICE else 1)


def _device_memory() -> int:
    import torch

    if not torch.cuda.is_available():
        raise DeviceError("no CUDA device was found whose memory could be asked for; give it as --vram 8GB")
    return torch.cuda.get_device_properties(0).total_memory


def _number(size: int) -> str:
    return f"{size / 1e9:.2f}"


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
