"""What a recipe says of its training reaches the bundle's settings."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from newbie_image.bundle import read_settings, write_settings
from newbie_image.errors import RequestError
from newbie_image.nano.autoencoder import build_autoencoder
from newbie_image.nano.latents import LatentStatistics, write_statistics
from newbie_image.nano.parts import Parts
from newbie_image.nano.recipe import Recipe, Workshop
from newbie_image.nano.timed_run import card_recipe


def test_the_bindings_of_training_stand_in_the_bundle(tmp_path: Path) -> None:
    recipe = card_recipe("tiny")
    assert asdict(recipe)["trained_bindings"] == ("off", "text", "region", "full")
    build_autoencoder(recipe.autoencoder).save_pretrained(tmp_path / "autoencoder" / "vae")
    write_statistics(tmp_path / "latents", LatentStatistics((0.0,) * 16, (1.0,) * 16))
    for trained in (recipe.trained_bindings, ("region", "sealed")):
        workshop = Workshop(tmp_path, replace(recipe, trained_bindings=trained), torch.device("cpu"))
        write_settings(tmp_path, workshop.pipeline(Parts(recipe.transformer)).settings)
        text = read_settings(tmp_path).text
        assert (text.auto_binding, text.trained_bindings) == ("region", trained)


def test_a_recipe_trains_what_auto_is_to_be() -> None:
    with pytest.raises(RequestError, match=r"'encode' is not among trained_bindings .*; add it"):
        Recipe(auto_binding="encode")
