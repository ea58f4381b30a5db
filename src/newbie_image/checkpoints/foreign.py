"""A model in any layout that is known, to living components.

Nothing is guessed that could be wrong in silence: names follow the layout's plan, shapes are checked one by
one, and what a layout has no place for (our configs, tokenizers, settings) is read from a file's metadata.
"""

from __future__ import annotations

import inspect
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from newbie_image.bundle import (
    SETTINGS_FILE,
    BundleSettings,
    config_file,
    parse_settings,
    read_json,
    read_settings,
)
from newbie_image.checkpoints.components import constructed, gemma_keys
from newbie_image.checkpoints.configs import autoencoder_config, gemma_config, jina_config, transformer_config
from newbie_image.checkpoints.files import TensorSource, open_source
from newbie_image.checkpoints.layouts import Plan, Shape
from newbie_image.checkpoints.load import build_and_load, unknown_keys
from newbie_image.checkpoints.packed_tokenizer import PACKED_KEY, unpack_tokenizer
from newbie_image.checkpoints.published import published_settings
from newbie_image.checkpoints.recognise import Checkpoint, read_part
from newbie_image.errors import CheckpointError, ConfigError

CONFIG_KEY, TOKENIZER_KEY, SETTINGS_KEY = "newbie_config", "newbie_tokenizer", "newbie_settings"
# Keys that a class of diffusers writes beside its constructor's.
_WRITTEN_BESIDE = {"AutoencoderTiny": ("block_out_channels",)}
MERGED_KEY = "newbie_merged"
TOKENIZER_OF = {"text_encoder": "tokenizer", "clip_model": "clip_tokenizer"}


def load_checkpoint(
    checkpoint: Checkpoint, dtype: torch.dtype | None = None, *, skip: tuple[str, ...] = ()
) -> dict[str, Any]:
    """All components, models on the CPU in evaluation mode.

    Args:
        checkpoint: from :func:`newbie_image.checkpoints.recognise.recognise`, perhaps with parts from
        elsewhere.
        dtype: of floating point weights; None keeps the files'.
        skip: parts that the caller brings.

    Raises:
        CheckpointError, ConfigError: one line; what is missing or wrong, and the fix.
    """
    missing = [name for name in checkpoint.missing if name not in skip]
    if missing:
        options = " ".join(f"--{name.replace('_', '-')} FILE" for name in missing)
        raise CheckpointError(
            f"{checkpoint.path} ({checkpoint.layout}) has no {', '.join(missing)}; say where it is: {options}"
        )
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

    loaded: dict[str, Any] = {"scheduler": FlowMatchEulerDiscreteScheduler(shift=6.0)}
    for part, path in checkpoint.parts.items():
        if part in skip:
            continue
        source = open_source(path)
        loaded[part] = load_part(part, path, source, dtype)
        if part in TOKENIZER_OF:
            name = TOKENIZER_OF[part]
            loaded[name] = load_tokenizer(part, checkpoint.tokenizers.get(name), source, path)
    return loaded


def load_part(part: str, path: Path, source: TensorSource, dtype: torch.dtype | None) -> Any:
    """One part's model from its file or folder."""
    plan = read_part(part, path, source.shapes)
    return build_and_load(builder(part, path, source, plan), source, dtype, plan, path)


def builder(part: str, path: Path, source: TensorSource, plan: Plan) -> Callable[[], Any]:
    """What builds a part's empty model.

    Raises:
        CheckpointError, ConfigError: the config has an unknown key or a value that cannot be, or tensors are
            missing without which nothing can be built.
    """
    shapes = {name: source.shape_of(piece) for name, piece in plan.pieces.items()}
    given = find_config(path, source)
    file = None if CONFIG_KEY in source.metadata else config_file(path)
    where = path if file is None else file
    try:
        return _builder(part, path, shapes, given, where)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # Both come from strangers: any value may be of any kind, and any tensor of any shape.
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(
            f"{where}: nothing can be built of these values and shapes ({reason}); correct the config, or "
            "copy the weights again"
        ) from None


def _builder(
    part: str, path: Path, shapes: Mapping[str, Shape], given: Mapping[str, Any] | None, where: Path
) -> Callable[[], Any]:
    if part == "transformer":
        from newbie_image.models.next_dit import NextDiT

        clean = {key: value for key, value in (given or {}).items() if not key.startswith("_")}
        arguments = transformer_config(_complete(part, path, shapes), clean, where)
        return lambda: constructed(where, NextDiT, arguments)
    if part == "clip_model":
        from newbie_image.models.jina_text import JinaTextModel

        tower = jina_config(_complete(part, path, shapes), given)
        return lambda: constructed(where, JinaTextModel, tower)
    if part == "text_encoder":
        text = gemma_config(_complete(part, path, shapes), given)
        return lambda: _gemma(where, text)
    return lambda: _autoencoder(where, shapes, given)


