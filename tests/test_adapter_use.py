"""Adapters in a picture's record: there and back, as A1111 writes them, and damaged."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from newbie_image.adapter_use import AdapterUse
from newbie_image.errors import ProvenanceError
from newbie_image.provenance import BundleIdentity, PictureRecord, from_json, parameters_text, to_json
from newbie_image.request import GenerationRequest

USE = AdapterUse("style", "style.safetensors", "ab" * 32, 0.8)
OTHER = AdapterUse("glow", "glow/adapter_model.safetensors", "cd" * 32, -1.5, "ef" * 32, fused=True)
RECORD = PictureRecord(
    GenerationRequest("1girl\n", "bad", steps=2), 0, BundleIdentity("tiny", "sha256:" + "0" * 64), "f" * 64,
    adapters=(USE, OTHER),
)  # fmt: skip


def test_there_and_back() -> None:
    assert from_json(to_json(RECORD)).adapters == (USE, OTHER)
    without = replace(RECORD, adapters=())
    assert "adapters" not in json.loads(to_json(without))
    assert from_json(to_json(without)).adapters == ()


def test_as_a1111_writes_them() -> None:
    text = parameters_text(RECORD)
    assert text.startswith("1girl <lora:style:0.8> <lora:glow:-1.5>\nNegative prompt: bad\nSteps: 2, ")
    assert 'Lora hashes: "style: ababababab, glow: cdcdcdcdcd"' in text
    odd = AdapterUse("a:b>, c\nd", "x.safetensors", "ab" * 32)
    assert odd.note == "<lora:a_b__ c_d:1>"
    assert "Lora hashes" not in parameters_text(replace(RECORD, adapters=()))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sha256": "ab"}, "64 hexadecimal digits"),
        ({"sha256": None}, "64 hexadecimal digits"),
        ({"config_sha256": "../../etc"}, "64 hexadecimal digits"),
        ({"scale": "0.8"}, "scale is '0.8'"),
        ({"scale": float("nan")}, "scale is nan"),
        ({"fused": 1}, "another kind"),
        ({"file": ["x"]}, "another kind"),
        ({"strength": 1.0}, "strength"),
    ],
)
def test_damage_is_named(change: dict[str, Any], said: str) -> None:
    document = json.loads(to_json(RECORD))
    document["adapters"][1] |= change
    with pytest.raises(ProvenanceError, match=said):
        from_json(json.dumps(document))
    document["adapters"] = {"style": 1}
    with pytest.raises(ProvenanceError, match="no list of objects"):
        from_json(json.dumps(document))
