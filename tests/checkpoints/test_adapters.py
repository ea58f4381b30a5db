"""Adapters on a tiny NextDiT: equality with peft for its formats; load, scale, stack, fuse, unload, merge.

What LyCORIS writes is compared in tests/parity/test_adapters.py, from files of its own.
"""

from __future__ import annotations

import json
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from newbie_image.checkpoints.adapter_files import AdapterFile, read_adapter
from newbie_image.checkpoints.adapters import AdapterStack, merge_adapters
from newbie_image.errors import CheckpointError, RequestError
from newbie_image.models.next_dit import NextDiT

TARGETS = [
    "attention.qkv",
    "attention.out",
    "feed_forward.w2",
    "time_text_embed.1",
    "clip_text_pooled_proj.1",
]
QKV = "layers.0.attention.qkv"


def model() -> NextDiT:
    torch.manual_seed(0)
    made = NextDiT(
        in_channels=4, dim=32, n_layers=2, n_refiner_layers=1, n_heads=4, n_kv_heads=2, multiple_of=16,
        cap_feat_dim=24, axes_dims=(4, 2, 2), axes_lens=(32, 16, 16), clip_text_dim=20,
    )  # fmt: skip
    with torch.no_grad():
        for parameter in made.parameters():  # the zeroed AdaLN and final layers would hide every change
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return made.eval()


def run(transformer: torch.nn.Module) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    mask = torch.tensor([[1] * 7, [1] * 5 + [0] * 2])
    with torch.no_grad():
        return transformer(noise(2, 4, 8, 6), torch.tensor([0.2, 0.7]), noise(2, 7, 24), mask, noise(2, 20))


