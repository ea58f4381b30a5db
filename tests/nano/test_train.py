"""Training learns, saves, resumes and touches what it should."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from newbie_image.nano.autoencoder import AutoencoderRecipe, build_autoencoder, psnr, reconstruction_loss
from newbie_image.nano.caption_tokens import Captioner, with_system_prompt
from newbie_image.nano.dataset import Store
from newbie_image.nano.learner import flow_loss
from newbie_image.nano.parts import Parts, TransformerRecipe
from newbie_image.nano.train import train_transformer

TINY = TransformerRecipe(
    dim=32,
    n_layers=1,
    n_refiner_layers=1,
    n_heads=2,
    n_kv_heads=2,
    text_dim=64,
    text_layers=2,
    pooled_dim=32,
    pooled_layers=1,
    batch=4,
    warmup_steps=2,
    singles_first=0.0,
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    store = Store.create(folder, 250, 32, 0, {1: 0.5, 2: 0.5})
    return store


def test_every_used_part_gets_a_gradient():
    torch.manual_seed(0)
    parts = Parts(TINY)
    with torch.no_grad():
        for parameter in parts.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    ids = torch.randint(300, 600, (2, 8))
    mask = torch.ones_like(ids)
    mask[0, 5:] = 0
    latents, time = torch.randn(2, 16, 4, 4), torch.tensor([0.2, 0.7])
    apart = (torch.zeros(2, 6, 4), torch.zeros(2, dtype=torch.bool))
    out = parts(latents, time, ids, mask, torch.zeros_like(ids), ids, mask, *apart)
    out.square().mean().backward()
    trained = {id(p) for p in parts.trained()}
    for name, parameter in parts.named_parameters():
        used = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
        assert used == (id(parameter) in trained), name


def test_a_run_stops_resumes_and_logs(store, tmp_path):
    latents = np.random.default_rng(0).normal(size=(250, 16, 4, 4)).astype(np.float16)
    seen = []
    train_transformer(
        store,
        latents,
        tmp_path,
        TINY,
        minutes=0.02,
        device=torch.device("cpu"),
        sample=lambda p, s: seen.append(s),
    )
    first = torch.load(tmp_path / "state.pt", weights_only=True)
    assert first["seen"] == seen[-1] > 0
    train_transformer(
        store, latents, tmp_path, TINY, minutes=first["spent"] + 0.01, device=torch.device("cpu")
    )
    second = torch.load(tmp_path / "state.pt", weights_only=True)
    assert second["seen"] > first["seen"]
    assert second["step"] * TINY.batch == second["seen"]
    assert json.loads((tmp_path / "recipe.json").read_text())["dim"] == 32


def test_captions_of_a_batch_belong_to_its_pictures(store):
    import random

    captioner = Captioner(store, TINY)
    names = captioner.gemma
    for batch in captioner.pool(random.Random(0), np.arange(250)):
        for row, index in enumerate(batch.indices):
            words = set(names.convert_ids_to_tokens(batch.ids[row][batch.mask[row] == 1]))
            if len(words) == 1:
                continue  # an empty caption
            scene = store.scene(int(index))
            other = {
                f"{c}_hair" for c in ("black", "brown", "blonde", "red", "orange", "pink", "purple", "blue")
            }
            assert words & other <= {f"{c.hair_color}_hair" for c in scene.characters}


def test_only_a_caption_gets_a_system_prompt():
    assert with_system_prompt("") == ""
    assert "xml format" in with_system_prompt("<general_tags></general_tags>")
    assert "xml format" not in with_system_prompt("1girl, solo")


def test_flow_loss_is_zero_at_the_target_and_weighs_places():
    target = torch.randn(2, 16, 4, 4)
    weight = torch.ones(2, 1, 4, 4)
    assert flow_loss(target, target, weight, 0.5).item() == pytest.approx(0, abs=1e-6)
    wrong = target.clone()
    wrong[..., 0, 0] += 1
    heavy = weight.clone()
    heavy[..., 0, 0] = 3
    assert flow_loss(wrong, target, heavy, 0.5) > 2.9 * flow_loss(wrong, target, weight, 0.5)


def test_autoencoder_learns_a_picture():
    torch.manual_seed(0)
    recipe = AutoencoderRecipe(
        encoder_channels=(8, 16, 16, 32),
        decoder_channels=(8, 16, 16, 32),
        encoder_layers=(0, 1, 1, 1),
        decoder_layers=(0, 1, 1, 1),
    )
    model = build_autoencoder(recipe)
    picture = np.zeros((2, 32, 32, 3), dtype=np.uint8)
    picture[:, 8:24, 8:24] = (220, 40, 40)
    before = psnr(model, picture, torch.device("cpu"))[0]
    x = torch.from_numpy(picture).permute(0, 3, 1, 2).float() / 127.5 - 1
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        latent = model.encode(x, return_dict=False)[0]
        assert latent.shape == (2, 16, 4, 4)
        out = model.decode(latent, return_dict=False)[0]
        loss = reconstruction_loss(out, x, torch.ones(2, 1, 32, 32), 0.1)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert psnr(model, picture, torch.device("cpu"))[0] > before + 8
