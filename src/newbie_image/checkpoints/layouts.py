"""Names of tensors in the layouts that are met, as pure functions from names and shapes to plans.

A plan says, for each tensor of the wanted naming, which tensors of the file make it up. So a map is tested
without weights, reading fuses and splits without a second copy of the model, and nothing about files is in
here.

==========  ==========================================================================================
layout      transformer's names
==========  ==========================================================================================
newbie      ours, which are upstream's; the training checkpoint and the published folder have them too
published   as newbie
comfyui     as newbie, with or without ``model.diffusion_model.`` before them
diffusers   those of diffusers pull request 12803: queries, keys and values apart, ``time_caption_embed``
prebuilt    as the prebuilt image's pages write them (no such file was seen): ``blocks.N.attn.qkv`` …
==========  ==========================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from newbie_image.errors import CheckpointError

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]

TRANSFORMER_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "_orig_mod.", "module.")
# Published, and read by no forward; ComfyUI's class does not have it, so what ComfyUI saves lacks it.
UNREAD = ("norm_final.weight",)
_BLOCKS = ("layers.", "noise_refiner.", "context_refiner.")


@dataclass(frozen=True)
class Piece:
    """What makes up one tensor.

    Args:
        names: tensors of the file, put one below the other along their first dimension.
        rows: which rows of that are taken, (start, stop); None for all.
        shape: the shape it is brought to afterwards (a linear layer stored as 1×1 convolution); None to keep
        it.
    """

    names: tuple[str, ...]
    rows: tuple[int, int] | None = None
    shape: Shape | None = None


@dataclass(frozen=True)
class Plan:
    """How a file's tensors become another naming's.

    Args:
        layout: the naming of the side that is not ours.
        pieces: for each tensor wanted, what makes it up.
        ignored: tensors of the file that are known and not needed (a vision tower).
        unused: tensors of the file that nothing is known of; strict loading refuses them.
        ones: tensors that this layout leaves out and that no forward reads: filled with ones.
    """

    layout: str
    pieces: Mapping[str, Piece]
    ignored: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    ones: tuple[str, ...] = ()


# Ours on the left. A name is translated by the longest entry that it begins with.
_OUTER_DIFFUSERS = (
    ("x_embedder.", "x_embedder."),
    ("t_embedder.mlp.0.", "time_caption_embed.timestep_embedder.linear_1."),
    ("t_embedder.mlp.2.", "time_caption_embed.timestep_embedder.linear_2."),
    ("cap_embedder.", "time_caption_embed.caption_embedder."),
    ("clip_text_pooled_proj.", "time_caption_embed.clip_text_pooled_proj."),
    ("time_text_embed.", "time_caption_embed.time_text_embed."),
    ("final_layer.adaLN_modulation.1.", "norm_out.linear_1."),
    ("final_layer.linear.", "norm_out.linear_2."),
)
_INNER_DIFFUSERS = (
    ("attention.out.", "attn.to_out.0."),
    ("attention.q_norm.", "attn.norm_q."),
    ("attention.k_norm.", "attn.norm_k."),
    ("feed_forward.w1.", "feed_forward.linear_1."),
    ("feed_forward.w2.", "feed_forward.linear_2."),
    ("feed_forward.w3.", "feed_forward.linear_3."),
    ("attention_norm2.", "norm2."),
    ("ffn_norm1.", "ffn_norm1."),
    ("ffn_norm2.", "ffn_norm2."),
    ("adaLN_modulation.1.", "norm1.linear."),
)
_MODULATED = (("attention_norm1.", "norm1.norm."),)
_PLAIN = (("attention_norm1.", "norm1."),)
_INNER_PREBUILT = (
    ("attention.qkv.", "attn.qkv."),
    ("attention.out.", "attn.proj."),
    ("attention.q_norm.", "attn.q_norm."),
    ("attention.k_norm.", "attn.k_norm."),
    ("feed_forward.w2.", "mlp.fc2."),
)


def transformer_layout(names: Iterable[str]) -> str:
    """Which naming a transformer's tensors have: ``newbie``, ``diffusers`` or ``prebuilt``.

    Raises:
        CheckpointError: none of them; shows some of the names.
    """
    bare = {without_prefix(name) for name in names}
    if any(name.startswith("time_caption_embed.") for name in bare):
        return "diffusers"
    if any(name.startswith("blocks.") for name in bare):
        return "prebuilt"
    if any(name.startswith("layers.") for name in bare) and any(n.startswith("x_embedder.") for n in bare):
        return "newbie"
    some = ", ".join(sorted(bare)[:3]) or "no names at all"
    raise CheckpointError(
        "this is no transformer of NewBie-image: neither its published names, nor those of diffusers or of "
        f"the prebuilt image are there, but {some}"
    )


def read_transformer(shapes: Shapes) -> Plan:
    """The plan from a transformer's file, in whichever naming, to ours.

    Args:
        shapes: names and shapes in the file; a prefix that all names share is left aside.
    """
    layout = transformer_layout(shapes)
    bare = {without_prefix(name): name for name in shapes}
    if layout == "newbie":
        ones = tuple(name for name in UNREAD if name not in bare)
        return Plan(layout, {name: Piece((full,)) for name, full in bare.items()}, ones=ones)
    rename = _from_diffusers if layout == "diffusers" else _from_prebuilt
    pieces: dict[str, Piece] = {}
    parts: dict[str, dict[str, str]] = {}
    unused: list[str] = []
    for name, full in bare.items():
        stem, _, letter = name.rpartition(".attn.to_")
        if layout == "diffusers" and stem and letter in ("q.weight", "k.weight", "v.weight"):
            parts.setdefault(f"{stem}.attention.qkv.weight", {})[letter[0]] = full
        elif layout == "prebuilt" and ".mlp.fc1." in name:
            half = shapes[full][0] // 2
            base = (_from_prebuilt(name.replace(".mlp.fc1.", ".mlp.fc2.")) or "").replace(".w2.", ".{}.")
            pieces[base.format("w1")] = Piece((full,), (0, half))
            pieces[base.format("w3")] = Piece((full,), (half, 2 * half))
        elif ours := rename(name):
            pieces[ours] = Piece((full,))
        else:
            unused.append(full)
    for ours, found in parts.items():
        if len(found) == 3:
            pieces[ours] = Piece((found["q"], found["k"], found["v"]))
        else:
            unused.extend(found.values())
    ones = () if layout == "prebuilt" and "norm_final.weight" in pieces else ("norm_final.weight",)
    return Plan(layout, pieces, unused=tuple(sorted(unused)), ones=ones)


def write_transformer(layout: str, shapes: Shapes) -> Plan:
    """The plan from our transformer to a layout's names.

    Args:
        layout: ``newbie``, ``published``, ``comfyui`` or ``diffusers``.
        shapes: our names and shapes.

    Raises:
        CheckpointError: a layout that is not written.
    """
    if layout in ("newbie", "published"):
        return Plan(layout, {name: Piece((name,)) for name in shapes})
    if layout == "comfyui":
        return Plan(layout, {f"model.diffusion_model.{name}": Piece((name,)) for name in shapes})
    if layout != "diffusers":
        raise CheckpointError(
            f"the layout {layout!r} is not written; choose newbie, published, comfyui or diffusers"
        )
    pieces: dict[str, Piece] = {}
    unused: list[str] = []
    for name, shape in shapes.items():
        if name.endswith(".attention.qkv.weight"):
            block = name.removesuffix(".attention.qkv.weight")
            queries = shapes[f"{block}.attention.out.weight"][1]
            keys = (shape[0] - queries) // 2
            ends = (0, queries, queries + keys, shape[0])
            for letter, start, stop in zip("qkv", ends[:-1], ends[1:], strict=True):
                pieces[f"{block}.attn.to_{letter}.weight"] = Piece((name,), (start, stop))
        elif theirs := _to_diffusers(name):
            pieces[theirs] = Piece((name,))
        elif name != "norm_final.weight":
            unused.append(name)
    return Plan(layout, pieces, ignored=("norm_final.weight",), unused=tuple(unused))


def without_prefix(name: str) -> str:
    """A transformer's tensor name without what ComfyUI, torch.compile or parallel training put before it."""
    for prefix in TRANSFORMER_PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _from_diffusers(name: str) -> str | None:
    return _translated(name, reverse=True)


