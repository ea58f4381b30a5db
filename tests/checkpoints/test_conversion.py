"""A model through every layout and back, to the bit; and what a damaged or incomplete one says."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from newbie_image.bundle import VaeSettings, find_bundle, read_settings, write_settings
from newbie_image.checkpoints.convert import WRITTEN, convert
from newbie_image.checkpoints.inspection import check_model_sums, verify
from newbie_image.checkpoints.opening import OpenedModel, find_checkpoint, load_vae, open_model
from newbie_image.checkpoints.published import published_settings
from newbie_image.checkpoints.recognise import recognise
from newbie_image.checkpoints.vae_registry import find_vae
from newbie_image.errors import CheckpointError, ConfigError, NewbieError, OutputError
from tests.tiny import SETTINGS

MODELS = ("transformer", "text_encoder", "clip_model", "vae")


@pytest.fixture(scope="module")
def written(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tiny model in each layout that is written."""
    place = tmp_path_factory.mktemp("layouts")
    for layout in WRITTEN:
        convert(recognise(tiny_bundle), place / layout, layout)
    return {layout: place / layout for layout in WRITTEN}


def refusal(act: Callable[[], object], kind: type[NewbieError] = CheckpointError) -> str:
    with pytest.raises(kind) as caught:
        act()
    message = str(caught.value)
    assert "\n" not in message
    return message


def assert_same_model(first: OpenedModel, second: OpenedModel) -> None:
    for name in MODELS:
        ours, theirs = first.components[name].state_dict(), second.components[name].state_dict()
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            if key != "norm_final.weight":
                assert torch.equal(value, theirs[key]), (name, key)
    for name in ("tokenizer", "clip_tokenizer"):
        text = "pink_hair, 日本"
        assert first.components[name](text).input_ids == second.components[name](text).input_ids
    one, other = first.components["transformer"].config, second.components["transformer"].config
    assert list(one["axes_dims"]) == list(other["axes_dims"])
    assert list(one["axes_lens"]) == list(other["axes_lens"])
    rotary = [m.components["text_encoder"].config.to_dict() for m in (first, second)]
    for key in ("rope_parameters", "sliding_window", "layer_types", "query_pre_attn_scalar"):
        assert rotary[0][key] == rotary[1][key]
    heads = [m.components["clip_model"].config["num_attention_heads"] for m in (first, second)]
    assert heads[0] == heads[1]
    scales = [m.components["vae"].config["scaling_factor"] for m in (first, second)]
    assert scales[0] == scales[1]


@pytest.mark.parametrize("layout", WRITTEN)
def test_a_model_survives_each_layout(tiny_bundle: Path, written: dict[str, Path], layout: str) -> None:
    assert recognise(written[layout]).layout == layout
    assert recognise(written[layout]).missing == ()
    assert find_bundle(written[layout]) == written[layout]
    there = open_model(written[layout])
    assert there.settings == SETTINGS
    assert_same_model(there, open_model(tiny_bundle))


def test_and_comes_back_as_the_same_files(written: dict[str, Path], tmp_path: Path) -> None:
    for layout in ("comfyui", "published"):
        convert(recognise(written[layout]), tmp_path / layout, "newbie")
        for name in ("transformer/diffusion_pytorch_model", "clip_model/diffusion_pytorch_model"):
            first = load_file(written["newbie"] / f"{name}.safetensors")
            again = load_file(tmp_path / layout / f"{name}.safetensors")
            assert all(torch.equal(first[key], again[key]) for key in first)
        assert read_settings(tmp_path / layout) == SETTINGS


def test_names_on_the_disk_are_the_layouts(written: dict[str, Path]) -> None:
    diffusers = load_file(written["diffusers"] / "transformer" / "diffusion_pytorch_model.safetensors")
    assert "layers.0.attn.to_q.weight" in diffusers
    comfyui = load_file(written["comfyui"] / "diffusion_models" / "NewBie-image.safetensors")
    assert "model.diffusion_model.layers.0.attention.qkv.weight" in comfyui
    jina = load_file(written["comfyui"] / "text_encoders" / "jina_clip_v2.safetensors")
    assert "model.encoder.layers.0.mixer.Wqkv.weight" in jina
    published = written["published"]
    assert (published / "text_encoder" / "gemma3-4b-it.safetensors").is_file()
    assert (published / "clip_model" / "jina-clip-v2.safetensors").is_file()
    assert "scheduler" not in json.loads((published / "model_index.json").read_text(encoding="utf-8"))


