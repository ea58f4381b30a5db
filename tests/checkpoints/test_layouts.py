"""Key maps both ways, against the classes that own the names where these are at hand."""

from __future__ import annotations

import pytest
import torch
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint
from diffusers.models.transformers.transformer_lumina2 import Lumina2Transformer2DModel

from newbie_image.checkpoints.layouts import (
    Piece,
    Plan,
    Shape,
    read_transformer,
    transformer_layout,
    write_transformer,
)
from newbie_image.checkpoints.text_layouts import read_gemma, read_jina, write_gemma, write_jina
from newbie_image.checkpoints.vae_layouts import read_vae, write_vae
from newbie_image.errors import CheckpointError
from tests import tiny

State = dict[str, torch.Tensor]


def shapes(state: State) -> dict[str, Shape]:
    return {name: tuple(value.shape) for name, value in state.items()}


def apply(plan: Plan, state: State) -> State:
    """What a plan makes of tensors, done the plain way."""

    def made(piece: Piece) -> torch.Tensor:
        value = torch.cat([state[name] for name in piece.names])
        value = value if piece.rows is None else value[piece.rows[0] : piece.rows[1]]
        return value if piece.shape is None else value.reshape(piece.shape)

    result = {name: made(piece) for name, piece in plan.pieces.items()}
    return result | {name: torch.ones(64) for name in plan.ones}


def same(first: State, second: State) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def transformer() -> State:
    torch.manual_seed(0)
    return tiny.transformer().state_dict()


def prebuilt(state: State) -> State:
    """Our tensors under the names that the prebuilt image's pages write."""
    result: State = {}
    for name, value in state.items():
        name = name.replace("norm_final.", "final_layer.norm.") if name.startswith("norm_final") else name
        name = "blocks." + name.removeprefix("layers.") if name.startswith("layers.") else name
        if ".feed_forward.w1." in name:
            other = state[name.replace("blocks.", "layers.").replace(".w1.", ".w3.")]
            result[name.replace("feed_forward.w1", "mlp.fc1")] = torch.cat([value, other])
            continue
        if ".feed_forward.w3." in name:
            continue
        for ours, theirs in (
            ("attention.qkv", "attn.qkv"),
            ("attention.out", "attn.proj"),
            ("feed_forward.w2", "mlp.fc2"),
        ):
            name = name.replace(ours, theirs)
        result[name] = value
    return result


@pytest.mark.parametrize("layout", ["newbie", "published", "comfyui", "diffusers"])
def test_a_transformer_goes_out_and_comes_back(transformer: State, layout: str) -> None:
    plan = write_transformer(layout, shapes(transformer))
    assert plan.unused == ()
    written = apply(plan, transformer)
    back = read_transformer(shapes(written))
    assert back.unused == ()
    assert same(apply(back, written), transformer)


def test_diffusers_names_and_shapes_are_those_of_its_class(transformer: State) -> None:
    written = shapes(apply(write_transformer("diffusers", shapes(transformer)), transformer))
    pooled = {name for name in written if "clip_text_pooled_proj" in name or "time_text_embed" in name}
    assert len(pooled) == 5
    reference = Lumina2Transformer2DModel(
        hidden_size=64,
        num_layers=2,
        num_refiner_layers=1,
        num_attention_heads=4,
        num_kv_heads=2,
        multiple_of=32,
        axes_dim_rope=(8, 4, 4),
        axes_lens=(64, 64, 64),
        cap_feat_dim=32,
    ).state_dict()
    ours = {name: shape for name, shape in written.items() if name not in pooled}
    assert ours == shapes(reference)


def test_what_no_forward_reads_may_be_absent_and_nothing_else_may(transformer: State) -> None:
    written = apply(write_transformer("comfyui", shapes(transformer)), transformer)
    del written["model.diffusion_model.norm_final.weight"]
    plan = read_transformer(shapes(written))
    assert plan.ones == ("norm_final.weight",)
    del written["model.diffusion_model.x_embedder.bias"]
    plan = read_transformer(shapes(written))
    assert plan.ones == ("norm_final.weight",)
    assert "x_embedder.bias" not in plan.pieces


def test_queries_keys_and_values_are_cut_where_the_heads_are(transformer: State) -> None:
    plan = write_transformer("diffusers", shapes(transformer))
    rows = [plan.pieces[f"layers.1.attn.to_{letter}.weight"].rows for letter in "qkv"]
    assert rows == [(0, 64), (64, 96), (96, 128)]


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", "diffusion_model.", "_orig_mod.", "module."])
def test_prefixes_are_left_aside(transformer: State, prefix: str) -> None:
    state = {prefix + name: value for name, value in transformer.items()}
    assert same(apply(read_transformer(shapes(state)), state), transformer)


def test_the_prebuilt_images_names_are_read(transformer: State) -> None:
    state = prebuilt(transformer)
    assert "blocks.1.attn.qkv.weight" in state
    assert "context_refiner.0.mlp.fc1.weight" in state
    assert transformer_layout(state) == "prebuilt"
    plan = read_transformer(shapes(state))
    assert plan.ones == ()
    assert same(apply(plan, state), transformer)
    with pytest.raises(CheckpointError, match="not written"):
        write_transformer("prebuilt", shapes(transformer))


