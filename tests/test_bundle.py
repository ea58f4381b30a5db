"""Settings of a bundle: strict, completed, found, and named by their content."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from newbie_image import bundle
from newbie_image.bundle import (
    BundleSettings,
    TextSettings,
    content_hash,
    find_bundle,
    read_settings,
    write_settings,
)
from newbie_image.errors import CheckpointError, ConfigError, RequestError
from newbie_image.request import GenerationRequest
from tests.tiny import SETTINGS


def write(folder: Path, content: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "newbie.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def test_settings_come_back_as_written(tmp_path: Path) -> None:
    write_settings(tmp_path, SETTINGS)
    assert read_settings(tmp_path) == SETTINGS
    assert SETTINGS.text.trained_bindings is None
    text = TextSettings(auto_binding="text", trained_bindings=("off", "text"))
    trained = SETTINGS.model_copy(update={"text": text})
    write_settings(tmp_path, trained)
    assert read_settings(tmp_path) == trained


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"name": "x", "stepps": 3}, ["'stepps'", "defaults"]),
        ({"name": "x", "text": {"max_token": 5}}, ["'text.max_token'", "max_tokens"]),
        ({"name": "x", "presets": {"a": {"cfg": 1}}}, ["'presets.a.cfg'", "guidance_scale"]),
        ({"name": "x", "defaults": {"steps": 0}}, ["defaults.steps", "0"]),
        ({"name": "x", "presets": {"a": {"sampler": "ddim"}}}, ["ddim", "euler"]),
        ({"name": "x", "vae": {"latents_mean": [0.0]}}, ["latents_std"]),
        (
            {"name": "x", "text": {"trained_bindings": ["off", "fulll"]}},
            ["text.trained_bindings.1", "'full'"],
        ),
        (
            {"name": "x", "text": {"auto_binding": "text", "trained_bindings": ["off", "full"]}},
            ["text.trained_bindings", "'text' is not among them; add it"],
        ),
        ({}, ["'name'", "missing"]),
    ],
)
def test_a_wrong_key_or_value_is_named_in_one_line(tmp_path: Path, content: object, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        read_settings(write(tmp_path, content))
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words)


def test_damaged_json_says_where(tmp_path: Path) -> None:
    (tmp_path / "newbie.json").write_text('{"name": "x",\n "text": }', encoding="utf-8")
    with pytest.raises(ConfigError, match="line 2, column 10"):
        read_settings(tmp_path)
    (tmp_path / "newbie.json").write_text("[]", encoding="utf-8")
    with pytest.raises(ConfigError, match="list"):
        read_settings(tmp_path)
    (tmp_path / "newbie.json").unlink()
    with pytest.raises(CheckpointError, match="missing"):
        read_settings(tmp_path)


def test_a_request_is_completed_by_preset_then_defaults() -> None:
    asked = SETTINGS.complete(GenerationRequest("x", width=32, preset="quick"))
    assert (asked.width, asked.height) == (32, SETTINGS.defaults.height)
    assert (asked.steps, asked.sampler) == (2, "midpoint")
    assert asked.guidance_scale == SETTINGS.defaults.guidance_scale
    with pytest.raises(RequestError, match=r"unknown preset 'slow'.*quick"):
        SETTINGS.complete(GenerationRequest("x", preset="slow"))


def test_a_preset_may_bring_its_system_prompt() -> None:
    settings = BundleSettings.model_validate(
        {
            "name": "x",
            "text": {"system_prompt_xml": "a", "system_prompt_tags": "b"},
            "presets": {"p": {"system_prompt_xml": "c", "negative_system_prompt": "never"}},
        }
    )
    text = settings.text_for("p")
    assert (text.system_prompt_xml, text.system_prompt_tags, text.negative_system_prompt) == (
        "c",
        "b",
        "never",
    )
    assert settings.text_for(None) == settings.text


def test_what_was_looked_for_is_said(tmp_path: Path, tiny_bundle: Path) -> None:
    assert find_bundle(tiny_bundle) == tiny_bundle
    with pytest.raises(CheckpointError, match="no model 'nowhere'"):
        find_bundle("nowhere")
    with pytest.raises(CheckpointError, match=r"no model_index\.json"):
        find_bundle(tmp_path)
    with pytest.raises(CheckpointError, match="no weight file"):
        find_bundle(tiny_bundle / "newbie.json")


def test_embedded_bundles_are_found_by_name(
    tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_bundle, tmp_path / "small")
    monkeypatch.setattr(bundle, "bundle_places", lambda: (tmp_path / "absent", tmp_path))
    assert bundle.bundle_names() == ["small"]
    assert find_bundle("small") == tmp_path / "small"


def test_the_hash_follows_the_content_and_nothing_else(tmp_path: Path, tiny_bundle: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_bundle, copy)
    first = content_hash(tiny_bundle)
    (copy / "README.md").write_text("A model card.", encoding="utf-8")
    assert content_hash(copy) == first
    weights = copy / "vae" / "diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert content_hash(copy) != first


def test_large_files_are_sampled_and_it_says_so(
    tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_bundle, copy)
    monkeypatch.setattr(bundle, "_WHOLE_FILE", 1000)
    monkeypatch.setattr(bundle, "_BLOCK", 16)
    first = content_hash(copy)
    assert first.startswith("sha256-sampled:")
    weights = copy / "vae" / "diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert content_hash(copy) != first


def test_settings_are_read_without_torch(tiny_bundle: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from newbie_image.bundle import read_settings; "
        "read_settings(Path(sys.argv[1])); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tiny_bundle)], check=True)