def test_the_dtype_may_be_changed(tiny_bundle: Path, tmp_path: Path) -> None:
    files = convert(recognise(tiny_bundle), tmp_path / "low", "published", torch.bfloat16)
    assert len(files) == 4
    assert all(value.dtype == torch.bfloat16 for file in files for value in load_file(file).values())


def test_a_training_checkpoint_with_parts_from_elsewhere(
    tiny_bundle: Path, written: dict[str, Path], tmp_path: Path
) -> None:
    weights = load_file(tiny_bundle / "transformer" / "diffusion_pytorch_model.safetensors")
    torch.save(weights, tmp_path / "consolidated.00-of-01.pth")
    (tmp_path / "model_args.pth").write_bytes(b"a pickle of arguments, never opened")
    checkpoint = recognise(tmp_path)
    assert checkpoint.layout == "training"
    assert checkpoint.missing == ("text_encoder", "clip_model", "vae")
    message = refusal(lambda: open_model(tmp_path))
    assert "--text-encoder FILE --clip-model FILE --vae FILE" in message
    parts = {
        "transformer": written["comfyui"] / "diffusion_models" / "NewBie-image.safetensors",
        "text_encoder": written["published"] / "text_encoder",
        "clip_model": written["comfyui"] / "text_encoders" / "jina_clip_v2.safetensors",
        "vae": written["comfyui"] / "vae" / "ae.safetensors",
    }
    assert_same_model(open_model(tmp_path, parts=parts), open_model(tiny_bundle))
    assert "unknown part 'unet'" in refusal(lambda: open_model(tmp_path, parts={"unet": tmp_path}))
    # Heads of 16 channels are no three equal axes, and a training checkpoint does not say how they are split.
    del parts["transformer"]
    assert "axes_dims" in refusal(lambda: open_model(tmp_path, parts=parts), ConfigError)


def test_averaged_weights_go_before_raw_ones(tmp_path: Path) -> None:
    for name in ("consolidated.00-of-01.pth", "consolidated_ema.00-of-01.pth"):
        torch.save({"layers.0.x": torch.zeros(1)}, tmp_path / name)
    assert recognise(tmp_path).parts["transformer"].name == "consolidated_ema.00-of-01.pth"
    torch.save({}, tmp_path / "consolidated_ema.01-of-02.pth")
    assert "2 slices" in refusal(lambda: recognise(tmp_path))


def test_the_prebuilt_images_folder(tiny_bundle: Path, written: dict[str, Path], tmp_path: Path) -> None:
    """As its pages describe it: pickles, and a transformer with names of its own."""
    folder = Path(shutil.copytree(written["published"], tmp_path / "prebuilt"))
    moves = {
        "text_encoder/gemma3-4b-it.safetensors": "text_encoder/pytorch_model.bin",
        "clip_model/jina-clip-v2.safetensors": "clip_model/open_clip_pytorch_model.bin",
        "vae/diffusion_pytorch_model.safetensors": "vae/diffusion_pytorch_model.bin",
    }
    for old, new in moves.items():
        torch.save(load_file(folder / old), folder / new)
        (folder / old).unlink()
    old = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    renamed = {
        ("blocks." + key.removeprefix("layers.") if key.startswith("layers.") else key): value
        for key, value in load_file(old).items()
    }
    save_file(renamed, folder / "transformer" / "model.safetensors")
    old.unlink()
    assert recognise(folder).layout == "prebuilt"
    assert_same_model(open_model(folder), open_model(tiny_bundle))


def test_a_layout_that_cannot_carry_a_model_says_so(tiny_bundle: Path, tmp_path: Path) -> None:
    from tests.test_latents import deep_compression

    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "nano"))
    shutil.rmtree(folder / "vae")
    deep_compression().save_pretrained(str(folder / "vae"))
    checkpoint = recognise(folder)
    message = refusal(lambda: convert(checkpoint, tmp_path / "out", "comfyui"))
    assert "AutoencoderKL only" in message
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".*partial"))


