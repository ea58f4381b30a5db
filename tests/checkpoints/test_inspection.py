"""What a checkpoint is said to be, and every kind of unsoundness found."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from newbie_image.checkpoints.adapter_facts import adapter_facts
from newbie_image.checkpoints.inspection import describe, verify
from newbie_image.checkpoints.opening import open_model
from newbie_image.checkpoints.recognise import recognise
from newbie_image.cli.app import app
from newbie_image.errors import NewbieError
from tests import tiny


@pytest.fixture
def copy(tmp_path: Path, tiny_bundle: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "copy"))


def test_parts_are_described_from_their_headers(tiny_bundle: Path) -> None:
    reports = {report.name: report for report in describe(recognise(tiny_bundle))}
    assert set(reports) == {"transformer", "text_encoder", "clip_model", "vae"}
    file = tiny_bundle / "transformer" / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    transformer = reports["transformer"]
    assert transformer.parameters == sum(value.numel() for value in state.values())
    assert transformer.tensors == len(state)
    assert transformer.dtypes == {"fp32": len(state)}
    assert transformer.size == file.stat().st_size
    assert transformer.config == "file"


def test_a_sound_model_has_nothing_to_say(tiny_bundle: Path) -> None:
    assert list(verify(recognise(tiny_bundle))) == []


def test_all_that_is_wrong_is_told_at_once(copy: Path) -> None:
    file = copy / "transformer" / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    state["layers.0.ffn_norm1.weight"][3] = float("nan")
    state["x_embedder.bias"][0] = float("inf")
    save_file(state, file)
    jina = copy / "clip_model" / "diffusion_pytorch_model.safetensors"
    state = load_file(jina)
    state["emb_norm.weight"] = state.pop("emb_ln.weight")
    save_file(state, jina)
    (copy / "tokenizer" / "tokenizer.json").unlink()
    shutil.rmtree(copy / "vae")
    lines = list(verify(recognise(copy)))
    assert all("\n" not in line for line in lines)
    for words in (
        ("vae: missing",),
        ("transformer: layers.0.ffn_norm1.weight holds NaN",),
        ("transformer: x_embedder.bias holds infinity",),
        ("clip_model:", "1 missing (emb_ln.weight)"),
        ("text_encoder: its tokenizer is missing",),
    ):
        assert any(all(word in line for word in words) for line in lines), words


def test_tensors_of_whole_numbers_are_unsound(copy: Path) -> None:
    file = copy / "clip_model" / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    state["emb_ln.weight"] = state["emb_ln.weight"].to(torch.int8)
    save_file(state, file)
    assert any(
        "1 of no floating point dtype (emb_ln.weight int8)" in line for line in verify(recognise(copy))
    )


def test_what_verify_calls_sound_is_loaded_also_as_a_pickle_and_a_wrong_name_by_neither(copy: Path) -> None:
    folder = copy / "clip_model"
    file = folder / "diffusion_pytorch_model.safetensors"
    wanted = load_file(file)
    file.rename(folder / "weights.safetensors")
    assert any("rename it" in line for line in verify(recognise(copy)))
    (folder / "weights.safetensors").unlink()
    torch.save(wanted, folder / "pytorch_model.bin")
    assert list(verify(recognise(copy))) == []
    loaded = open_model(copy).components["clip_model"].state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in wanted.items())


def test_what_loading_refuses_is_not_called_sound(copy: Path) -> None:
    def text(name: str, content: str) -> tuple[Path, str]:
        return copy / name, content

    def changed(name: str, **values: object) -> tuple[Path, str]:
        return text(name, json.dumps({**json.loads((copy / name).read_text(encoding="utf-8")), **values}))

    for file, content in (
        changed("transformer/config.json", n_layers="three"),
        changed("transformer/config.json", n_heads=3),
        changed("text_encoder/config.json", hidden_size="wide"),
        changed("text_encoder/config.json", model_type="gemma2"),
        text("tokenizer/tokenizer.json", "{"),
        text("clip_tokenizer/tokenizer.json", "{}"),
        text("scheduler/scheduler_config.json", "{"),
        changed("newbie.json", foo=1),
        changed("model_index.json", vae=["diffusers", "AutoencoderTiny"]),
    ):
        before = file.read_text(encoding="utf-8")
        file.write_text(content, encoding="utf-8")
        with pytest.raises(NewbieError):
            open_model(copy)
        lines = list(verify(recognise(copy)))
        assert len(lines) == 1, (file, lines)
        assert "\n" not in lines[0]
        file.write_text(before, encoding="utf-8")
    assert list(verify(recognise(copy))) == []


def test_parts_of_different_models_are_told(copy: Path) -> None:
    shutil.rmtree(copy / "clip_model")
    tiny.clip_model(len(tiny.jina_tokenizer()), width=32).save_pretrained(str(copy / "clip_model"))
    (line,) = verify(recognise(copy))
    assert "clip_text_dim" in line


def test_metadata_and_what_does_not_fit_are_described(tiny_bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "all.safetensors"
    state = load_file(tiny_bundle / "transformer" / "diffusion_pytorch_model.safetensors")
    wanted = sum(value.numel() for value in state.values())
    together = {f"model.diffusion_model.{name}": value for name, value in state.items()}
    together["text_encoders.gemma.weight"] = torch.ones(7)
    # The rotary axes of the tiny model are no equal thirds.
    config = (tiny_bundle / "transformer" / "config.json").read_text(encoding="utf-8")
    save_file(together, file, {"author": "someone", "newbie_config": config, "notes": "x" * 300})
    (report,) = describe(recognise(file))
    assert report.parameters == wanted
    assert report.metadata["author"] == "someone"
    assert report.metadata["notes"].endswith("(300 characters)")
    assert report.misfit is not None
    assert "text_encoders.gemma.weight" in report.misfit
    assert "everything in one file" in report.misfit
    said = CliRunner().invoke(app, ["weights", "inspect", str(file)])
    assert said.exit_code == 0
    assert "author someone" in said.stdout
    assert "not loadable: " in said.stdout


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("lokr", ("LoKr on 20 layers, rank 2, alpha 3 (tensors)", "adapter_type lyco_lokr", "network_dim 2")),
        ("kohya.safetensors", ("LoRA on ", "(tensors)")),
        ("loha.safetensors", ("LoHa on ",)),
        ("full.safetensors", ("difference on ", "alpha given nowhere")),
    ],
)
def test_adapters_are_described(name: str, words: tuple[str, ...]) -> None:
    path = Path(__file__).parents[1] / "parity" / "fixtures" / "adapters" / name
    said = CliRunner().invoke(app, ["weights", "inspect", str(path)])
    assert said.exit_code == 0, said.output
    assert said.stdout.startswith(f"{path}: adapter\n")
    assert all(word in said.stdout for word in words), said.stdout
    facts = json.loads(CliRunner().invoke(app, ["weights", "inspect", str(path), "--json"]).stdout)
    assert facts["tensors"] > 0
    assert facts["unknown"] == []


def test_an_adapters_alpha_is_told_from_where_loading_takes_it(tmp_path: Path) -> None:
    factors = {
        "base_model.model.layers.0.attention.out.lora_A.weight": torch.ones(4, 8),
        "base_model.model.layers.0.attention.out.lora_B.weight": torch.ones(8, 4),
        "something.else": torch.ones(1),
    }
    save_file(factors, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 8}))
    facts = adapter_facts(tmp_path)
    assert (facts.kinds, facts.ranks, facts.unknown) == ({"LoRA": 1}, (4,), ("something.else",))
    assert facts.alpha == "8 (config or metadata)"
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    said = CliRunner().invoke(app, ["weights", "inspect", str(tmp_path / "adapter_model.safetensors")])
    assert said.exit_code == 2
    assert said.stderr.count("\n") == 1
