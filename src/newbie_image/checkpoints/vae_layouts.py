"""Names of an autoencoder's tensors: diffusers' ``AutoencoderKL`` and the original ones that ComfyUI reads.

The two differ in names, in the order of the decoder's levels (the original counts them from the finest), and
in that the attention's linear layers are stored as 1×1 convolutions.
"""

from __future__ import annotations

import re

from newbie_image.checkpoints.layouts import Piece, Plan, Shape, Shapes
from newbie_image.errors import CheckpointError

_ATTENTION = (("norm", "group_norm"), ("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("proj_out", "to_out.0"))
_KNOWN_AND_UNUSED = ("loss.", "model_ema.", "discriminator.")
_PREFIXES = ("first_stage_model.", "vae.")


def vae_layout(shapes: Shapes) -> str:
    """``diffusers`` or ``comfyui`` (the original names).

    Raises:
        CheckpointError: neither.
    """
    bare = [_bare(name) for name in shapes]
    if any(re.match(r"(encoder|decoder)\.(down|up)\.\d+\.block\.", name) for name in bare):
        return "comfyui"
    if any(re.match(r"(encoder|decoder)\.(down|up)_blocks\.", name) for name in bare):
        return "diffusers"
    if "decoder.layers.0.weight" in bare:  # diffusers' AutoencoderTiny
        return "diffusers"
    some = ", ".join(sorted(bare)[:3]) or "no names at all"
    raise CheckpointError(f"this is no autoencoder that is known: it has {some}")


def read_vae(shapes: Shapes) -> Plan:
    """The plan from an autoencoder's file to diffusers' names."""
    layout = vae_layout(shapes)
    if layout == "diffusers":
        return Plan(layout, {_bare(name): Piece((name,)) for name in shapes})
    levels = _levels(shapes, r"decoder\.up\.(\d+)\.")
    pieces: dict[str, Piece] = {}
    ignored: list[str] = []
    unused: list[str] = []
    for name, shape in shapes.items():
        if _bare(name).startswith(_KNOWN_AND_UNUSED):
            ignored.append(name)
        elif ours := _to_diffusers(_bare(name), levels):
            linear = ".attentions." in ours and len(shape) == 4
            pieces[ours] = Piece((name,), shape=shape[:2] if linear else None)
        else:
            unused.append(name)
    return Plan(layout, pieces, tuple(ignored), tuple(unused))


def write_vae(layout: str, shapes: Shapes) -> Plan:
    """The plan from diffusers' names to a layout's.

    Raises:
        CheckpointError: an autoencoder of another class in the comfyui layout, which has room for
        AutoencoderKL only.
    """
    if layout != "comfyui":
        return Plan(layout, {name: Piece((name,)) for name in shapes})
    levels = _levels(shapes, r"decoder\.up_blocks\.(\d+)\.")
    pieces: dict[str, Piece] = {}
    for name, shape in shapes.items():
        theirs = _to_original(name, levels)
        if theirs is None:
            raise CheckpointError(
                f"the comfyui layout has no place for {name}: it carries AutoencoderKL only; "
                "convert this model to newbie, published or diffusers"
            )
        pieces[theirs] = Piece((name,), shape=_as_convolution(name, shape))
    return Plan(layout, pieces)


def _to_diffusers(name: str, levels: int) -> str | None:
    if re.match(r"(post_)?quant_conv\.", name):
        return name
    side, _, rest = name.partition(".")
    if side not in ("encoder", "decoder"):
        return None
    if rest.startswith(("conv_in.", "conv_out.")):
        return name
    if rest.startswith("norm_out."):
        return f"{side}.conv_{rest}"
    if found := re.match(r"mid\.block_([12])\.(.+)", rest):
        return f"{side}.mid_block.resnets.{int(found[1]) - 1}.{_shortcut(found[2], 'conv_shortcut')}"
    if found := re.match(r"mid\.attn_1\.(\w+)\.(.+)", rest):
        renamed = dict(_ATTENTION).get(found[1])
        return f"{side}.mid_block.attentions.0.{renamed}.{found[2]}" if renamed else None
    found = re.match(r"(down|up)\.(\d+)\.(?:block\.(\d+)|(down|up)sample)\.(.+)", rest)
    if not found or (found[1] == "down") != (side == "encoder"):
        return None
    level = int(found[2]) if side == "encoder" else levels - 1 - int(found[2])
    block = f"{side}.{found[1]}_blocks.{level}"
    if found[3] is not None:
        return f"{block}.resnets.{found[3]}.{_shortcut(found[5], 'conv_shortcut')}"
    return f"{block}.{found[4]}samplers.0.{found[5]}"


def _to_original(name: str, levels: int) -> str | None:
    if re.match(r"(post_)?quant_conv\.", name):
        return name
    side, _, rest = name.partition(".")
    if side not in ("encoder", "decoder"):
        return None
    if rest.startswith(("conv_in.", "conv_out.")):
        return name
    if rest.startswith("conv_norm_out."):
        return f"{side}.{rest.removeprefix('conv_')}"
    if found := re.match(r"mid_block\.resnets\.([01])\.(.+)", rest):
        return f"{side}.mid.block_{int(found[1]) + 1}.{_shortcut(found[2], 'nin_shortcut')}"
    if found := re.match(r"mid_block\.attentions\.0\.(group_norm|to_q|to_k|to_v|to_out\.0)\.(.+)", rest):
        renamed = {theirs: ours for ours, theirs in _ATTENTION}[found[1]]
        return f"{side}.mid.attn_1.{renamed}.{found[2]}"
    found = re.match(r"(down|up)_blocks\.(\d+)\.(?:resnets\.(\d+)|(down|up)samplers\.0)\.(.+)", rest)
    if not found:
        return None
    level = int(found[2]) if side == "encoder" else levels - 1 - int(found[2])
    block = f"{side}.{found[1]}.{level}"
    if found[3] is not None:
        return f"{block}.block.{found[3]}.{_shortcut(found[5], 'nin_shortcut')}"
    return f"{block}.{found[4]}sample.{found[5]}"


def _shortcut(inner: str, new: str) -> str:
    return re.sub(r"^(conv|nin)_shortcut\.", f"{new}.", inner)


def _as_convolution(name: str, shape: Shape) -> Shape | None:
    linear = ".attentions." in name and name.endswith(".weight") and len(shape) == 2
    return (*shape, 1, 1) if linear else None


def _levels(shapes: Shapes, pattern: str) -> int:
    found = [int(match[1]) for name in shapes if (match := re.match(pattern, _bare(name)))]
    return max(found, default=-1) + 1


def _bare(name: str) -> str:
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name