def test_what_is_there_is_not_overwritten(
    tiny_bundle: Path, written: dict[str, Path], tmp_path: Path
) -> None:
    checkpoint = recognise(tiny_bundle)
    message = refusal(lambda: convert(checkpoint, written["newbie"], "newbie"), OutputError)
    assert "there already" in message
    assert "prebuilt" in refusal(lambda: convert(checkpoint, tmp_path / "x", "prebuilt"))


def test_a_damaged_checkpoint_is_not_converted(written: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(written["published"], tmp_path / "bad"))
    file = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    state["layers.0.ffn_norm1.weight"] = torch.zeros(65)
    del state["x_embedder.bias"]
    save_file(state, file)
    message = refusal(lambda: convert(recognise(folder), tmp_path / "out", "newbie"))
    assert "1 missing (x_embedder.bias)" in message
    assert "misshapen (layers.0.ffn_norm1.weight 65 instead of 64)" in message
    assert not (tmp_path / "out").exists()


def test_an_unknown_key_in_a_foreign_config(written: dict[str, Path], tmp_path: Path) -> None:
    for name, layout in (("transformer", "diffusers"), ("vae", "published"), ("text_encoder", "published")):
        folder = Path(shutil.copytree(written[layout], tmp_path / name))
        path = folder / name / "config.json"
        config = json.loads(path.read_text(encoding="utf-8"))
        config.get("text_config", config)["hidden_sizes"] = 3
        path.write_text(json.dumps(config), encoding="utf-8")
        assert "'hidden_sizes'" in refusal(lambda folder=folder: open_model(folder), ConfigError)


def test_what_holds_no_model(tmp_path: Path) -> None:
    assert "no model that is known" in refusal(lambda: recognise(tmp_path))
    assert "missing" in refusal(lambda: recognise(tmp_path / "absent"))
    save_file({"double_blocks.0.x": torch.zeros(1)}, tmp_path / "flux.safetensors")
    assert "double_blocks.0.x" in refusal(lambda: find_checkpoint(tmp_path / "flux.safetensors"))


def test_a_vae_from_elsewhere(written: dict[str, Path], tiny_bundle: Path) -> None:
    expected = open_model(tiny_bundle).components["vae"].state_dict()
    for place in (tiny_bundle, tiny_bundle / "vae", written["comfyui"] / "vae" / "ae.safetensors"):
        vae = load_vae(place)
        assert all(torch.equal(vae.state_dict()[key], value) for key, value in expected.items())
    assert load_vae(str(tiny_bundle), torch.bfloat16).dtype == torch.bfloat16
    assert "no VAE 'nothing'" in refusal(lambda: load_vae("nothing"))


def test_the_published_settings_are_those_of_its_training() -> None:
    settings = published_settings()
    assert settings.text.system_prompt_xml.endswith("xml format prompts. <Prompt Start> ")
    assert settings.text.max_tokens == 1023
    assert settings.text.trained_tokens == 512
    assert set(settings.presets) == {"upstream", "comfyui", "diffusers"}
    assert settings.presets["upstream"].steps == 17
    assert settings.text_for("upstream").system_prompt_xml.endswith("user prompts.")
    assert settings.presets["comfyui"].grid == "simple"