def _to_diffusers(name: str) -> str | None:
    return _translated(name, reverse=False)


def _translated(name: str, reverse: bool) -> str | None:
    block, inner = _split_block(name)
    if not block:
        return _by_table(name, _OUTER_DIFFUSERS, reverse)
    norms = _PLAIN if block.startswith("context_refiner.") else _MODULATED
    found = _by_table(inner, (*_INNER_DIFFUSERS, *norms), reverse)
    return None if found is None else block + found


def _from_prebuilt(name: str) -> str | None:
    if name.startswith("blocks."):
        name = "layers." + name.removeprefix("blocks.")
    if name.startswith("final_layer.norm."):
        return "norm_final." + name.removeprefix("final_layer.norm.")
    block, inner = _split_block(name)
    # What the pages do not mention keeps its published name.
    return block + (_by_table(inner, _INNER_PREBUILT, reverse=True) or inner) if block else name


def _split_block(name: str) -> tuple[str, str]:
    """(``layers.3.``, the rest), or ("", name) outside of the blocks."""
    if not name.startswith(_BLOCKS) or name.count(".") < 2:
        return "", name
    stack, number, inner = name.split(".", 2)
    return f"{stack}.{number}.", inner


def _by_table(name: str, table: Iterable[tuple[str, str]], reverse: bool) -> str | None:
    pairs = [(theirs, ours) if reverse else (ours, theirs) for ours, theirs in table]
    fitting = [(old, new) for old, new in pairs if name.startswith(old)]
    if not fitting:
        return None
    old, new = max(fitting, key=lambda pair: len(pair[0]))
    return new + name.removeprefix(old)


def renamed(
    shapes: Shapes, layout: str, rename: Callable[[str], str | None], known: Callable[[str], bool]
) -> Plan:
    """A plan that only renames.

    Args:
        shapes: names in the file.
        layout: of the plan.
        rename: a file's name to ours, None where it has no counterpart.
        known: whether a name without counterpart is known to be of no use here.
    """
    pieces: dict[str, Piece] = {}
    ignored: list[str] = []
    unused: list[str] = []
    for name in shapes:
        ours = rename(name)
        if ours is not None and ours not in pieces:
            pieces[ours] = Piece((name,))
        else:
            (ignored if known(name) else unused).append(name)
    return Plan(layout, pieces, tuple(ignored), tuple(unused))
