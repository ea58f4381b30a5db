"""GGUF files as ComfyUI-GGUF writes them: every tensor, the whole model, and each kind of damage."""

from __future__ import annotations

import builtins
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from newbie_image.checkpoints.convert import convert
from newbie_image.checkpoints.files import open_source
from newbie_image.checkpoints.foreign import CONFIG_KEY, load_part
from newbie_image.checkpoints.inspection import describe, verify
from newbie_image.checkpoints.opening import find_checkpoint, open_model
from newbie_image.checkpoints.recognise import recognise
from newbie_image.errors import CheckpointError, MissingDependencyError
from tests import tiny

gguf = pytest.importorskip("gguf", reason="gguf is not installed: pip install 'newbie-image[quant]'")
TYPES = gguf.GGMLQuantizationType


def write_gguf(
    path: Path, state: dict[str, Tensor], kind: str, *, config: dict[str, Any] | None = None, prefix: str = ""
) -> Path:
    """A file as ComfyUI-GGUF's converter writes it: vectors, and rows that do not divide, in F32."""
    writer = gguf.GGUFWriter(path, "lumina2")
    if config is not None:
        writer.add_string(CONFIG_KEY, json.dumps(config))
    for name, value in state.items():
        chosen = TYPES[kind]
        numbers = value.float().numpy()
        if value.ndim == 1 or value.shape[-1] % gguf.GGML_QUANT_SIZES[chosen][0]:
            chosen = TYPES.F32
        writer.add_tensor(prefix + name, gguf.quants.quantize(numbers, chosen), raw_dtype=chosen)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def state(tiny_bundle: Path) -> dict[str, Tensor]:
    return dict(open_model(tiny_bundle).components["transformer"].state_dict())


@pytest.fixture(scope="module")
def config(tiny_bundle: Path) -> dict[str, Any]:
    return dict(json.loads((tiny_bundle / "transformer" / "config.json").read_text()))


@pytest.mark.parametrize(
    ("kind", "error", "dtype"),
    [
        ("F32", 0.0, torch.float32),
        ("F16", 0.0005, torch.float16),
        ("BF16", 0.005, torch.bfloat16),
        ("Q8_0", 0.01, torch.bfloat16),
        ("Q5_0", 0.06, torch.bfloat16),
        ("Q4_0", 0.12, torch.bfloat16),
    ],
)
def test_every_type_comes_back_and_loads_in_one_dtype(
    kind: str,
    error: float,
    dtype: torch.dtype,
    state: dict[str, Tensor],
    config: dict[str, Any],
    tmp_path: Path,
) -> None:
    path = write_gguf(tmp_path / "x.gguf", state, kind, config=config, prefix="model.diffusion_model.")
    source = open_source(path)
    assert source.metadata["general.architecture"] == "lumina2"
    model = load_part("transformer", path, source, None)
    assert {value.dtype for value in model.parameters()} == {dtype}
    exact = load_part("transformer", path, source, torch.float32)
    for name, value in exact.state_dict().items():
        assert value.dtype == torch.float32
        assert float((value - state[name]).norm()) <= error * float(state[name].norm())
    said = next(iter(describe(recognise(path)))).dtypes
    assert (kind if kind.startswith("Q") else {"F32": "fp32", "F16": "fp16", "BF16": "bf16"}[kind]) in said