def test_a_disk_that_is_full_is_one_line_and_leaves_nothing(tiny_bundle: Path, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    target = tmp_path / "full"
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        message = refusal(lambda: convert(recognise(tiny_bundle), target, "comfyui"), OutputError)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(target) in message
    assert "free space" in message
    assert list(tmp_path.iterdir()) == []


def test_what_is_written_has_checksums_that_find_a_changed_byte(tiny_bundle: Path, tmp_path: Path) -> None:
    for layout in WRITTEN:
        files = convert(recognise(tiny_bundle), tmp_path / layout, layout)
        sums = check_model_sums(recognise(tmp_path / layout))
        assert (sums.checked, sums.unknown, sums.wrong) == ({"SHA256SUMS": 4}, 0, ())
        data = bytearray(files[0].read_bytes())
        data[-1] ^= 1
        files[0].write_bytes(data)
        assert [files[0].name in line for line in verify(recognise(tmp_path / layout))] == [True]


@pytest.mark.parametrize("layout", ["newbie", "published", "diffusers"])
def test_parts_from_elsewhere_bring_the_tokenizer_that_their_layout_has_beside_them(
    written: dict[str, Path], tmp_path: Path, layout: str
) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(written["published"] / "transformer" / "diffusion_pytorch_model.safetensors", alone)
    (alone / "config.json").write_bytes((written["published"] / "transformer" / "config.json").read_bytes())
    tower = "text_encoder_2" if layout == "diffusers" else "clip_model"
    names = {"text_encoder": "text_encoder", "clip_model": tower, "vae": "vae"}
    folders = {part: written[layout] / name for part, name in names.items()}
    files = {part: next(folder.glob("*.safetensors")) for part, folder in folders.items()}
    for parts in (folders, files):
        checkpoint = find_checkpoint(alone, parts)
        assert list(verify(checkpoint)) == []
        made = tmp_path / f"made-{parts is files}"
        convert(checkpoint, made, "newbie")
        assert_same_model(open_model(made), open_model(written["newbie"]))


def test_a_config_counts_where_its_weights_are_named_by_their_file(tiny_bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_bundle, tmp_path / "copy"))
    weights = "diffusion_pytorch_model.safetensors"
    for part, changes in (("transformer", {"axes_dims": [4, 4, 8]}), ("vae", {"scaling_factor": 0.5})):
        path = copy / part / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}))
    files = {part: copy / part / weights for part in ("transformer", "vae")}
    found = open_model(tiny_bundle, parts=files).components
    assert list(found["transformer"].config["axes_dims"]) == [4, 4, 8]
    assert found["vae"].config["scaling_factor"] == 0.5
    assert load_vae(files["vae"]).config["scaling_factor"] == 0.5
    # Beside two files it could be either's.
    shutil.copy(files["vae"], copy / "vae" / "other.safetensors")
    assert load_vae(files["vae"]).config["scaling_factor"] == 0.3611


def test_a_bundles_normalisation_goes_with_its_vaes_file(tiny_bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_bundle, tmp_path / "copy"))
    settings = read_settings(copy)
    write_settings(copy, settings.model_copy(update={"vae": VaeSettings(scaling_factor=0.25)}))
    assert find_vae(copy / "vae" / "diffusion_pytorch_model.safetensors").settings.scaling_factor == 0.25
    shutil.copy(copy / "vae" / "diffusion_pytorch_model.safetensors", tmp_path / "ae.safetensors")
    assert find_vae(tmp_path / "ae.safetensors").settings == VaeSettings()


def test_presets_that_cut_at_512_tokens_do_so_here() -> None:
    settings = published_settings()
    limits = {name: settings.text_for(name).max_tokens for name in (None, *settings.presets)}
    assert limits == {None: 1023, "upstream": 512, "comfyui": 1023, "diffusers": 512}


def test_a_config_of_other_values_is_one_line(written: dict[str, Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(written["diffusers"], tmp_path / "copy"))
    for part, key, value in (
        ("transformer", "patch_size", 0),
        ("transformer", "patch_size", "two"),
        ("transformer", "axes_dim_rope", 5),
        ("transformer", "multiple_of", "x"),
        ("text_encoder", "text_config", "x"),
    ):
        path = copy / part / "config.json"
        before = path.read_text(encoding="utf-8")
        path.write_text(json.dumps({**json.loads(before), key: value}))
        message = refusal(lambda: open_model(copy), ConfigError)
        assert f"{part}/config.json" in message
        assert [line for line in verify(recognise(copy)) if str(path) in line], (part, key)
        path.write_text(before)
    jina = copy / "text_encoder_2" / "model.safetensors"
    state = load_file(jina)
    table = next(name for name in state if name.endswith("token_type_embeddings.weight"))
    save_file({name: value for name, value in state.items() if name != table}, jina)
    assert "embeddings.token_type_embeddings.weight" in refusal(lambda: open_model(copy))
