"""The table of docs/troubleshooting.md: every known failure has a row, every row tests that exist."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from newbie_image.bundle import TextSettings
from newbie_image.checkpoints.convert import convert
from newbie_image.checkpoints.opening import open_model
from newbie_image.checkpoints.recognise import recognise
from newbie_image.errors import CheckpointError, DeviceError
from newbie_image.models.attention import check_backend
from newbie_image.text import EncoderInput, encode_tokens, tokenize
from tests import tiny

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
ROWS = [line for line in PAGE.splitlines() if line.startswith("| `")]
SEARCHED_FOR = (
    "tensors used as indices must be long, byte or bool",
    "long, int, byte or bool tensors",
    "arrays used as indices must be of integer (or boolean) type",
    "'float' object cannot be interpreted as an integer",
    "expected scalar type Float but found BFloat16",
    "KeyError: 'input_ids'",
    "OSError",
    "Unable to load weights",
    "CUDA out of memory",
    "trust_remote_code",
    "flash_attn",
)
CODE = "from pathlib import Path\nPath(__file__).with_name('ran').touch()\nclass Evil:\n    pass\n"


@pytest.mark.parametrize("text", SEARCHED_FOR)
def test_what_people_search_for_has_a_row(text: str) -> None:
    assert any(text in row.split("|")[1] for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=[row.split("`")[1][:40] for row in ROWS])
def test_the_tests_that_a_row_names_exist(row: str) -> None:
    cells = row.strip("|").split("|")
    assert len(cells) == 4
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", cells[3])
    assert named
    for file, name in named:
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, (file, name)


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_the_page_is_linked(name: str) -> None:
    assert "(docs/troubleshooting.md)" in (ROOT / name).read_text(encoding="utf-8")


def test_encoders_get_plain_tensors_from_any_tokenizer() -> None:
    given: list[object] = []

    def tokens(input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        given.extend((input_ids, attention_mask))
        return torch.zeros(*input_ids.shape, 4)

    def pooled(input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        given.extend((input_ids, attention_mask))
        return torch.zeros(len(input_ids), 4)

    texts = [EncoderInput("a girl", "a girl"), EncoderInput("", "")]
    batch = tokenize(texts, tiny.gemma_tokenizer(), tiny.jina_tokenizer(), TextSettings())
    features = encode_tokens(batch, tokens, pooled)
    assert [type(each) for each in given] == [Tensor] * 4
    assert all(each.dtype == torch.int64 for each in given if isinstance(each, Tensor))
    assert features.pooled.shape == (2, 4)


@pytest.mark.parametrize("layout", ["published", "newbie"])
def test_code_in_a_models_folder_is_never_run(
    tiny_bundle: Path, tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "model"
    if layout == "newbie":
        shutil.copytree(tiny_bundle, target)
    else:
        convert(recognise(tiny_bundle), target, layout)
    folders = [folder for folder in target.iterdir() if folder.is_dir()]
    for folder in folders:
        (folder / "evil.py").write_text(CODE)
    # As Jina CLIP v2 asks for its own code; upstream's and diffusers' readers run it when told to.
    remote = {
        "AutoModel": "evil.Evil",
        "AutoConfig": "evil.Evil",
        "AutoTokenizer": ["evil.Evil", "evil.Evil"],
    }
    for path in target.glob("*/tokenizer_config.json"):
        config = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(config | {"auto_map": remote}), encoding="utf-8")
    if layout == "published":
        path = target / "clip_model" / "config.json"
        path.write_text(
            json.dumps({"architectures": ["JinaCLIPModel"], "auto_map": remote}), encoding="utf-8"
        )
    opened = open_model(target)
    assert opened.components["clip_tokenizer"]("a girl").input_ids[0] == 0
    # Nor where a tokenizer's class is nowhere but there: refused or read without it, but nobody is asked.
    questions: list[object] = []
    monkeypatch.setattr("builtins.input", lambda *words: questions.append(words) or "y")
    for path in target.glob("*/tokenizer_config.json"):
        config = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(config | {"tokenizer_class": "Evil"}), encoding="utf-8")
    with contextlib.suppress(CheckpointError):
        open_model(target)
    assert questions == []
    assert not list(tmp_path.rglob("ran"))


@pytest.mark.skipif(importlib.util.find_spec("flash_attn") is not None, reason="flash-attn is installed here")
def test_flash_attention_that_is_not_installed_gives_the_pip_line() -> None:
    with pytest.raises(DeviceError, match=r"pip install flash-attn.*'sdpa'"):
        check_backend("flash", "cuda")
