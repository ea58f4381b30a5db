"""A bundle's components: loaded by name, configs checked, and only together when they fit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from newbie_image.checkpoints.components import check_fit, load_component, load_components
from newbie_image.errors import CheckpointError, ConfigError, NewbieError
from tests import tiny


@pytest.fixture
def copy(tmp_path: Path, tiny_bundle: Path) -> Path:
    """A bundle that may be spoilt."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "copy"))


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def refusal(kind: type[NewbieError], act: Callable[[], object]) -> str:
    with pytest.raises(kind) as caught:
        act()
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_all_components_are_loaded_with_their_weights(tiny_bundle: Path) -> None:
    parts = load_components(tiny_bundle, torch.bfloat16)
    assert list(parts) == [
        "transformer",
        "text_encoder",
        "tokenizer",
        "clip_model",
        "clip_tokenizer",
        "vae",
        "scheduler",
    ]
    for name in ("transformer", "text_encoder", "clip_model", "vae"):
        assert not parts[name].training
        assert {p.dtype for p in parts[name].parameters()} == {torch.bfloat16}
        assert not any(b.is_meta for b in parts[name].buffers())
    # Rotary tables stay exact whatever the weights are cast to.
    assert all(b.dtype != torch.bfloat16 for name in parts for b in getattr(parts[name], "buffers", list)())
    check_fit(parts)


@pytest.mark.parametrize("name", ["transformer", "text_encoder", "clip_model", "vae"])
def test_an_unknown_key_in_a_config_is_named(copy: Path, name: str) -> None:
    edit(copy / name / "config.json", lambda config: config.update(patch_sizes=2))
    message = refusal(ConfigError, lambda: load_components(copy))
    assert "'patch_sizes'" in message
    assert name in message


def test_an_unknown_key_in_the_scheduler_or_the_index_is_named(copy: Path) -> None:
    edit(copy / "model_index.json", lambda index: index.update(unet=["diffusers", "UNet"]))
    assert "'unet'" in refusal(ConfigError, lambda: load_components(copy))
    edit(copy / "model_index.json", lambda index: index.pop("unet"))
    edit(copy / "scheduler" / "scheduler_config.json", lambda config: config.update(shft=3))
    assert "'shft'" in refusal(ConfigError, lambda: load_components(copy))


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("transformer", "dim", 65),
        ("transformer", "dim", "wide"),
        ("transformer", "n_layers", 2.5),
        ("clip_model", "num_attention_heads", 3),
        ("text_encoder", "num_hidden_layers", "many"),
        ("vae", "block_out_channels", 3),
    ],
)
def test_a_wrong_value_in_a_config_names_the_file(copy: Path, name: str, key: str, value: object) -> None:
    edit(copy / name / "config.json", lambda config: config.update({key: value}))
    message = refusal(ConfigError, lambda: load_components(copy))
    assert str(copy / name / "config.json") in message


def test_a_config_of_another_shape_than_the_weights(copy: Path) -> None:
    edit(copy / "transformer" / "config.json", lambda config: config.update(n_layers=3))
    message = refusal(CheckpointError, lambda: load_components(copy))
    assert "missing (layers.2." in message
    edit(copy / "transformer" / "config.json", lambda config: config.update(n_layers=2, cap_feat_dim=64))
    assert "misshapen" in refusal(CheckpointError, lambda: load_components(copy))


def test_a_config_of_another_model(copy: Path) -> None:
    edit(copy / "transformer" / "config.json", lambda config: config.update(_class_name="FluxTransformer"))
    assert "FluxTransformer" in refusal(ConfigError, lambda: load_components(copy))


@pytest.mark.parametrize("name", ["transformer", "tokenizer", "vae"])
def test_a_missing_folder_is_named(copy: Path, name: str) -> None:
    shutil.rmtree(copy / name)
    assert f"{name} is missing" in refusal(CheckpointError, lambda: load_components(copy))


def test_a_damaged_tokenizer_is_named(copy: Path) -> None:
    (copy / "tokenizer" / "tokenizer.json").write_text("{", encoding="utf-8")
    assert "tokenizer.json" in refusal(CheckpointError, lambda: load_components(copy))


@pytest.mark.parametrize(
    ("library", "name"),
    [
        ("os", "system"),
        ("newbie_image", "NewbiePipeline"),
        ("diffusers", "AutoencoderOfMine"),
        ("transformers", "AutoModel"),
        ("diffusers.utils", "AutoencoderKL"),
    ],
)
def test_a_bundle_may_not_name_any_class(copy: Path, library: str, name: str) -> None:
    assert name in refusal(ConfigError, lambda: load_component(copy / "vae", library, name, None))


def test_transformers_own_gemma_name_is_understood(copy: Path) -> None:
    model = load_component(copy / "text_encoder", "transformers", "Gemma3TextModel", None)
    assert type(model).__name__ == "GemmaTextModel"


def test_components_of_two_models_do_not_go_together(tiny_bundle: Path) -> None:
    parts = load_components(tiny_bundle)
    mixed: list[tuple[dict[str, Any], tuple[str, ...]]] = [
        ({"vae": tiny.vae(channels=4)}, ("16 channels", "makes 4")),
        ({"text_encoder": tiny.text_encoder(400, width=64)}, ("width 64", "cap_feat_dim")),
        ({"clip_model": tiny.clip_model(400, width=32)}, ("width 32", "clip_text_dim")),
        ({"text_encoder": tiny.text_encoder(100)}, ("knows 100", "tokenizer")),
    ]
    for change, words in mixed:
        message = refusal(CheckpointError, lambda change=change: check_fit({**parts, **change}))
        assert all(word in message for word in words), message
