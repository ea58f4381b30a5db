"""The table of docs/layouts.md: each layout read, verified, converted into each that is written, and refused
when damaged. The rows are made by these tests, and the page has to say the same.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from newbie_image.checkpoints.convert import WRITTEN, convert
from newbie_image.checkpoints.inspection import verify
from newbie_image.checkpoints.opening import find_checkpoint, open_model
from newbie_image.checkpoints.recognise import Checkpoint, recognise
from newbie_image.errors import CheckpointError
from tests.checkpoints.layout_files import ORDER, Written, table_rows, weights_of, write_layouts

PAGE = Path(__file__).parents[2] / "docs" / "layouts.md"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Written]:
    return write_layouts(tmp_path_factory.mktemp("layouts"))


@pytest.fixture(scope="module")
def original(written: dict[str, Written]) -> dict[str, torch.Tensor]:
    return weights_of(recognise(written["newbie"].path))


@pytest.fixture(scope="module")
def outcomes() -> dict[str, dict[str, str]]:
    return {layout: {} for layout in ORDER}


def opened(layout: Written) -> Checkpoint:
    return find_checkpoint(layout.path, layout.parts)


def same(found: dict[str, torch.Tensor], original: dict[str, torch.Tensor]) -> bool:
    """To the bit, but for `norm_final`, which no program uses and diffusers has no place for."""
    unused = "transformer.norm_final.weight"
    names = original.keys() - {unused}
    return found.keys() - {unused} == names and all(
        torch.equal(found[name].reshape(original[name].shape), original[name]) for name in names
    )


@pytest.mark.parametrize("layout", ORDER)
def test_read_and_verified(
    written: dict[str, Written],
    original: dict[str, torch.Tensor],
    outcomes: dict[str, dict[str, str]],
    layout: str,
) -> None:
    checkpoint = opened(written[layout])
    assert checkpoint.layout == layout
    assert same(weights_of(checkpoint), original)
    model = open_model(written[layout].path, parts=written[layout].parts)
    state = model.components["transformer"].state_dict()
    assert torch.equal(state["x_embedder.weight"], original["transformer.x_embedder.weight"])
    outcomes[layout]["read"] = "with the other parts" if written[layout].parts else "yes"
    assert list(verify(checkpoint)) == []
    outcomes[layout]["verify"] = "yes"


@pytest.mark.parametrize("target", WRITTEN)
@pytest.mark.parametrize("layout", ORDER)
def test_converted(
    written: dict[str, Written],
    original: dict[str, torch.Tensor],
    outcomes: dict[str, dict[str, str]],
    tmp_path: Path,
    layout: str,
    target: str,
) -> None:
    convert(opened(written[layout]), tmp_path / "out", target)
    assert same(weights_of(recognise(tmp_path / "out")), original)
    assert recognise(tmp_path / "out").layout == target
    outcomes[layout][f"to {target}"] = "to the bit"


@pytest.mark.parametrize("layout", ORDER)
def test_refused_when_damaged(
    written: dict[str, Written], outcomes: dict[str, dict[str, str]], tmp_path: Path, layout: str
) -> None:
    file = written[layout].transformer
    whole = file.read_bytes()
    file.write_bytes(whole[:-300])
    try:
        with pytest.raises(CheckpointError) as caught:
            open_model(written[layout].path, parts=written[layout].parts)
        assert "\n" not in str(caught.value)
        assert file.name in str(caught.value)
        with pytest.raises(CheckpointError, match=file.name):
            convert(opened(written[layout]), tmp_path / "out", "newbie")
        assert not (tmp_path / "out").exists()
    finally:
        file.write_bytes(whole)
    outcomes[layout]["refuse damaged"] = "yes"


def test_the_page_says_what_was_found(outcomes: dict[str, dict[str, str]]) -> None:
    if any(len(cells) < 3 + len(WRITTEN) for cells in outcomes.values()):
        pytest.skip("run the whole file: the table is made of all its tests")
    assert "\n".join(table_rows(outcomes)) in PAGE.read_text(encoding="utf-8")