def relative_error(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


def randomised(adapted: torch.nn.Module) -> torch.nn.Module:
    """Give a fresh adapter weights that change something."""
    torch.manual_seed(2)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name or "lokr_" in name or "hada_" in name:
                parameter.normal_(std=0.2)
    return adapted.eval()


def plain_lora(path: Path, *, rank: int = 4, seed: int = 3, names=(QKV,), extra=None, metadata=None) -> Path:
    torch.manual_seed(seed)
    shapes = {name: parameter.shape for name, parameter in model().named_parameters()}
    tensors = {}
    for name in names:
        rows, columns = shapes[name + ".weight"]
        tensors[f"{name}.lora_A.weight"] = torch.randn(rank, columns) * 0.3
        tensors[f"{name}.lora_B.weight"] = torch.randn(rows, rank) * 0.3
    save_file({**tensors, **(extra or {})}, path, metadata)
    return path


PEFT_CONFIGS = {
    "lora": peft.LoraConfig(r=4, lora_alpha=10, target_modules=TARGETS),
    "rank stabilised": peft.LoraConfig(r=4, lora_alpha=3, target_modules=TARGETS, use_rslora=True),
    "patterns": peft.LoraConfig(
        r=4,
        lora_alpha=2,
        target_modules=TARGETS,
        rank_pattern={"attention.out": 2, r"layers\.1\.attention\.qkv": 3},
        alpha_pattern={"layers.0.attention.qkv": 9, "attention.out": 5},
    ),
    "every linear": peft.LoraConfig(r=2, lora_alpha=4, target_modules="all-linear"),
    "lokr": peft.LoKrConfig(r=2, alpha=6, target_modules=TARGETS),
    "lokr whole": peft.LoKrConfig(r=64, alpha=96, target_modules=TARGETS, decompose_factor=4),
    "lokr both": peft.LoKrConfig(r=1, alpha=2, target_modules=TARGETS, decompose_both=True),
    "loha": peft.LoHaConfig(r=3, alpha=5, target_modules=TARGETS),
}


@pytest.mark.parametrize("kind", PEFT_CONFIGS)
def test_equals_peft(kind: str, tmp_path: Path) -> None:
    theirs = randomised(peft.get_peft_model(model(), PEFT_CONFIGS[kind]))
    theirs.save_pretrained(tmp_path)
    expected = run(theirs)
    assert relative_error(run(model()), expected) > 1e-2

    beside = model()
    stack = AdapterStack(beside)
    report = stack.load(tmp_path)
    assert report.lines() == []
    assert relative_error(run(beside), expected) < 1e-5
    stack.fuse()
    assert relative_error(run(beside), expected) < 1e-5

    merged = model()
    merge_adapters(merged, [(tmp_path, 1.0)])
    assert relative_error(run(merged), expected) < 1e-5
    assert merged.state_dict().keys() == model().state_dict().keys()


@pytest.mark.parametrize(
    "prefix",
    ["", "diffusion_model.", "base_model.model.", "base_model.model.diffusion_model.", "transformer.",
     "unet.base_model.model.", "model.diffusion_model."],
)  # fmt: skip
def test_every_prefix_means_the_same_layer(prefix: str, tmp_path: Path) -> None:
    plain = plain_lora(tmp_path / "a.safetensors")
    save_file({prefix + key: value for key, value in load_file(plain).items()}, tmp_path / "b.safetensors")
    with_prefix, without = model(), model()
    AdapterStack(with_prefix).load(tmp_path / "b.safetensors")
    AdapterStack(without).load(plain)
    assert torch.equal(run(with_prefix), run(without))


@pytest.mark.parametrize("prefix", ["lora_unet_", "lycoris_", "lora_transformer_"])
@pytest.mark.parametrize(("down", "up"), [("lora_down", "lora_up"), ("lora_A", "lora_B")])
def test_kohya_names_and_alpha(prefix: str, down: str, up: str, tmp_path: Path) -> None:
    plain = load_file(plain_lora(tmp_path / "a.safetensors"))
    flat = prefix + QKV.replace(".", "_")
    tensors = {
        f"{flat}.{down}.weight": plain[QKV + ".lora_A.weight"],
        f"{flat}.{up}.weight": plain[QKV + ".lora_B.weight"],
        f"{flat}.alpha": torch.tensor(1.0),
    }
    save_file(tensors, tmp_path / "b.safetensors")
    kohya, expected = model(), model()
    report = AdapterStack(kohya).load(tmp_path / "b.safetensors")
    AdapterStack(expected).load(tmp_path / "a.safetensors", scale=0.25)  # alpha 1 / rank 4
    assert report.layers == (QKV,)
    assert report.lines() == []
    assert relative_error(run(kohya), run(expected)) < 1e-6


def test_split_diffusers_names_are_rows_of_the_fused_projection(tmp_path: Path) -> None:
    torch.manual_seed(4)
    rows = {"to_q": (0, 32), "to_k": (32, 48), "to_v": (48, 64)}
    tensors, change = {}, torch.zeros(64, 32)
    for name, (start, stop) in rows.items():
        down, up = torch.randn(2, 32) * 0.3, torch.randn(stop - start, 2) * 0.3
        tensors[f"transformer.layers.0.attn.{name}.lora_A.weight"] = down
        tensors[f"transformer.layers.0.attn.{name}.lora_B.weight"] = up
        change[start:stop] = up @ down
    others = {
        "layers.1.attn.to_out.0": "layers.1.attention.out",
        "layers.1.feed_forward.linear_2": "layers.1.feed_forward.w2",
        "noise_refiner.0.norm1.linear": "noise_refiner.0.adaLN_modulation.1",
        "time_caption_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
        "norm_out.linear_2": "final_layer.linear",
    }
    expected = model()
    with torch.no_grad():
        expected.get_submodule(QKV).weight.add_(change)
        for theirs, ours in others.items():
            weight = expected.get_submodule(ours).weight
            down, up = torch.randn(2, weight.shape[1]) * 0.3, torch.randn(weight.shape[0], 2) * 0.3
            tensors[f"transformer.{theirs}.lora_A.weight"], tensors[f"transformer.{theirs}.lora_B.weight"] = (
                down,
                up,
            )
            weight.add_(up @ down)
    save_file(tensors, tmp_path / "split.safetensors")
    for fused in (False, True):
        split = model()
        stack = AdapterStack(split)
        report = stack.load(tmp_path / "split.safetensors")
        if fused:
            stack.fuse()
        assert set(report.layers) == {QKV, *others.values()}
        assert relative_error(run(split), run(expected)) < 1e-5


def test_alpha_from_metadata_config_and_nowhere(tmp_path: Path) -> None:
    def scaled(path: Path, scale: float) -> None:
        got, expected = model(), model()
        AdapterStack(got).load(path)
        AdapterStack(expected).load(AdapterFile(path, load_file(path)), scale=scale)
        assert relative_error(run(got), run(expected)) < 1e-6

    path = plain_lora(tmp_path / "a.safetensors")
    report = AdapterStack(model()).load(path)
    assert report.notices == ("alpha is given nowhere for 1 layers and taken as the rank (scale 1)",)
    scaled(
        plain_lora(tmp_path / "b.safetensors", metadata={"ss_network_alpha": "2", "ss_network_dim": "4"}), 0.5
    )
    packed = json.dumps({"transformer.lora_alpha": 8, "transformer.r": 4})
    scaled(plain_lora(tmp_path / "c.safetensors", metadata={"lora_adapter_metadata": packed}), 2.0)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 12}))
    scaled(plain_lora(tmp_path / "d.safetensors", metadata={"lora_alpha": "1"}), 3.0)


