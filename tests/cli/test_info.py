"""`newbie info` says what there is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from newbie_image import bundle
from newbie_image.cli.app import app


def test_info_names_device_dtype_attention_and_bundles(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "bundle_places", lambda: (tiny_bundle.parent,))
    done = CliRunner().invoke(app, ["info", "--json", "--device", "cpu", "--dtype", "fp32"])
    facts = json.loads(done.stdout)
    assert (facts["device"], facts["dtype"]) == ("cpu", "fp32")
    assert "sdpa" in facts["attention"]
    assert facts["versions"]["torch"]
    assert [entry["name"] for entry in facts["bundles"]] == ["tiny"]
    assert facts["bundles"][0]["content_hash"].startswith("sha256:")
    assert facts["bundles"][0]["presets"] == "quick"
    text = CliRunner().invoke(app, ["info", "--device", "cpu"]).stdout
    assert "Random weights, for tests." in text
    assert "device         cpu" in text


def test_a_damaged_bundle_is_listed_with_its_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "bundle_places", lambda: (tmp_path,))
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / bundle.INDEX_FILE).write_text("{}")
    done = CliRunner().invoke(app, ["info", "--brief"])
    assert done.exit_code == 0
    assert "newbie.json is missing" in done.stdout


def test_an_unknown_device_is_one_line() -> None:
    done = CliRunner().invoke(app, ["info", "--device", "tpu"])
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1


def test_vaes_are_listed_with_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEWBIE_MODELS", str(tmp_path))
    monkeypatch.setenv("NEWBIE_VAES", str(tmp_path / "mine.toml"))
    (tmp_path / "mine.toml").write_text('[vae.mine]\npath = "x"\nabout = "crisp"\n', encoding="utf-8")
    said = CliRunner().invoke(app, ["info", "--brief"]).stdout
    assert "newbie weights download flux-vae" in said
    assert "crisp" in said
    facts = json.loads(CliRunner().invoke(app, ["info", "--brief", "--json"]).stdout)
    assert {entry["name"] for entry in facts["vaes"]} >= {"nano", "flux", "mine"}
    (tmp_path / "mine.toml").write_text("[vae", encoding="utf-8")
    done = CliRunner().invoke(app, ["info", "--brief"])
    assert done.exit_code == 0
    assert "not valid TOML" in done.stdout
