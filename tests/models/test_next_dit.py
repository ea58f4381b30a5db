"""The transformer: its step against its forward, prepared text, training, compiling, saving, errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from newbie_image.errors import ConfigError, DeviceError, RequestError
from newbie_image.models.next_dit import NextDiT, patchify, unpatchify

CONFIG: dict[str, Any] = {
    "dim": 32,
    "n_layers": 2,
    "n_refiner_layers": 1,
    "n_heads": 4,
    "n_kv_heads": 2,
    "multiple_of": 16,
    "cap_feat_dim": 24,
    "axes_dims": [4, 2, 2],
    "axes_lens": [16, 8, 8],
    "clip_text_dim": 20,
}


@pytest.fixture
def model() -> NextDiT:
    torch.manual_seed(0)
    model = NextDiT(**CONFIG)
    for name, weight in model.named_parameters():
        torch.nn.init.normal_(weight, mean=1.0 if "norm" in name else 0.0, std=0.2)
    return model.eval()


@pytest.fixture
def given() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {
        "latents": torch.randn(2, 16, 8, 12),
        "timestep": torch.tensor([0.2, 0.7]),
        "text_tokens": torch.randn(2, 10, 24),
        "text_mask": torch.arange(10)[None] < torch.tensor([[7], [3]]),
        "pooled_text": torch.randn(2, 20),
    }


def text_of(given: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    return given["text_tokens"], given["text_mask"], given["pooled_text"]


def close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_defaults_are_the_published_sizes() -> None:
    with torch.device("meta"):
        assert sum(weight.numel() for weight in NextDiT().parameters()) == 3_486_636_096


def test_state_dict_has_the_published_names(model: NextDiT) -> None:
    names = {name.replace(".0.", ".N.", 1).replace(".1.", ".N.", 1) for name in model.state_dict()}
    assert {"norm_final.weight", "layers.N.attention.qkv.weight", "noise_refiner.N.ffn_norm2.weight"} <= names
    assert {"x_embedder.bias", "final_layer.linear.bias"} <= names
    assert "time_text_embed.1.weight" in model.state_dict()
    assert "context_refiner.0.adaLN_modulation.1.weight" not in model.state_dict()
    assert not any("rope" in name for name in names)


def test_prepared_step_equals_forward(model: NextDiT, given: dict[str, Tensor]) -> None:
    prepared = model.prepare_text(*text_of(given), latent_size=(8, 12))
    assert prepared.lengths == (7, 3)
    assert prepared.text.shape == (2, 7, 32)
    close(model.velocity(given["latents"], given["timestep"], prepared), model(**given))


def test_a_sample_does_not_see_its_neighbours(model: NextDiT, given: dict[str, Tensor]) -> None:
    together = model(**given)
    alone = model(**{name: value[1:] for name, value in given.items()})
    close(alone, together[1:])


def test_rows_of_prepared_text_equal_preparing_them_alone(model: NextDiT, given: dict[str, Tensor]) -> None:
    prepared = model.prepare_text(*text_of(given), latent_size=(8, 12))
    row = prepared.rows(1, 2)
    assert row.padding is None
    assert row.text.shape[1] == 3
    close(model.velocity(given["latents"][1:], given["timestep"][1:], row), model(**given)[1:])


def test_equal_lengths_need_no_mask(model: NextDiT, given: dict[str, Tensor]) -> None:
    given["text_mask"] = (torch.arange(10) < 6).int().expand(2, -1)
    prepared = model.prepare_text(*text_of(given), latent_size=(8, 12))
    assert prepared.padding is None
    close(model.velocity(given["latents"], given["timestep"], prepared), model(**given))


def test_padding_may_hold_anything(model: NextDiT, given: dict[str, Tensor]) -> None:
    expected = model(**given)
    given["text_tokens"] = given["text_tokens"].masked_fill(~given["text_mask"][..., None], float("nan"))
    close(model(**given), expected)
    prepared = model.prepare_text(*text_of(given), latent_size=(8, 12))
    close(model.velocity(given["latents"], given["timestep"], prepared), expected)


def test_scheduled_modulation_is_exact(model: NextDiT, given: dict[str, Tensor]) -> None:
    prepared = model.prepare_text(*text_of(given), latent_size=(8, 12))
    for time, factors in zip([0.0, 0.4], model.prepare_schedule([0.0, 0.4], prepared), strict=True):
        timestep = torch.full((2,), time)
        expected = model.velocity(given["latents"], timestep, prepared)
        assert torch.equal(model.velocity(given["latents"], timestep, prepared, factors), expected)


def test_position_in_the_caption_matters(model: NextDiT, given: dict[str, Tensor]) -> None:
    swapped = given | {"text_tokens": given["text_tokens"][:, [1, 0, *range(2, 10)]]}
    assert (model(**swapped) - model(**given)).abs().max() > 1e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_take_float32_latents(
    model: NextDiT, given: dict[str, Tensor], dtype: torch.dtype
) -> None:
    """Classic failure: latents in one dtype, weights in another."""
    expected = model(**given)
    half = model.to(dtype)(**given)
    assert half.dtype == torch.float32
    assert (half - expected).norm() / expected.norm() < 0.03


def test_gradients_reach_every_weight_also_under_autocast_and_checkpointing(
    model: NextDiT, given: dict[str, Tensor]
) -> None:
    model.train()
    gradients = []
    for checkpointing in (False, True):
        model.zero_grad()
        if checkpointing:
            model.enable_gradient_checkpointing()
        with torch.autocast("cpu", torch.bfloat16):
            velocity = model(**given)
        velocity.square().mean().backward()
        missing = [
            name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()
        ]
        assert missing == ["norm_final.weight"]
        gradients.append(model.layers[0].attention.qkv.weight.grad.clone())
    close(*gradients)


def test_a_fresh_model_learns_time(given: dict[str, Tensor]) -> None:
    """With upstream's zeros in two layers that follow each other, neither would ever see a gradient."""
    torch.manual_seed(0)
    model = NextDiT(**CONFIG)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(5):
        model(**given).sub(1).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        late = model(**given | {"timestep": torch.ones(2)})
        assert (late - model(**given | {"timestep": torch.zeros(2)})).abs().max() > 1e-4


