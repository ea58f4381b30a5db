"""What an adapter's file is, told from its header and config, without a model that it is for."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from newbie_image.bundle import WEIGHT_SUFFIXES, read_json, reading
from newbie_image.checkpoints.adapter_alpha import Alphas
from newbie_image.checkpoints.adapter_files import AdapterFile
from newbie_image.checkpoints.adapter_keys import split_key
from newbie_image.checkpoints.adapter_paths import CONFIG_NAME, SUFFIXES, adapter_file
from newbie_image.checkpoints.files import TensorSource, open_source
from newbie_image.checkpoints.inspection import shortened
from newbie_image.checkpoints.recognise import part_of

# Role of a tensor, by its beginning → kind, and the dimension of it that is the rank.
_KINDS = {
    "lora_": "LoRA",
    "lokr_": "LoKr",
    "hada_": "LoHa",
    "weight_change": "difference",
    "bias_change": "difference",
}
_RANKS = {"lora_down": 0, "lokr_w1_b": 0, "lokr_w2_b": 0, "hada_w1_b": 0}


@dataclass(frozen=True)
class AdapterFacts:
    """An adapter from its header.

    Args:
        path: its weight file.
        kinds: kind (LoRA, LoKr, LoHa, difference) → layers.
        ranks: all that occur, in order.
        alpha: where the strength comes from, in a few words.
        tensors, parameters: how many, and numbers in them.
        dtypes: dtype → tensors.
        size: bytes of the file.
        unknown: tensors whose names are of no known kind.
        metadata: the file's, long texts shortened.
        config: the ``adapter_config.json`` beside it, values as text.
    """

    path: Path
    kinds: Mapping[str, int]
    ranks: tuple[int, ...]
    alpha: str
    tensors: int
    parameters: int
    dtypes: Mapping[str, int]
    size: int
    unknown: tuple[str, ...]
    metadata: Mapping[str, str]
    config: Mapping[str, str]

    def lines(self) -> Iterator[str]:
        """For people."""
        kinds = ", ".join(f"{kind} on {count} layers" for kind, count in self.kinds.items())
        ranks = f", rank {', '.join(map(str, self.ranks))}" if self.ranks else ""
        yield f"{kinds}{ranks}, alpha {self.alpha}"
        dtypes = ", ".join(f"{count} {name}" for name, count in self.dtypes.items())
        size = f"{self.size / 1e6:,.1f} MB"
        yield f"{self.parameters:,} parameters in {self.tensors} tensors ({dtypes}), {size}, {self.path}"
        for name, texts in (("metadata", self.metadata), (CONFIG_NAME, self.config)):
            if texts:
                yield f"{name}: " + "; ".join(f"{key} {text}" for key, text in texts.items())
        if self.unknown:
            more = f" and {len(self.unknown) - 3} more" if len(self.unknown) > 3 else ""
            yield f"of no kind that is known: {', '.join(self.unknown[:3])}{more}"


def is_adapter(path: Path) -> bool:
    """Whether a file or folder is an adapter: a config of one, or a weight file of such names and of no part.

    Raises:
        CheckpointError: a weight file that cannot be opened.
    """
    with reading(path):
        if path.is_dir():
            return (path / CONFIG_NAME).is_file()
        if not path.is_file() or path.suffix not in SUFFIXES or path.suffix not in WEIGHT_SUFFIXES:
            return False
    shapes = open_source(path).shapes
    return part_of(shapes) is None and any(split_key(key) is not None for key in shapes)


def adapter_facts(path: Path) -> AdapterFacts:
    """What an adapter is.

    Args:
        path: its file or folder.

    Raises:
        CheckpointError, ConfigError: the file or its config cannot be read.
    """
    file = adapter_file(path)
    source = open_source(file)
    layers: dict[str, set[str]] = {}
    ranks: set[int] = set()
    unknown = []
    for key, shape in source.shapes.items():
        found = split_key(key)
        if found is None:
            unknown.append(key)
            continue
        layer, role = found
        kind = next((kind for start, kind in _KINDS.items() if role.startswith(start)), None)
        if kind is not None:
            layers.setdefault(kind, set()).add(layer)
        if role in _RANKS and shape:
            ranks.add(shape[_RANKS[role]])
    place = file.parent / CONFIG_NAME
    config = read_json(place) if place.is_file() else {}
    return AdapterFacts(
        path=file,
        kinds={kind: len(found) for kind, found in layers.items()},
        ranks=tuple(sorted(ranks)),
        alpha=_alpha(source, Alphas(AdapterFile(file, {}, source.metadata, config))),
        tensors=len(source.shapes),
        parameters=sum(math.prod(shape) for shape in source.shapes.values()),
        dtypes=dict(Counter(map(source.format_of, source.shapes))),
        size=file.stat().st_size,
        unknown=tuple(unknown),
        metadata=shortened(source.metadata),
        config=shortened({key: _text(value) for key, value in config.items()}),
    )


def _alpha(source: TensorSource, alphas: Alphas) -> str:
    """In the order in which loading takes it."""
    given = sorted({float(source.get(key)) for key in source.shapes if _is_alpha(source, key)})
    if given:
        return ", ".join(f"{value:g}" for value in given) + " (tensors)"
    default = alphas.default
    return "given nowhere" if default is None else f"{default:g} (config or metadata)"


def _is_alpha(source: TensorSource, key: str) -> bool:
    found = split_key(key)
    return found is not None and found[1] == "alpha" and math.prod(source.shapes[key]) == 1


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