def test_norms_and_biases_change_and_come_back_to_the_bit(tmp_path: Path) -> None:
    torch.manual_seed(5)
    tensors = {
        "lycoris_layers_0_attention_norm1.w_norm": torch.randn(32) * 0.2,
        "lycoris_layers_1_attention_q_norm.w_norm": torch.randn(8) * 0.2,
        "lycoris_x_embedder.diff_b": torch.randn(32) * 0.2,
        "lycoris_layers_1_feed_forward_w1.diff": torch.randn(128, 32) * 0.05,
    }
    save_file(tensors, tmp_path / "norms.safetensors")
    transformer, expected = model().bfloat16(), model().bfloat16()
    before = {name: value.clone() for name, value in transformer.state_dict().items()}
    stack = AdapterStack(transformer)
    assert stack.load(tmp_path / "norms.safetensors", scale=0.5).lines() == []
    stack.fuse()
    for name, key in zip(
        ("layers.0.attention_norm1.weight", "layers.1.attention.q_norm.weight", "x_embedder.bias",
         "layers.1.feed_forward.w1.weight"), tensors, strict=True,
    ):  # fmt: skip
        wanted = (before[name].float() + 0.5 * tensors[key]).bfloat16()
        assert torch.equal(transformer.state_dict()[name], wanted)
    stack.unload()
    assert all(torch.equal(transformer.state_dict()[name], value) for name, value in before.items())
    assert torch.equal(run(transformer.float()), run(expected.float()))


def test_stacking_adds_up_in_either_order_and_scales_are_linear_in_the_weights(tmp_path: Path) -> None:
    first = plain_lora(tmp_path / "first.safetensors", seed=6)
    second = plain_lora(
        tmp_path / "second.safetensors", seed=7, rank=2, names=(QKV, "layers.1.feed_forward.w2")
    )
    forth, back, merged = model(), model(), model()
    stack, reverse = AdapterStack(forth), AdapterStack(back)
    stack.load(first, scale=0.7)
    stack.load(second, scale=-0.4)
    reverse.load(second, scale=9.0)
    reverse.load(first)
    reverse.set_scales({"second": -0.4, "first": 0.7})
    merge_adapters(merged, [(first, 0.7), (second, -0.4)])
    assert stack.scales == {"first": 0.7, "second": -0.4}
    assert relative_error(run(back), run(forth)) < 1e-6
    assert relative_error(run(merged), run(forth)) < 1e-5
    stack.set_scales({"first": 0.0, "second": 0.0})
    assert torch.equal(run(forth), run(model()))


def test_fuse_unfuse_and_unload_restore_the_weights_to_the_bit(tmp_path: Path) -> None:
    first = plain_lora(tmp_path / "first.safetensors", seed=6)
    second = plain_lora(tmp_path / "second.safetensors", seed=7, names=("layers.1.feed_forward.w2",))
    transformer = model()
    before = {name: value.clone() for name, value in transformer.state_dict().items()}
    stack = AdapterStack(transformer)
    stack.load(first)
    beside = run(transformer)
    assert all(torch.equal(transformer.state_dict()[name], value) for name, value in before.items())
    stack.fuse()
    assert stack.fused
    assert not torch.equal(transformer.get_submodule(QKV).weight, before[QKV + ".weight"])
    stack.load(second)  # joins the fused ones
    both = run(transformer)
    stack.unload("second")
    assert relative_error(run(transformer), beside) < 1e-5
    assert relative_error(both, beside) > 1e-3
    stack.unfuse()
    assert torch.equal(run(transformer), beside)
    stack.unload()
    assert transformer.state_dict().keys() == before.keys()
    assert all(torch.equal(transformer.state_dict()[name], value) for name, value in before.items())
    assert torch.equal(run(transformer), run(model()))


def test_unmatched_misshapen_and_incomplete_keys_are_named_and_the_rest_is_used(tmp_path: Path) -> None:
    extra = {
        "layers.7.attention.qkv.lora_A.weight": torch.zeros(4, 32),
        "lora_te_text_model_encoder.lora_down.weight": torch.zeros(4, 32),
        "layers.0.attention.out.lora_A.weight": torch.zeros(4, 32),
        "layers.1.attention.out.lora_A.weight": torch.zeros(4, 31),
        "layers.1.attention.out.lora_B.weight": torch.zeros(32, 4),
        "layers.0.feed_forward.w1.lora_A.weight": torch.zeros(4, 32),
        "layers.0.feed_forward.w1.lora_B.weight": torch.zeros(128, 5),
        "lycoris_layers_0_ffn_norm1.w_norm": torch.zeros(33),
    }
    report = AdapterStack(model()).load(plain_lora(tmp_path / "a.safetensors", extra=extra))
    assert report.layers == (QKV,)
    assert set(report.unmatched) == set(list(extra)[:2])
    assert report.incomplete == ("layers.0.attention.out.lora_A.weight",)
    said = "\n".join(report.lines())
    assert "layers.1.attention.out.lora_A.weight makes 32×31, the layer needs 32×32" in said
    assert "layers.0.feed_forward.w1.lora_B.weight (128, 5): the factors do not fit each other" in said
    assert "ffn_norm1.w_norm makes 33, the layer needs 32" in said