def test_forward_is_one_graph_without_reading_back(model: NextDiT, given: dict[str, Tensor]) -> None:
    compiled = torch.compile(model, fullgraph=True, dynamic=False, backend="eager")
    close(compiled(**given), model(**given))
    shorter = given | {"text_mask": torch.arange(10)[None] < torch.tensor([[2], [9]])}
    with torch.compiler.set_stance("fail_on_recompile"):
        close(compiled(**shorter), model(**shorter))


def test_saving_and_loading_keeps_everything(
    model: NextDiT, given: dict[str, Tensor], tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path)
    loaded = NextDiT.from_pretrained(tmp_path)
    assert loaded.config["axes_dims"] == CONFIG["axes_dims"]
    assert torch.equal(loaded(**given), model(**given))


def test_patches_are_cut_and_joined() -> None:
    latents = torch.arange(2 * 3 * 4 * 6.0).view(2, 3, 4, 6)
    patches = patchify(latents, 2)
    assert patches.shape == (2, 6, 12)
    assert torch.equal(patches[1, 4].view(2, 2, 3), latents[1, :, 2:4, 2:4].permute(1, 2, 0))
    assert torch.equal(unpatchify(patches, (2, 3), 2), latents)


def test_channel_mismatch_names_both(model: NextDiT, given: dict[str, Tensor]) -> None:
    """Classic failure: a VAE of another model."""
    with pytest.raises(RequestError, match=r"4 channels .* in_channels 16.*VAE"):
        model(**given | {"latents": torch.randn(2, 4, 8, 12)})


def test_a_size_that_is_a_float_is_refused(model: NextDiT, given: dict[str, Tensor]) -> None:
    """Classic failure: height / 8 is a float, and floats are no indices."""
    with pytest.raises(RequestError, match=r"8\.0, 12\.0.*whole numbers"):
        model.prepare_text(*text_of(given), latent_size=(64 / 8, 96 / 8))  # type: ignore[arg-type]


