"""`newbie info`: what there is on this machine, and why it would be used."""

from __future__ import annotations

import json
import os
import platform
from typing import TYPE_CHECKING, Annotated, Any

import typer

from newbie_image import __version__
from newbie_image.cli import options

if TYPE_CHECKING:
    from newbie_image.devices import DeviceChoice

info_app = typer.Typer(add_completion=False)


@info_app.command()
def info(
    brief: Annotated[
        bool, typer.Option("--brief", help="Only what is known without importing torch.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    device: options.DeviceOption = "auto",
    dtype: options.DtypeOption = "auto",
    attention: options.AttentionOption = "auto",
    model: options.ModelOption = None,
    transformer: options.TransformerOption = None,
    text_encoder: options.TextEncoderOption = None,
    clip_model: options.ClipModelOption = None,
    vae: options.VaeOption = None,
    quantise: options.QuantiseOption = "none",
    quantise_encoders: options.QuantiseEncodersOption = "none",
) -> None:
    """Say what device, dtype, attention backend, versions, bundles and VAEs there are, or a model's parts."""
    choice = options.ModelChoice(
        device=device,
        dtype=dtype,
        attention=attention,
        quantise=quantise,
        quantise_encoders=quantise_encoders,
    )
    facts = _brief() if brief else _brief() | _machine(choice)
    facts["bundles"] = _bundles(with_hash=not brief)
    facts["vaes"] = _vaes()
    given = {"transformer": transformer, "text_encoder": text_encoder, "clip_model": clip_model, "vae": vae}
    parts = {name: path for name, path in given.items() if path is not None}
    if model is not None or parts:
        facts["parts"] = _parts(options.read_model(model, transformer), parts)
    if as_json:
        print(json.dumps(facts, ensure_ascii=False, indent=2))
        return
    for line in _lines(facts):
        print(line)


def _brief() -> dict[str, Any]:
    from newbie_image.provenance import package_versions

    return {
        "newbie-image": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": package_versions() | _optional_versions(),
    }


def _optional_versions() -> dict[str, str]:
    from importlib import metadata

    found = {}
    for name in ("flash-attn", "triton", "peft", "resvg-py", "torchao", "gguf"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed (optional)"
    return found


def _machine(choice: options.ModelChoice) -> dict[str, Any]:
    import torch

    from newbie_image.devices import choose_device, dtype_name
    from newbie_image.memory.quantisation import check_quantisation
    from newbie_image.models.attention import check_backend, flash_available
    from newbie_image.provenance import device_name, processor_name

    chosen = choose_device(choice.device, choice.dtype)
    backend = check_backend(choice.attention, chosen.device)
    for kind in (choice.quantise, choice.quantise_encoders):
        check_quantisation(kind, chosen.dtype, chosen.device)
    flash = "flash-attn where a batch is padded, else sdpa" if flash_available() else "sdpa"
    facts: dict[str, Any] = {
        "device": str(chosen.device),
        "device_name": device_name(str(chosen.device)),
        "dtype": dtype_name(chosen.dtype),
        "reason": chosen.reason,
        "attention": f"auto: {flash}" if backend == "auto" else backend,
        "quantise": f"{choice.quantise}, encoders {choice.quantise_encoders}: {_formats(chosen)}",
        "processor": f"{processor_name()}, {os.cpu_count()} cores, torch uses {torch.get_num_threads()}",
    }
    if chosen.device.type == "cuda":
        free, total = torch.cuda.mem_get_info(chosen.device)
        facts["device_memory"] = f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
    return facts


def _formats(chosen: DeviceChoice) -> str:
    """The formats that quantised weights may have here, or what is missing for them."""
    from newbie_image.errors import DeviceError, MissingDependencyError
    from newbie_image.memory.quantisation import INSTALL, check_quantisation

    usable = []
    for kind in options.QUANTISATIONS[1:]:
        try:
            check_quantisation(kind, chosen.dtype, chosen.device)
        except MissingDependencyError:
            return f"others need torchao ({INSTALL})"
        except DeviceError:
            continue
        usable.append(kind)
    return f"{', '.join(usable)} work here"


def _bundles(*, with_hash: bool) -> list[dict[str, str]]:
    from newbie_image.bundle import bundle_names, content_hash, find_bundle, read_settings
    from newbie_image.errors import NewbieError

    found = []
    for name in bundle_names():
        entry = {"name": name}
        try:
            folder = find_bundle(name)
            settings = read_settings(folder)
            defaults = settings.defaults
            steps = f"{defaults.steps} steps of {defaults.sampler}"
            guidance = f"guidance {defaults.guidance_scale:g}, shift {defaults.shift:g}"
            entry |= {
                "path": str(folder),
                "defaults": f"{defaults.width}x{defaults.height}, {steps}, {guidance}",
                "presets": ", ".join(settings.presets) or "none",
                "licence": settings.licence,
            }
            if with_hash:
                entry["content_hash"] = content_hash(folder)
        except (NewbieError, OSError) as error:
            entry["problem"] = str(error)
        found.append(entry)
    return found


def _parts(model: str, parts: dict[str, str]) -> list[dict[str, str]]:
    """Of what a model would be made: of each part its file, naming, size and dtypes, from headers."""
    from newbie_image.checkpoints.inspection import describe
    from newbie_image.checkpoints.opening import find_checkpoint
    from newbie_image.checkpoints.vae_registry import find_vae

    if "vae" in parts:
        parts = {**parts, "vae": str(find_vae(parts["vae"]).path)}
    checkpoint = find_checkpoint(model, parts)
    rows = [
        {
            "name": part.name,
            "path": str(part.path),
            "layout": part.layout,
            "parameters": f"{part.parameters:,}",
            "dtypes": ", ".join(f"{count} {name}" for name, count in part.dtypes.items()),
        }
        for part in describe(checkpoint)
    ]
    return rows + [{"name": name, "path": "missing"} for name in checkpoint.missing]


def _vaes() -> list[dict[str, str]]:
    from newbie_image.checkpoints.vae_registry import SHIPPED, named_vaes
    from newbie_image.errors import NewbieError

    try:
        named = named_vaes().values()
    except NewbieError as error:
        return [{"name": "(registry)", "problem": str(error)}]
    found = []
    for entry in named:
        missing = (
            f"not on this disk: newbie weights download {entry.download}" if entry.download else "missing"
        )
        place = str(entry.path) if entry.here else f"{missing} ({entry.path})"
        found.append({"name": entry.name, "about": entry.about, "path": place, "licence": entry.licence})
        if entry.source != SHIPPED:
            found[-1]["named_in"] = str(entry.source)
    return found


def _lines(facts: dict[str, Any]) -> list[str]:
    lines = []
    for key, value in facts.items():
        if isinstance(value, str):
            lines.append(f"{key.replace('_', ' '):<14} {value}")
    lines.append("versions")
    lines += [f"  {name:<14} {version}" for name, version in facts["versions"].items()]
    for kind in ("parts", "bundles", "vaes"):
        if kind not in facts:
            continue
        lines.append(kind if facts[kind] else f"{kind:<14} none")
        for entry in facts[kind]:
            lines.append(f"  {entry['name']}")
            lines += [
                f"    {key.replace('_', ' '):<12} {value}"
                for key, value in entry.items()
                if key != "name" and value
            ]
    return lines
