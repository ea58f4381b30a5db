"""Adapters that LyCORIS writes for upstream's transformer, run by LyCORIS there and by us on ours.

    python tests/parity/compare_adapters.py UPSTREAM                    prints the relative errors
    python tests/parity/compare_adapters.py UPSTREAM --write-fixtures   … and writes fixtures/adapters

UPSTREAM is a checkout of NewBie-image-Exp0.1; lycoris-lora has to be importable. The files are saved as the
NewbieLoraTrainer saves them: LoKr as a folder with an `adapter_config.json`, with its default layers.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from newbie_image.checkpoints.adapters import AdapterStack
from newbie_image.models.next_dit import NextDiT
from tests.parity.compare_upstream import GROUPED, build, distance, import_upstream, inputs, run

FIXTURES = Path(__file__).parent / "fixtures" / "adapters"
TOLERANCE = 1e-5
TRAINER_LAYERS = [
    "attention.qkv",
    "attention.out",
    "feed_forward.w2",
    "time_text_embed.1",
    "clip_text_pooled_proj.1",
]
NORMS = ["layers.*.attention_norm1", "layers.*.ffn_norm2", "layers.*.attention.q_norm", "cap_embedder.0"]

# name → (strength, key prefix, layers, LyCORIS settings)
KINDS: dict[str, tuple[float, str, list[str], dict[str, Any]]] = {
    "lokr": (
        1.0,
        "lycoris",
        TRAINER_LAYERS,
        {"network_module": "lokr", "lora_dim": 2, "alpha": 3, "factor": 4},
    ),
    "lokr_whole_with_norms": (
        0.6,
        "lycoris",
        TRAINER_LAYERS + NORMS,
        {"network_module": "lokr", "lora_dim": 114514, "alpha": 114514, "factor": 8, "train_norm": True},
    ),
    "lokr_both": (
        1.0,
        "lycoris",
        TRAINER_LAYERS,
        {"network_module": "lokr", "lora_dim": 1, "alpha": 2, "factor": 4, "decompose_both": True},
    ),
    "lokr_rank_stabilised": (
        1.0,
        "lycoris",
        TRAINER_LAYERS,
        {"network_module": "lokr", "lora_dim": 2, "alpha": 3, "factor": 4, "rs_lora": True},
    ),
    "locon": (0.6, "lycoris", TRAINER_LAYERS, {"network_module": "locon", "lora_dim": 3, "alpha": 2}),
    "loha": (0.6, "lycoris", TRAINER_LAYERS, {"network_module": "loha", "lora_dim": 2, "alpha": 1}),
    "full": (1.0, "lycoris", ["time_text_embed.1"], {"network_module": "full", "lora_dim": 1, "alpha": 1}),
    "kohya": (1.0, "lora_unet", TRAINER_LAYERS, {"network_module": "lora", "lora_dim": 4, "alpha": 2}),
}


HALF = 0.5
STACK = ("lokr", "kohya", "loha")
STACKED_AT = 0.3


def lycoris_network(model: nn.Module, kind: str, **more: Any) -> Any:
    """The network, on the model, with random weights where training would have put some."""
    from lycoris import LycorisNetwork

    strength, prefix, layers, settings = KINDS[kind]
    patterns = [f"*{layer}" for layer in layers]
    LycorisNetwork.apply_preset(
        {
            "enable_conv": True,
            "target_module": [],
            "target_name": patterns,
            "use_fnmatch": True,
            "exclude_name": [],
            "lora_prefix": prefix,
        }
    )
    torch.manual_seed(6)  # LyCORIS starts its factors at random
    network = LycorisNetwork(model, multiplier=strength, conv_lora_dim=4, conv_alpha=1, **settings, **more)
    network.apply_to()
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=draw) * 0.2)
    return network.eval()


def save(network: nn.Module, kind: str, folder: Path) -> Path:
    """As the trainer does: a folder for LoKr, a single file otherwise."""
    settings = KINDS[kind][3]
    if settings["network_module"] != "lokr":
        network.save_weights(str(folder / f"{kind}.safetensors"), dtype=None, metadata={})
        return folder / f"{kind}.safetensors"
    target = folder / kind
    target.mkdir(exist_ok=True)
    rank, alpha = settings["lora_dim"], float(settings["alpha"])
    metadata = {"adapter_type": "lyco_lokr", "lora_rank": str(rank), "lora_alpha": str(alpha)}
    network.save_weights(str(target / "adapter_model.safetensors"), dtype=None, metadata=metadata)
    config = {"adapter_type": "lyco_lokr", "peft_type": "LYCORIS", "lycoris_type": "lokr"}
    config |= {"r": rank, "network_dim": rank, "lora_alpha": alpha, "network_alpha": alpha}
    (target / "adapter_config.json").write_text(json.dumps(config, indent=2))
    return target


def _stacked(
    upstream: type[nn.Module], folder: Path, given: dict[str, Any], velocities: dict[str, Any]
) -> Any:
    """Several at once, in LyCORIS' bypass mode, in which each adds its part to what is there before it.

    (Its `merge_to` would not do: for LoKr and LoHa it multiplies by alpha / rank twice.)
    """
    theirs = build(upstream, GROUPED)
    ours = NextDiT(**GROUPED)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    stack = AdapterStack(ours.eval())
    for kind in STACK:
        path = folder / kind if (folder / kind).is_dir() else folder / f"{kind}.safetensors"
        stack.load(path, scale=STACKED_AT)
        network = lycoris_network(theirs, kind, bypass_mode=True)
        network.load_weights(str(path / "adapter_model.safetensors" if path.is_dir() else path))
        network.set_multiplier(STACKED_AT)
    velocities["stack"] = run(theirs, given)
    return run(ours, given)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("upstream", type=Path)
    parser.add_argument("--write-fixtures", action="store_true")
    options = parser.parse_args()
    upstream = import_upstream(options.upstream)
    given = inputs(GROUPED, (8, 12), (9, 4, 1), padded=11)
    velocities, good = {}, True
    with tempfile.TemporaryDirectory() as scratch, torch.no_grad():
        folder = FIXTURES if options.write_fixtures else Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for kind, (strength, *_) in KINDS.items():
            theirs = build(upstream, GROUPED)
            without = run(theirs, given)
            ours = NextDiT(**GROUPED)
            ours.load_state_dict(theirs.state_dict(), strict=True)
            network = lycoris_network(theirs, kind)
            velocities[kind] = run(theirs, given)
            network.set_multiplier(HALF)
            velocities[f"{kind}@{HALF}"] = run(theirs, given)
            stack = AdapterStack(ours.eval())
            report = stack.load(save(network, kind, folder), scale=HALF, name=kind)
            scaled = distance(run(ours, given), velocities[f"{kind}@{HALF}"])
            stack.set_scales({kind: strength})
            beside = distance(run(ours, given), velocities[kind])
            stack.fuse()
            fused = distance(run(ours, given), velocities[kind])
            changed = distance(without, velocities[kind])
            good &= max(beside, fused, scaled) < TOLERANCE < changed and not report.lines()
            print(
                f"{kind:22s} beside {beside:.1e}   at {HALF} {scaled:.1e}   fused {fused:.1e}   "
                f"changes {changed:.1e}",
                *report.lines(),
            )
        stacked = distance(_stacked(upstream, folder, given, velocities), velocities["stack"])
        good &= stacked < TOLERANCE
        print(f"{' + '.join(STACK)} at {STACKED_AT}: {stacked:.1e}")
        if options.write_fixtures:
            save_file(velocities, folder / "velocities.safetensors")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