def test_a_mask_of_floats_is_no_index(model: NextDiT, given: dict[str, Tensor]) -> None:
    """Classic failure: caption lengths summed from a float mask index the rotary tables."""
    expected = model(**given)
    close(model(**given | {"text_mask": given["text_mask"].float()}), expected)
    prepared = model.prepare_text(
        given["text_tokens"], given["text_mask"].float(), given["pooled_text"], latent_size=(8, 12)
    )
    close(model.velocity(given["latents"], given["timestep"], prepared), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latents": torch.randn(16, 8, 12)}, r"latents of shape \(16, 8, 12\); give \(batch, 16"),
        ({"latents": torch.randn(2, 16, 7, 12)}, "7×12; both sides must be multiples of 2"),
        ({"latents": torch.randn(2, 16, 18, 12)}, r"18×12 are 9×6 tokens.*end at 8×8 \(axes_lens\)"),
        ({"latents": torch.randn(1, 16, 8, 12)}, "prepared for a batch of 2"),
        ({"timestep": torch.tensor(0.5)}, r"timestep of shape \(\); give \(2,\)"),
        ({"text_tokens": torch.randn(2, 10, 23)}, r"\(2, 10, 23\).*24\) \(cap_feat_dim\)"),
        ({"text_mask": torch.ones(2, 9)}, r"text_mask of shape \(2, 9\).*must be \(2, 10\)"),
        ({"pooled_text": torch.randn(2, 21)}, r"pooled_text of shape \(2, 21\).*\(2, 20\)"),
        (
            {"text_tokens": torch.randn(2, 16, 24), "text_mask": torch.ones(2, 16)},
            "16 tokens.*allows 15",
        ),
    ],
)
def test_wrong_shapes_name_what_was_given_and_what_is_allowed(
    model: NextDiT, given: dict[str, Tensor], change: dict[str, Tensor], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        model(**given | change)


def test_prepared_text_is_of_one_size(model: NextDiT, given: dict[str, Tensor]) -> None:
    prepared = model.prepare_text(*text_of(given), latent_size=(8, 8))
    with pytest.raises(RequestError, match="8×8: prepare the text for this size"):
        model.velocity(given["latents"], given["timestep"], prepared)


@pytest.mark.parametrize("mask", [[0, 0, 0], [0, 1, 1], [1, 0, 1]])
def test_padding_that_is_not_on_the_right_is_refused(
    model: NextDiT, given: dict[str, Tensor], mask: list[int]
) -> None:
    with pytest.raises(RequestError, match="padding on the right"):
        model.prepare_text(
            given["text_tokens"][:1, :3], torch.tensor([mask]), given["pooled_text"][:1], (8, 12)
        )


def test_more_padding_than_the_table_is_trimmed(model: NextDiT, given: dict[str, Tensor]) -> None:
    tokens = torch.nn.functional.pad(given["text_tokens"], (0, 0, 0, 30))
    mask = torch.nn.functional.pad(given["text_mask"], (0, 30))
    prepared = model.prepare_text(tokens, mask, given["pooled_text"], (8, 12))
    close(model.velocity(given["latents"], given["timestep"], prepared), model(**given))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_heads": 5}, "n_heads must divide dim"),
        ({"n_kv_heads": 3}, "n_kv_heads must divide n_heads"),
        ({"axes_dims": [4, 4, 4]}, r"\[4, 4, 4\].*heads of 8 channels"),
        ({"axes_dims": [6, 1, 1]}, "three even axes_dims"),
        ({"axes_lens": [16, 8]}, "three axes_lens"),
        ({"axes_lens": [16, 8.0, 8]}, r"8\.0.*whole numbers"),
        ({"n_layers": 2.0}, r"n_layers is 2\.0; give a whole number of at least 1"),
        ({"n_heads": 0}, "n_heads is 0"),
        ({"n_kv_heads": 0}, "n_kv_heads is 0"),
        ({"dim": "64"}, "dim is '64'"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        NextDiT(**CONFIG | change)


def test_attention_backend_is_checked_when_set(model: NextDiT) -> None:
    assert model.attention_backend == "auto"
    with pytest.raises(DeviceError, match="CUDA"):
        model.attention_backend = "flash"
    with pytest.raises(ConfigError, match="'fast'"):
        model.attention_backend = "fast"


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["auto", "sdpa", "math"])
def test_cuda_equals_cpu(model: NextDiT, given: dict[str, Tensor], backend: str) -> None:
    expected = model(**given)
    model.to("cuda").attention_backend = backend
    on_device = {name: value.cuda() for name, value in given.items()}
    close(model(**on_device).cpu(), expected)
    prepared = model.prepare_text(*text_of(on_device), latent_size=(8, 12))
    close(model.velocity(on_device["latents"], on_device["timestep"], prepared).cpu(), expected)