def test_k_quants_come_back_as_the_package_brings_them_back(tmp_path: Path) -> None:
    # The package writes no K quants, so blocks of random bytes with sane scales stand for one.
    generator = np.random.default_rng(0)
    writer = gguf.GGUFWriter(tmp_path / "k.gguf", "lumina2")
    expected = {}
    for kind in (TYPES.Q4_K, TYPES.Q6_K):
        size = gguf.GGML_QUANT_SIZES[kind][1]
        blocks = generator.integers(0, 256, (6, 2, size), dtype=np.uint8)
        scales = blocks[..., :4] if kind == TYPES.Q4_K else blocks[..., -2:]
        scales[...] = np.frombuffer(np.float16(0.01).tobytes(), np.uint8).tolist() * (scales.shape[-1] // 2)
        writer.add_tensor(kind.name, blocks.reshape(6, -1), raw_dtype=kind)
        expected[kind.name] = gguf.quants.dequantize(blocks.reshape(6, -1), kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    source = open_source(tmp_path / "k.gguf")
    for name, numbers in expected.items():
        assert source.shapes[name] == (6, 512)
        assert source.format_of(name) == name
        assert torch.equal(source.get(name), torch.from_numpy(numbers))


def test_a_transformer_in_gguf_beside_the_other_parts(
    state: dict[str, Tensor], config: dict[str, Any], tiny_bundle: Path, tmp_path: Path
) -> None:
    place = tmp_path / "model"
    convert(recognise(tiny_bundle), place, "comfyui")
    whole = recognise(place)
    whole.parts["transformer"].unlink()
    (place / "unet").mkdir()
    file = write_gguf(place / "unet" / "x-Q8_0.gguf", state, "Q8_0", config=config)
    checkpoint = recognise(place)
    assert checkpoint.parts["transformer"] == file
    assert list(verify(checkpoint)) == []
    opened = open_model(tiny_bundle, torch.float32, parts={"transformer": file})
    assert opened.part_hashes["transformer"].startswith("x-Q8_0.gguf sha256")
    for name, value in opened.components["transformer"].state_dict().items():
        assert torch.allclose(value, state[name], atol=0.02)
    assert find_checkpoint(file).missing == ("text_encoder", "clip_model", "vae")
    # Written out it is whole numbers no longer, and never float32 unless asked.
    convert(find_checkpoint(tiny_bundle, {"transformer": file}), tmp_path / "out", "newbie")
    written = open_source(tmp_path / "out" / "transformer")
    assert set(written.dtypes.values()) == {torch.bfloat16}


def refusal(job: Callable[[], Any], kind: type[Exception] = CheckpointError) -> str:
    with pytest.raises(kind) as caught:
        job()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_damage_is_named(
    state: dict[str, Tensor], config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = write_gguf(tmp_path / "good.gguf", state, "Q8_0", config=config).read_bytes()
    bad = tmp_path / "bad.gguf"

    def damaged(content: bytes) -> Callable[[], Any]:
        bad.write_bytes(content)
        return lambda: recognise(bad)

    assert "0 bytes" in refusal(damaged(b""))
    assert "do not begin" in refusal(damaged(b"PK\x03\x04" + good[4:]))
    assert "Git LFS" in refusal(damaged(b"version https://git-lfs"))
    for size in (30, len(good) // 8, len(good) // 2, len(good) - 64):
        assert "damaged or cut short" in refusal(damaged(good[:size])), size
    # The type of a tensor stands behind its name, its number of dimensions and these.
    name = b"layers.0.attention.qkv.weight"
    place = good.index(name) + len(name) + 4 + 2 * 8
    assert struct.unpack_from("<I", good, place) == (TYPES.Q8_0,)
    strange = good[:place] + struct.pack("<I", 999) + good[place + 4 :]
    assert "quantisation type 999" in refusal(damaged(strange))

    lacking = {name: value for name, value in state.items() if name != "x_embedder.bias"}
    file = write_gguf(tmp_path / "lacking.gguf", lacking, "Q8_0", config=config)
    assert "1 missing (x_embedder.bias)" in refusal(
        lambda: load_part("transformer", file, open_source(file), None)
    )
    encoder = tiny.text_encoder(300).state_dict()
    names = {f"blk.{i}.attn_q.weight": value for i, value in enumerate(encoder.values()) if value.ndim == 2}
    llama = write_gguf(tmp_path / "gemma.gguf", names, "Q8_0")
    assert "no part of this model" in refusal(lambda: recognise(llama))
    assert "cannot be the transformer" in refusal(
        lambda: load_part("transformer", llama, open_source(llama), None)
    )

    plain_import = builtins.__import__

    def without_gguf(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("gguf"):
            raise ImportError(name)
        return plain_import(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without_gguf)
    assert "newbie-image[quant]" in refusal(lambda: open_source(file), MissingDependencyError)
