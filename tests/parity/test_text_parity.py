"""Gemma 3 whole, and the reference tokenizer classes, at a size for every run; see compare_text.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.parity.compare_text import (
    TEXTS,
    TINY,
    TOLERANCE,
    compare_gemma,
    compare_tokens,
    reference_tokenizers,
    written_and_read,
)


def test_gemma_equals_the_whole_model_and_runs_less() -> None:
    facts = compare_gemma(TINY, (40, 17, 1))
    assert facts["error"] <= TOLERANCE
    assert facts["from the last layer"] > 1e-2
    assert (facts["theirs ran"], facts["ours ran"]) == (facts["layers"], facts["layers"] - 1)


def test_the_reference_classes_are_as_upstream_needs_them() -> None:
    gemma, jina = reference_tokenizers()
    assert (gemma.bos_token_id, gemma.pad_token_id) == (2, 0)
    assert gemma("").input_ids == [2]
    assert gemma.eos_token_id not in gemma(TEXTS[1]).input_ids
    assert (jina.bos_token_id, jina.pad_token_id, jina.eos_token_id) == (0, 1, 2)
    assert jina("").input_ids == [0, 2]
    assert min(len(each(TEXTS[-1]).input_ids) for each in (gemma, jina)) > 2048


@pytest.mark.parametrize(("limit", "pooled_limit"), [(512, 2048), (64, 16)])
def test_tokens_are_those_of_the_reference_classes(tmp_path: Path, limit: int, pooled_limit: int) -> None:
    same = compare_tokens(*written_and_read(tmp_path), limit=limit, pooled_limit=pooled_limit)
    assert len(same) == 2 * (1 + len(TEXTS))
    assert [name for name, good in same.items() if not good] == []
