"""VAEs by name, by path and as a model's own; and what is said when there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from safetensors.torch import load_file, save_file

from newbie_image.bundle import VaeSettings, find_bundle, read_settings
from newbie_image.checkpoints.opening import load_vae, open_model
from newbie_image.checkpoints.vae_layouts import write_vae
from newbie_image.checkpoints.vae_registry import find_vae, named_vaes
from newbie_image.errors import CheckpointError, ConfigError, NewbieError
from newbie_image.latents import denormalise
from newbie_image.pipeline import NewbiePipeline
from tests import tiny


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A registry of the user's own, in an empty home."""
    monkeypatch.setenv("NEWBIE_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("NEWBIE_VAES", str(tmp_path / "mine.toml"))
    (tmp_path / "mine.toml").write_text("", encoding="utf-8")
    return tmp_path / "mine.toml"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A diffusers folder."""
    torch.manual_seed(3)
    tiny.vae().save_pretrained(str(tmp_path / "sharp"))
    return tmp_path / "sharp"


@pytest.fixture
def single(folder: Path, tmp_path: Path) -> Path:
    """The same VAE in a single file with the original names, which has no place for a config."""
    state = load_file(folder / "diffusion_pytorch_model.safetensors")
    plan = write_vae("comfyui", {name: tuple(value.shape) for name, value in state.items()})
    save_file(
        {
            name: state[piece.names[0]].reshape(piece.shape or state[piece.names[0]].shape)
            for name, piece in plan.pieces.items()
        },
        tmp_path / "sharp_ae.safetensors",
    )
    return tmp_path / "sharp_ae.safetensors"


def refusal(name: str | Path, kind: type[NewbieError] = CheckpointError) -> str:
    with pytest.raises(kind) as caught:
        load_vae(name)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_folder_a_file_and_a_name_give_the_same_vae(mine: Path, folder: Path, single: Path) -> None:
    mine.write_text('[vae.sharp]\npath = "sharp_ae.safetensors"\nabout = "crisp"\n', encoding="utf-8")
    expected = load_file(folder / "diffusion_pytorch_model.safetensors")
    for place in (folder, str(single), "sharp"):
        vae = load_vae(place)
        assert all(torch.equal(vae.state_dict()[name], value) for name, value in expected.items())
        assert (vae.config.scaling_factor, vae.config.shift_factor) == (0.3611, 0.1159)
    assert find_vae("sharp").name == "sharp"
    assert find_vae(single).name == "sharp_ae.safetensors"
    assert named_vaes()["sharp"].about == "crisp"
    assert {"nano", "flux"} <= named_vaes().keys()


@pytest.mark.parametrize("path", ["vaes\\\\sharp", "vaes/sharp", ".\\\\vaes\\\\sharp"])
def test_a_registry_that_was_written_on_windows_names_the_same_place(
    mine: Path, folder: Path, path: str
) -> None:
    (mine.parent / "vaes").mkdir()
    folder.rename(mine.parent / "vaes" / "sharp")
    mine.write_text(f'[vae.sharp]\npath = "{path}"\n', encoding="utf-8")
    assert find_vae("sharp").path == mine.parent / "vaes" / "sharp"
    assert load_vae("sharp").config.latent_channels == 16


def test_a_name_that_has_a_backslash_in_it_is_that_file(mine: Path, folder: Path) -> None:
    odd = mine.parent / "vaes\\sharp"
    folder.rename(odd)
    mine.write_text("[vae.sharp]\npath = 'vaes\\sharp'\n", encoding="utf-8")
    assert find_vae("sharp").path == odd


def test_scale_and_shift_of_the_registry_go_before_the_config(
    mine: Path, folder: Path, tiny_bundle: Path
) -> None:
    mine.write_text(
        '[vae.other]\npath = "sharp"\nscaling_factor = 2.0\nshift_factor = -1.0\n', encoding="utf-8"
    )
    opened = open_model(tiny_bundle, vae="other")
    assert opened.vae_settings == VaeSettings(scaling_factor=2.0, shift_factor=-1.0)
    latents = torch.ones(1, 16, 2, 2)
    shown = denormalise(latents, opened.components["vae"], opened.vae_settings)
    assert torch.equal(shown, torch.full_like(latents, -0.5))
    assert opened.vae_name == "other"
    plain = open_model(tiny_bundle, vae=folder)
    assert plain.vae_settings == VaeSettings()
    assert plain.vae_hash is not None
    assert plain.vae_hash.partition("+")[0] == (opened.vae_hash or "").partition("+")[0]
    assert plain.vae_hash != opened.vae_hash


def test_a_models_own_vae_brings_its_normalisation(mine: Path, tiny_bundle: Path) -> None:
    wanted = read_settings(find_bundle("nano")).vae
    assert wanted.latents_mean is not None
    for place in ("nano", find_bundle("nano"), find_bundle("nano") / "vae"):
        found = find_vae(place)
        assert (found.name, found.settings) == ("nano", wanted)
    assert find_vae(tiny_bundle).path == tiny_bundle / "vae"


def test_a_tiny_autoencoder_is_read_too(mine: Path, tmp_path: Path) -> None:
    made = AutoencoderTiny(
        encoder_block_out_channels=(4, 4, 4, 4),
        decoder_block_out_channels=(4, 4, 4, 4),
        num_encoder_blocks=(1, 1, 1, 1),
        num_decoder_blocks=(1, 1, 1, 1),
        latent_channels=16,
    )
    made.save_pretrained(str(tmp_path / "tiny"))
    vae = load_vae(tmp_path / "tiny")
    latents = torch.randn(1, 16, 2, 3)
    with torch.no_grad():
        assert torch.equal(vae.decode(latents).sample, made.eval().decode(latents).sample)
    (tmp_path / "tiny" / "config.json").unlink()
    assert "another class" in refusal(tmp_path / "tiny", ConfigError)


def test_what_is_not_there_is_said_with_the_near_names(mine: Path, tmp_path: Path) -> None:
    assert "did you mean flux?" in refusal("flx")
    assert "known: nano, flux" in refusal("zzzz")
    assert "no such file" in refusal("vae/ae.safetensors")
    assert "no such file" in refusal("ae.safetensors")
    assert "newbie weights download flux-vae" in refusal("flux")
    mine.write_text('[vae.gone]\npath = "gone.safetensors"\n', encoding="utf-8")
    message = refusal("gone")
    assert str(tmp_path / "gone.safetensors") in message
    assert str(mine) in message


def test_four_channels_and_other_files_are_refused_by_name(
    mine: Path, tmp_path: Path, tiny_bundle: Path
) -> None:
    tiny.vae(channels=4).save_pretrained(str(tmp_path / "sd"))
    with pytest.raises(CheckpointError, match="4; choose a VAE with 16 latent channels"):
        NewbiePipeline.from_pretrained(tiny_bundle, vae=tmp_path / "sd")
    bare = tmp_path / "sd.safetensors"
    (tmp_path / "sd" / "diffusion_pytorch_model.safetensors").rename(bare)
    message = refusal(bare, ConfigError)
    assert str(bare) in message
    assert "Stable Diffusion" in message
    message = refusal(tiny_bundle / "transformer")
    assert str(tiny_bundle / "transformer") in message
    assert "no autoencoder" in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[vae.x]", "give either path"),
        ('[vae.x]\npath = "a"\nmodel = "nano"', "give either path"),
        ('[vae.x]\npath = "a"\nscale = 3', "unknown key 'vae.x.scale'"),
        ('[vae.x]\npath = "a"\nscaling_factor = 0', "vae.x.scaling_factor"),
        ('[vae.x]\npath = "a"\nlatents_mean = [0.0]', "go together"),
        ("[vae", "not valid TOML"),
        ("[vaes.x]", "[vae.NAME]"),
        ("vae = 3", "[vae.NAME]"),
        ("[vae]\nx = 3", "write a table"),
    ],
)
def test_a_damaged_registry_is_named_with_its_key(mine: Path, text: str, words: str) -> None:
    mine.write_text(text, encoding="utf-8")
    message = refusal("nano", ConfigError)
    assert str(mine) in message
    assert words in message


def test_a_registry_that_was_named_must_be_there(mine: Path) -> None:
    mine.unlink()
    assert "NEWBIE_VAES names" in refusal("nano", ConfigError)
