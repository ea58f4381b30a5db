"""Strict loading: each kind of damage is named in one line, and what is whole is loaded exactly."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from newbie_image.checkpoints.load import PICKLE_NAMES, build_and_load, find_weights
from newbie_image.errors import CheckpointError
from newbie_image.models.jina_text import JinaTextModel
from tests import tiny

SINGLE = "diffusion_pytorch_model.safetensors"


def build() -> JinaTextModel:
    return JinaTextModel(
        vocab_size=12, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A component's folder with one whole weight file."""
    torch.manual_seed(0)
    save_file(build().state_dict(), tmp_path / SINGLE)
    return tmp_path


def load(folder: Path, dtype: torch.dtype | None = None) -> JinaTextModel:
    return build_and_load(build, find_weights(folder), dtype)


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert str(folder) in message
    return message


def change(folder: Path, **changes: torch.Tensor | None) -> None:
    """Rewrite the file with tensors replaced, added, or left out (None)."""
    state = load_file(folder / SINGLE)
    for name, value in changes.items():
        name = name.replace("__", ".")
        if value is None:
            del state[name]
        else:
            state[name] = value
    save_file(state, folder / SINGLE)


def shard(folder: Path, separator: str = "") -> None:
    """Split the file into two shards with an index; names in the index may have a folder before them."""
    state = load_file(folder / SINGLE)
    (folder / SINGLE).unlink()
    names = sorted(state)
    placed = {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"model-{number:05d}-of-00002.safetensors"
        target = folder / "shards" if separator else folder
        target.mkdir(exist_ok=True)
        save_file({name: state[name] for name in part}, target / file)
        placed |= dict.fromkeys(part, f"shards{separator}{file}" if separator else file)
    index = {"metadata": {}, "weight_map": placed}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def test_a_whole_file_is_loaded_exactly(folder: Path) -> None:
    model = load(folder)
    for name, value in load_file(folder / SINGLE).items():
        assert torch.equal(model.state_dict()[name], value)
    assert not model.training
    assert not any(p.requires_grad or p.is_meta for p in model.parameters())


def test_floating_weights_are_cast_on_request(folder: Path) -> None:
    model = load(folder, torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in load(folder).parameters()} == {torch.float32}


@pytest.mark.parametrize("separator", ["", "/", "\\"])
def test_shards_are_found_also_by_an_index_written_on_windows(folder: Path, separator: str) -> None:
    before = load(folder).state_dict()
    shard(folder, separator)
    after = load(folder).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_missing_unexpected_and_misshapen_keys_are_listed(folder: Path) -> None:
    change(
        folder,
        emb_ln__weight=None,
        embeddings__word_embeddings__weight=torch.zeros(12, 9),
        pooler__dense__weight=torch.zeros(1),
    )
    message = refusal(folder)
    assert "1 missing (emb_ln.weight)" in message
    assert "1 unexpected (pooler.dense.weight)" in message
    assert "1 misshapen (embeddings.word_embeddings.weight 12×9 instead of 12×8)" in message
    assert "JinaTextModel" in message


def test_a_bundle_of_ours_may_lack_what_no_forward_reads(tmp_path: Path) -> None:
    model = tiny.transformer()
    state = model.state_dict()
    del state["norm_final.weight"]
    save_file(state, tmp_path / SINGLE)
    loaded = build_and_load(tiny.transformer, find_weights(tmp_path)).state_dict()
    assert torch.equal(loaded["norm_final.weight"], torch.ones(64))
    assert all(torch.equal(loaded[name], value) for name, value in state.items())


def test_a_renamed_key_is_missing_and_unexpected(folder: Path) -> None:
    change(folder, emb_ln__weight=None, emb_norm__weight=torch.ones(8))
    message = refusal(folder)
    assert "emb_ln.weight" in message
    assert "emb_norm.weight" in message


def test_a_long_list_is_shortened(folder: Path) -> None:
    save_file({"other": torch.zeros(1)}, folder / SINGLE)
    message = refusal(folder)
    assert "more" in message
    assert len(message) < 600


@pytest.mark.parametrize("cut", [0, 4, 100, -8])
def test_a_truncated_file_is_named_with_its_size(folder: Path, cut: int) -> None:
    path = folder / SINGLE
    path.write_bytes(path.read_bytes()[:cut])
    message = refusal(folder)
    assert SINGLE in message
    assert "copy it again" in message
    if cut == -8:
        assert str(path.stat().st_size) in message
        assert str(path.stat().st_size + 8) in message


def test_what_is_no_safetensors_file_is_named(folder: Path) -> None:
    path = folder / SINGLE
    path.write_bytes(b"PK\x03\x04" + b"zip of a pickle" * 40)
    assert "no safetensors file" in refusal(folder)
    path.write_bytes(struct.pack("<Q", 4) + b"{{{{" + b"x" * 20)
    assert "damaged header" in refusal(folder)
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    assert "git lfs pull" in refusal(folder)


def test_a_missing_or_misnamed_file_says_what_is_there(folder: Path) -> None:
    (folder / SINGLE).rename(folder / "weights.safetensors")
    assert "rename it" in refusal(folder)
    (folder / "weights.safetensors").rename(folder / "model.bin")
    message = refusal(folder)
    assert "no weights" in message
    assert "model.bin" in message


@pytest.mark.parametrize("name", PICKLE_NAMES)
def test_a_pickle_of_tensors_is_loaded_exactly_where_there_are_no_safetensors(
    folder: Path, name: str
) -> None:
    state = load_file(folder / SINGLE)
    torch.save({key: value + 1 for key, value in state.items()}, folder / name)
    assert torch.equal(load(folder).state_dict()["emb_ln.weight"], state["emb_ln.weight"])
    (folder / SINGLE).unlink()
    loaded = load(folder).state_dict()
    assert all(torch.equal(loaded[key], value + 1) for key, value in state.items())


def test_pickles_in_shards_are_loaded_by_their_index(folder: Path) -> None:
    state = load_file(folder / SINGLE)
    (folder / SINGLE).unlink()
    names = sorted(state)
    placed = {name: f"pytorch_model-0000{1 + i % 2}-of-00002.bin" for i, name in enumerate(names)}
    for shard in set(placed.values()):
        torch.save({name: state[name] for name in names if placed[name] == shard}, folder / shard)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": placed}))
    loaded = load(folder).state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())


