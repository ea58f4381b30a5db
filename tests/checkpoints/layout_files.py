"""One model in all six layouts, at a size that a test can write: for the table of docs/layouts.md."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from newbie_image.checkpoints.convert import WRITTEN, convert
from newbie_image.checkpoints.files import open_source
from newbie_image.checkpoints.recognise import Checkpoint, read_part, recognise
from newbie_image.models.next_dit import NextDiT
from tests.tiny import write_bundle

ORDER = ("published", "training", "prebuilt", "comfyui", "diffusers", "newbie")
_PREBUILT = {
    "text_encoder/gemma3-4b-it.safetensors": "text_encoder/pytorch_model.bin",
    "clip_model/jina-clip-v2.safetensors": "clip_model/open_clip_pytorch_model.bin",
    "vae/diffusion_pytorch_model.safetensors": "vae/diffusion_pytorch_model.bin",
}


@dataclass(frozen=True)
class Written:
    """A layout on the disk.

    Args:
        path: what is given as the model.
        transformer: its transformer's weight file.
        parts: what lies elsewhere.
    """

    path: Path
    transformer: Path
    parts: dict[str, Path] = field(default_factory=dict)


def write_layouts(folder: Path) -> dict[str, Written]:
    """The same random weights in each layout, as its own programs would have written them.

    The transformer's heads have three equal rotary axes, as the published ones have: a training checkpoint
    says nothing of them.
    """
    newbie = write_bundle(folder / "source")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = NextDiT(
            patch_size=2,
            in_channels=16,
            dim=96,
            n_layers=1,
            n_refiner_layers=1,
            n_heads=4,
            n_kv_heads=2,
            multiple_of=32,
            cap_feat_dim=32,
            axes_dims=[8, 8, 8],
            axes_lens=[1024, 512, 512],
            clip_text_dim=16,
        )
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter)
    shutil.rmtree(newbie / "transformer")
    model.save_pretrained(str(newbie / "transformer"))
    for layout in WRITTEN:
        convert(recognise(newbie), folder / layout, layout)
    weights = "diffusion_pytorch_model.safetensors"
    written = {
        layout: Written(folder / layout, folder / layout / "transformer" / weights)
        for layout in ("published", "diffusers", "newbie")
    }
    single = folder / "comfyui" / "diffusion_models" / "NewBie-image.safetensors"
    written["comfyui"] = Written(folder / "comfyui", single)
    written["prebuilt"] = _prebuilt(folder)
    written["training"] = _training(folder)
    return written


def weights_of(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """Every tensor of every part under our names."""
    found = {}
    for part, path in checkpoint.parts.items():
        source = open_source(path)
        plan = read_part(part, path, source.shapes)
        found |= {f"{part}.{name}": source.make(piece) for name, piece in plan.pieces.items()}
    return found


def _prebuilt(folder: Path) -> Written:
    target = Path(shutil.copytree(folder / "published", folder / "prebuilt"))
    for old, new in _PREBUILT.items():
        torch.save(load_file(target / old), target / new)
        (target / old).unlink()
    old = target / "transformer" / "diffusion_pytorch_model.safetensors"
    state, renamed = load_file(old), {}
    for name, value in state.items():
        if ".feed_forward.w3." in name:
            continue
        if ".feed_forward.w1." in name:
            value = torch.cat([value, state[name.replace(".w1.", ".w3.")]])
        for ours, theirs in (
            ("feed_forward.w1", "mlp.fc1"),
            ("feed_forward.w2", "mlp.fc2"),
            ("attention.qkv", "attn.qkv"),
            ("attention.out", "attn.proj"),
            ("norm_final", "final_layer.norm"),
        ):
            name = name.replace(ours, theirs)
        renamed["blocks." + name.removeprefix("layers.") if name.startswith("layers.") else name] = value
    save_file(renamed, target / "transformer" / "model.safetensors")
    old.unlink()
    for ours in ("newbie.json", "SHA256SUMS"):
        (target / ours).unlink()
    return Written(target, target / "transformer" / "model.safetensors")


def _training(folder: Path) -> Written:
    target = folder / "training"
    target.mkdir()
    file = target / "consolidated_ema.00-of-01.pth"
    torch.save(load_file(folder / "published" / "transformer" / "diffusion_pytorch_model.safetensors"), file)
    (target / "model_args.pth").write_bytes(b"a pickle of arguments, never opened")
    elsewhere = {name: folder / "published" / name for name in ("text_encoder", "clip_model", "vae")}
    return Written(target, file, elsewhere)


def table_rows(outcomes: dict[str, dict[str, str]]) -> list[str]:
    """The table of docs/layouts.md from what the tests found: layout → column → cell."""
    columns = ["read", "verify", *(f"to {layout}" for layout in WRITTEN), "refuse damaged"]
    lines = ["| layout | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for layout in ORDER:
        cells = [outcomes[layout].get(column, "no") for column in columns]
        lines.append(f"| {layout} | " + " | ".join(cells) + " |")
    return lines
