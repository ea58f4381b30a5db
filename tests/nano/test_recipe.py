"""What a recipe says of its training reaches the bundle's settings."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from newbie_image.bundle import read_settings, write_settings
from newbie_image.errors import RequestError
from newbie_image.nano.autoencoder import AutoencoderRecipe, build_autoencoder
from newbie_image.nano.latents import LatentStatistics, write_statistics
from newbie_image.nano.parts import Parts, TransformerRecipe
from newbie_image.nano.recipe import Recipe, Workshop

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
)
NARROW = AutoencoderRecipe(
    encoder_channels=(8,) * 4, decoder_channels=(8,) * 4, encoder_layers=(0, 0, 0, 1), decoder_layers=(0,) * 4
)


def test_the_bindings_of_training_stand_in_the_bundle(tmp_path: Path) -> None:
    recipe = Recipe(transformer=TINY, autoencoder=NARROW)
    assert asdict(recipe)["trained_bindings"] == ("off", "text", "region", "full")
    build_autoencoder(NARROW).save_pretrained(tmp_path / "autoencoder" / "vae")
    write_statistics(tmp_path / "latents", LatentStatistics((0.0,) * 16, (1.0,) * 16))
    for trained in (recipe.trained_bindings, ("region", "sealed")):
        workshop = Workshop(tmp_path, replace(recipe, trained_bindings=trained), torch.device("cpu"))
        write_settings(tmp_path, workshop.pipeline(Parts(TINY)).settings)
        text = read_settings(tmp_path).text
        assert (text.auto_binding, text.trained_bindings) == ("region", trained)


def test_a_recipe_trains_what_auto_is_to_be() -> None:
    with pytest.raises(RequestError, match=r"'encode' is not among trained_bindings .*; add it"):
        Recipe(auto_binding="encode")