def checkpoint_settings(checkpoint: Checkpoint) -> BundleSettings:
    """The settings that travel with a checkpoint, else the published model's."""
    folder = checkpoint.path if checkpoint.path.is_dir() else checkpoint.path.parent
    if (folder / SETTINGS_FILE).is_file():
        return read_settings(folder)
    transformer = checkpoint.parts.get("transformer")
    if transformer is not None:
        text = open_source(transformer).metadata.get(SETTINGS_KEY)
        if text is not None:
            return parse_settings(_json(text, transformer), transformer)
    return published_settings()


def find_config(path: Path, source: TensorSource) -> dict[str, Any] | None:
    """The config in the weights' metadata, or beside them; None where there is none."""
    text = source.metadata.get(CONFIG_KEY)
    if text is not None:
        return _json(text, path)
    file = config_file(path)
    return None if file is None else read_json(file)


def _gemma(where: Path, arguments: dict[str, Any]) -> Any:
    from transformers.models.gemma3.configuration_gemma3 import Gemma3TextConfig

    from newbie_image.models.gemma_text import GemmaTextModel

    unknown_keys(arguments, gemma_keys(), where)
    config = constructed(where, Gemma3TextConfig, arguments)
    config._attn_implementation = "sdpa"
    return constructed(where, GemmaTextModel, {"config": config})


def _autoencoder(where: Path, shapes: Mapping[str, Shape], given: Mapping[str, Any] | None) -> Any:
    import diffusers
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    if given is None:
        return constructed(where, AutoencoderKL, autoencoder_config(shapes, where))
    name = str(given.get("_class_name", "AutoencoderKL"))
    kind = getattr(diffusers, name, None) if name.startswith("Autoencoder") else None
    if kind is None:
        raise CheckpointError(
            f"{where} names the autoencoder class {name!r}, which this diffusers does not have"
        )
    known = set(inspect.signature(kind.__init__).parameters) - {"self"}
    unknown_keys(given, {*known, *_WRITTEN_BESIDE.get(name, ())}, where)
    return constructed(where, kind, {key: value for key, value in given.items() if key in known})


def load_tokenizer(part: str, folder: Path | None, source: TensorSource, path: Path) -> Any:
    """A text encoder's tokenizer.

    Args:
        part: ``text_encoder`` or ``clip_model``.
        folder: where its files lie; None where it travels in the weights.
        source: the weights.
        path: of the weights, for errors.

    Raises:
        CheckpointError: there is none, or it cannot be read.
    """
    if folder is not None:
        return read_tokenizer(folder)
    packed = source.metadata.get(TOKENIZER_KEY)
    if packed is not None:
        with tempfile.TemporaryDirectory() as place:
            for file, text in _json(packed, path).items():
                (Path(place) / Path(file).name).write_text(str(text), encoding="utf-8")
            return read_tokenizer(Path(place))
    if PACKED_KEY in source.shapes:
        return unpack_tokenizer(source, part, path)
    raise CheckpointError(
        f"{path} comes without its {TOKENIZER_OF[part]}; put tokenizer.json and tokenizer_config.json "
        f"beside it, in a folder of its own, and give that: --{part.replace('_', '-')} FOLDER"
    )


def read_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    config = (
        read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
    )
    general = config.get("tokenizer_class") in (None, "PreTrainedTokenizerFast", "TokenizersBackend")
    try:
        if general:
            return PreTrainedTokenizerFast.from_pretrained(str(folder), local_files_only=True)
        # Said outright: where a folder names code of its own, transformers would ask at the terminal.
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"{folder}: the tokenizer cannot be read ({reason}); copy its files again"
        ) from None


def _complete(part: str, path: Path, shapes: Mapping[str, Shape]) -> Mapping[str, Shape]:
    """The shapes, if those that a config is derived from are among them."""
    needed = {
        "transformer": (
            "x_embedder.weight",
            "layers.0.attention.qkv.weight",
            "layers.0.attention.out.weight",
            "layers.0.attention.q_norm.weight",
            "layers.0.feed_forward.w1.weight",
            "cap_embedder.0.weight",
            "clip_text_pooled_proj.0.weight",
        ),
        "text_encoder": (
            "layers.0.mlp.gate_proj.weight",
            "layers.0.self_attn.q_proj.weight",
            "layers.0.self_attn.k_proj.weight",
        ),
        "clip_model": (
            "embeddings.word_embeddings.weight",
            "embeddings.token_type_embeddings.weight",
            "encoder.layers.0.mlp.fc1.weight",
        ),
    }
    lacking = [name for name in needed[part] if name not in shapes]
    if lacking:
        raise CheckpointError(
            f"{path} has no {', '.join(lacking)}, so it is not a whole {part} of this model; copy it again"
        )
    return shapes


def _json(text: str, where: Path) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise CheckpointError(
            f"{where} has damaged metadata ({error.msg}); convert the model again"
        ) from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{where} has metadata of another form; convert the model again")
    return content
