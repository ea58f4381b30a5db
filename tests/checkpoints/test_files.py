"""Weight files as sources: pickles without their code, shards, and plans made real."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from newbie_image.checkpoints.files import open_source
from newbie_image.checkpoints.layouts import Piece
from newbie_image.errors import CheckpointError

STATE = {"a.weight": torch.arange(6.0).view(3, 2), "b.weight": torch.ones(2, 2, dtype=torch.bfloat16)}


class Malicious:
    """A pickle that would run something when it is opened."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return (_write, (str(self.target), "ran"))


def _write(path: str, text: str) -> None:
    Path(path).write_text(text, encoding="utf-8")


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        open_source(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


@pytest.mark.parametrize("name", ["model.safetensors", "model.bin", "model.pth"])
def test_every_kind_of_file_gives_the_same_tensors(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    save_file(STATE, path, {"note": "x"}) if name.endswith("safetensors") else torch.save(STATE, path)
    for source in (open_source(path), open_source(tmp_path)):
        assert source.shapes == {"a.weight": (3, 2), "b.weight": (2, 2)}
        assert source.dtypes == {"a.weight": torch.float32, "b.weight": torch.bfloat16}
        assert all(torch.equal(source.get(key), value) for key, value in STATE.items())


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_a_nested_state_is_found(tmp_path: Path, key: str) -> None:
    torch.save({key: STATE, "step": 3}, tmp_path / "x.pth")
    assert set(open_source(tmp_path / "x.pth").shapes) == set(STATE)


def test_a_file_of_an_old_torch_is_read(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "x.bin", _use_new_zipfile_serialization=False)
    assert torch.equal(open_source(tmp_path / "x.bin").get("a.weight"), STATE["a.weight"])


@pytest.mark.parametrize("new", [True, False])
def test_code_in_a_pickle_is_not_run(tmp_path: Path, new: bool) -> None:
    path, target = tmp_path / "x.bin", tmp_path / "ran"
    torch.save({**STATE, "z": Malicious(target)}, path, _use_new_zipfile_serialization=new)
    assert "code could run" in refusal(path)
    assert not target.exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_pickles_of_other_kinds_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(pickle.dumps({"a": 1}))
    refusal(path)
    path.write_bytes(b"")
    assert "empty" in refusal(path)
    path.write_bytes(b"not a zip at all" * 9)
    refusal(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hello", "world")
    refusal(path)
    torch.save([1, 2], path)
    assert "without tensors" in refusal(path)
    whole = tmp_path / "y.bin"
    torch.save(STATE, whole)
    path.write_bytes(whole.read_bytes()[:-200])
    refusal(path)


def test_a_folder_must_leave_no_doubt(tmp_path: Path) -> None:
    assert "no weight file" in refusal(tmp_path)
    assert "missing" in refusal(tmp_path / "absent")
    save_file(STATE, tmp_path / "one.safetensors")
    save_file(STATE, tmp_path / "two.safetensors")
    assert "one.safetensors, two.safetensors" in refusal(tmp_path)
    (tmp_path / "x.txt").write_text("", encoding="utf-8")
    assert "no weight file" in refusal(tmp_path / "x.txt")


def test_pieces_are_stacked_cut_and_shaped(tmp_path: Path) -> None:
    save_file(
        {"q": torch.zeros(2, 3), "k": torch.ones(1, 3), "c": torch.ones(4, 3, 1, 1)},
        tmp_path / "x.safetensors",
    )
    source = open_source(tmp_path / "x.safetensors")
    for piece, shape in (
        (Piece(("q", "k")), (3, 3)),
        (Piece(("q", "k"), (1, 3)), (2, 3)),
        (Piece(("c",), shape=(4, 3)), (4, 3)),
        (Piece(("q",)), (2, 3)),
    ):
        assert source.shape_of(piece) == shape
        assert tuple(source.make(piece).shape) == shape
    assert source.make(Piece(("q", "k"), (1, 3)))[:, 0].tolist() == [0.0, 1.0]


def test_whole_tensors_of_a_safetensors_file_are_not_copied(tmp_path: Path) -> None:
    """A tensor of 64 MiB is given without 64 MiB of memory: it is a view of the mapped file."""
    import resource

    save_file({"big": torch.zeros(16, 2**20)}, tmp_path / "x.safetensors")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tensor = open_source(tmp_path / "x.safetensors").get("big")
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert tensor.shape == (16, 2**20)
    assert (after - before) * 1024 < 32 * 2**20