def test_what_is_not_known_is_not_hidden(transformer: State) -> None:
    written = apply(write_transformer("diffusers", shapes(transformer)), transformer)
    written["layers.0.attn.to_q.bias"] = torch.zeros(64)
    del written["layers.1.attn.to_k.weight"]
    plan = read_transformer(shapes(written))
    assert "layers.0.attn.to_q.bias" in plan.unused
    assert "layers.1.attn.to_q.weight" in plan.unused
    assert "layers.1.attention.qkv.weight" not in plan.pieces


def test_another_model_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"no transformer of NewBie-image.*double_blocks"):
        read_transformer({"double_blocks.0.img_attn.qkv.weight": (3, 3)})


GEMMA_PREFIXES = ["", "model.", "language_model.", "language_model.model.", "model.language_model."]


@pytest.mark.parametrize("prefix", GEMMA_PREFIXES)
def test_gemma_is_found_behind_every_class(prefix: str) -> None:
    state = tiny.text_encoder(40).state_dict()
    there = {prefix + name: value for name, value in state.items()}
    there |= {
        "vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight": torch.zeros(1),
        "multi_modal_projector.mm_soft_emb_norm.weight": torch.zeros(1),
        "lm_head.weight": torch.zeros(1),
        "spiece_model": torch.zeros(1),
    }
    plan = read_gemma(shapes(there))
    assert same(apply(plan, there), state)
    assert len(plan.ignored) == 4
    assert plan.unused == ()


@pytest.mark.parametrize("layout", ["newbie", "published", "comfyui", "diffusers"])
def test_the_encoders_go_out_and_come_back(layout: str) -> None:
    for state, write, read in (
        (tiny.text_encoder(40).state_dict(), write_gemma, read_gemma),
        (tiny.clip_model(40).state_dict(), write_jina, read_jina),
    ):
        written = apply(write(layout, shapes(state)), state)
        assert same(apply(read(shapes(written)), written), state)
    with pytest.raises(CheckpointError, match="not written"):
        write_jina("prebuilt", {})


def test_jina_is_found_in_the_whole_clip_file() -> None:
    """As jinaai publishes it: adapters around the weights, a vision tower, an unused pooler."""
    state = tiny.clip_model(40).state_dict()
    there: State = {}
    for name, value in state.items():
        if name.endswith("Wqkv.weight") or name.endswith("word_embeddings.weight"):
            stem = "text_model.transformer." + name.removesuffix(".weight") + ".parametrizations.weight"
            there[f"{stem}.original"] = value
            there[f"{stem}.0.lora_A"] = torch.zeros(1)
            there[f"{stem}.0.lora_B"] = torch.zeros(1)
        else:
            there["text_model.transformer." + name] = value
    there |= {
        "text_model.transformer.pooler.dense.weight": torch.zeros(1),
        "vision_model.blocks.0.attn.q_proj.weight": torch.zeros(1),
        "logit_scale": torch.zeros(()),
        "text_projection.weight": torch.zeros(1),
    }
    plan = read_jina(shapes(there))
    assert same(apply(plan, there), state)
    assert plan.unused == ()
    assert plan.layout == "published"


def test_other_encoders_are_refused() -> None:
    with pytest.raises(CheckpointError, match="no Gemma 3"):
        read_gemma({"model.layers.0.self_attn.q_proj.weight": (1, 1)})
    with pytest.raises(CheckpointError, match="no text tower"):
        read_jina({"text_model.encoder.layers.0.mlp.fc1.weight": (1, 1)})


def test_the_autoencoder_goes_out_and_comes_back_with_its_attention() -> None:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    torch.manual_seed(0)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(4, 8, 8),
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=2,
    )
    state = vae.state_dict()
    plan = write_vae("comfyui", shapes(state))
    written = apply(plan, state)
    assert written["decoder.mid.attn_1.q.weight"].shape == (8, 8, 1, 1)
    assert "encoder.down.1.block.0.nin_shortcut.weight" in written
    assert "decoder.up.2.upsample.conv.weight" in written
    # diffusers' own reader of the original names must understand what we write, and agree with ours.
    theirs = convert_ldm_vae_checkpoint(dict(written), dict(vae.config))
    assert same(dict(theirs), state)
    for prefix in ("", "first_stage_model.", "vae."):
        there = {prefix + name: value for name, value in written.items()}
        back = read_vae(shapes(there))
        assert back.layout == "comfyui"
        assert back.unused == ()
        assert same(apply(back, there), state)


def test_an_autoencoder_without_a_place_is_refused_by_name() -> None:
    with pytest.raises(CheckpointError, match=r"encoder\.project_in.*AutoencoderKL only"):
        write_vae("comfyui", {"encoder.project_in.weight": (1,), "decoder.up_blocks.0.0.x.weight": (1,)})
    with pytest.raises(CheckpointError, match="no autoencoder"):
        read_vae({"something.weight": (1,)})