def test_an_adapter_of_another_model_is_refused_and_leaves_nothing_behind(tmp_path: Path) -> None:
    save_file({"unet.down_blocks.0.lora_A.weight": torch.zeros(4, 8)}, tmp_path / "other.safetensors")
    transformer = model()
    stack = AdapterStack(transformer)
    with pytest.raises(
        CheckpointError, match=r"none of its 1 keys fits \(unet.down_blocks.0.lora_A.weight\)"
    ):
        stack.load(tmp_path / "other.safetensors")
    assert stack.scales == {}
    with pytest.raises(CheckpointError, match="none of its"):
        merge_adapters(
            transformer,
            [(plain_lora(tmp_path / "a.safetensors"), 1.0), (tmp_path / "other.safetensors", 1.0)],
        )
    assert torch.equal(run(transformer), run(model()))


def test_dora_is_refused(tmp_path: Path) -> None:
    config = peft.LoraConfig(r=2, target_modules=["attention.out"], use_dora=True)
    peft.get_peft_model(model(), config).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="is a DoRA"):
        AdapterStack(model()).load(tmp_path)


def test_an_adapter_on_changed_base_weights_is_refused(tmp_path: Path) -> None:
    config = peft.LoraConfig(r=2, target_modules=["attention.out"], init_lora_weights="pissa")
    peft.get_peft_model(model(), config).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="was started with pissa"):
        AdapterStack(model()).load(tmp_path)


def test_names(tmp_path: Path) -> None:
    path = plain_lora(tmp_path / "style.safetensors")
    stack = AdapterStack(model())
    assert stack.load(path).name == "style"
    assert stack.load(path).name == "style-2"
    with pytest.raises(RequestError, match="'style' is loaded already"):
        stack.load(path, name="style")
    with pytest.raises(RequestError, match="no adapter 'colour' is loaded; loaded are: style, style-2"):
        stack.set_scales({"colour": 1.0})


def test_an_adapter_computes_in_the_models_dtype(tmp_path: Path) -> None:
    path = plain_lora(tmp_path / "a.safetensors")
    half, reference = model().bfloat16(), model()
    AdapterStack(half).load(path)
    AdapterStack(reference).load(path)
    without = relative_error(run(model().bfloat16()), run(model()))
    assert relative_error(run(half), run(reference)) < 1.5 * without


def test_unreadable_files_are_refused_in_one_line(tmp_path: Path) -> None:
    whole = plain_lora(tmp_path / "whole.safetensors").read_bytes()
    cases: dict[str, tuple[bytes, str]] = {
        "header.safetensors": (whole[:20], "not a whole safetensors file"),
        "data.safetensors": (whole[:-9], "not a whole safetensors file"),
        "empty.safetensors": (b"", "not a whole safetensors file"),
        "text.pt": (b"hello", "more than tensors|no whole weight file"),
        "empty.bin": (b"", "no whole weight file"),
        "notes.txt": (b"hello", "no weight file"),
    }
    for name, (content, said) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=said) as caught:
            read_adapter(tmp_path / name)
        assert "\n" not in str(caught.value)
    torch.save({"a": print}, tmp_path / "code.pt")
    with pytest.raises(CheckpointError, match="could run code"):
        read_adapter(tmp_path / "code.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match="holds a list"):
        read_adapter(tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match="does not exist"):
        read_adapter(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="name the file"):
        read_adapter(tmp_path)
    (tmp_path / "loop.safetensors").symlink_to(tmp_path / "loop.safetensors")
    with pytest.raises(CheckpointError):
        read_adapter(tmp_path / "loop.safetensors")


def test_nan_and_a_broken_config_are_refused(tmp_path: Path) -> None:
    broken = plain_lora(tmp_path / "nan.safetensors", extra={QKV + ".alpha": torch.tensor(float("nan"))})
    with pytest.raises(CheckpointError, match=r"attention.qkv.alpha in .* holds NaN"):
        AdapterStack(model()).load(broken)
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(CheckpointError, match="is not"):
        read_adapter(broken)


def test_a_trainers_pickle_is_read(tmp_path: Path) -> None:
    tensors = load_file(plain_lora(tmp_path / "a.safetensors"))
    torch.save({"adapter_state_dict": tensors, "step": 3}, tmp_path / "checkpoint.pt")
    assert read_adapter(tmp_path / "checkpoint.pt").tensors.keys() == tensors.keys()