class Code:
    """What a pickle runs when it is opened without care."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.mkdir, (self.target,)  # type: ignore[return-value]


def test_a_pickle_with_code_is_refused_and_not_run(folder: Path) -> None:
    torch.save({**load_file(folder / SINGLE), "x": Code(folder / "ran")}, folder / PICKLE_NAMES[0])
    (folder / SINGLE).unlink()
    assert "code could run in it" in refusal(folder)
    assert not (folder / "ran").exists()


def test_two_pickles_are_not_guessed_between(folder: Path) -> None:
    for name in PICKLE_NAMES:
        torch.save(load_file(folder / SINGLE), folder / name)
    (folder / SINGLE).unlink()
    assert "keep the one" in refusal(folder)


def test_two_files_are_not_guessed_between(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes((folder / SINGLE).read_bytes())
    assert "keep the one" in refusal(folder)


def test_shards_without_index_and_index_without_shard(folder: Path) -> None:
    shard(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()
    assert "1 of 2 shards are missing" in refusal(folder)
    (folder / "model.safetensors.index.json").unlink()
    assert "copy that file too" in refusal(folder)


@pytest.mark.parametrize("outside", ["../other.safetensors", "..\\other.safetensors", "/etc/x", "C:\\x"])
def test_an_index_that_leads_outside_is_refused(folder: Path, outside: str) -> None:
    index = {"weight_map": {"emb_ln.weight": outside}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    assert "outside of its folder" in refusal(folder)


@pytest.mark.parametrize("content", ["{}", '{"weight_map": []}', '{"weight_map": {"a": 3}}'])
def test_an_index_that_is_none_is_refused(folder: Path, content: str) -> None:
    (folder / "model.safetensors.index.json").write_text(content, encoding="utf-8")
    refusal(folder)


def test_a_tensor_in_another_shard_than_the_index_says(folder: Path) -> None:
    shard(folder)
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text(encoding="utf-8"))
    first, second = sorted(set(index["weight_map"].values()))
    key = next(key for key, file in index["weight_map"].items() if file == first)
    index["weight_map"][key] = second
    path.write_text(json.dumps(index), encoding="utf-8")
    assert "where the index does not have it" in refusal(folder)
