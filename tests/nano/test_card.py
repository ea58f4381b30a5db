"""The model card says what the run's records say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from newbie_image.bundle import find_bundle
from newbie_image.nano.card import write_card


def test_the_embedded_models_card_is_what_its_records_make_of_it(tmp_path: Path) -> None:
    bundle = find_bundle("nano")
    for name in ("recipe.json", "evaluation.json", "binding.json"):
        if (bundle / name).exists():
            shutil.copy(bundle / name, tmp_path / name)
    assert write_card(tmp_path).read_text() == (bundle / "README.md").read_text()


def test_what_was_taught_and_what_binding_gave_is_said(tmp_path: Path) -> None:
    bundle = find_bundle("nano")
    recipe = json.loads((bundle / "recipe.json").read_text())
    recipe["recipe"] |= {"people": 6, "hold_out_pairs": True}
    recipe["recipe"]["transformer"] |= {"apart": 0.6, "regional": 0.65}
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    shutil.copy(bundle / "evaluation.json", tmp_path / "evaluation.json")
    rows = [
        {"name": "xml", "people": {"1": [0.9, 0.5], "2": [0.8, 0.25]}},
        {"name": "region", "people": {"2": [1, 1]}},
    ]
    held = {"words": "Drawn and read.", "command": "newbie nano benchmark", "rows": rows}
    (tmp_path / "binding.json").write_text(json.dumps(held))
    card = write_card(tmp_path).read_text()
    assert "with one to six characters" in card
    assert "60 of 100 captions in XML were encoded by character (binding `text`), of which 65 of 100" in card
    assert "held-out attribute pairs" in card
    assert "- More than six characters" in card
    assert "| pictures | 1 | 2 |" in card
    assert "| xml | 90.0 / 50.0 | 80.0 / 25.0 |" in card
    assert "| region | – | 100.0 / 100.0 |" in card
    assert "Made by `newbie nano benchmark`." in card
