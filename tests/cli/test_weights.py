"""`newbie weights` from the outside."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from newbie_image.cli.app import app

runner = CliRunner()


def test_inspect_verify_and_convert(tiny_bundle: Path, tmp_path: Path) -> None:
    said = runner.invoke(app, ["weights", "inspect", str(tiny_bundle), "--json"])
    assert said.exit_code == 0
    facts = json.loads(said.output)
    assert facts["layout"] == "newbie"
    assert [part["name"] for part in facts["parts"]] == ["transformer", "text_encoder", "clip_model", "vae"]
    target = tmp_path / "comfy"
    said = runner.invoke(app, ["weights", "convert", str(tiny_bundle), str(target), "--to", "comfyui"])
    assert said.exit_code == 0
    assert all(Path(line).is_file() for line in said.output.splitlines())
    said = runner.invoke(app, ["weights", "verify", str(target)])
    assert said.exit_code == 0
    assert "layout comfyui, 4 parts, all sound" in said.output
    said = runner.invoke(app, ["weights", "inspect", str(target)])
    assert "config from metadata" in said.output


@pytest.mark.parametrize("command", ["verify", "inspect"])
def test_damage_is_a_line_and_exit_code_2(tiny_bundle: Path, tmp_path: Path, command: str) -> None:
    copy = Path(shutil.copytree(tiny_bundle, tmp_path / "copy"))
    file = copy / "vae" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    said = runner.invoke(app, ["weights", command, str(copy)])
    assert said.exit_code == 2
    lines = [line for line in said.output.splitlines() if "error:" in line]
    assert len(lines) == 1
    assert "incomplete" in lines[0]
    assert "Traceback" not in said.output
