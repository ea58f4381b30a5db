"""Downloads from a server that breaks off: gone on with, checked, and never begun without the licence."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from newbie_image.bundle import find_bundle
from newbie_image.checkpoints import download as downloads
from newbie_image.checkpoints.checksums import check_sums
from newbie_image.checkpoints.download import TRIES, check_room, download
from newbie_image.checkpoints.sources import Listing, find_model, known_models, list_files
from newbie_image.cli.app import app
from newbie_image.errors import CheckpointError, NewbieError, OutputError, RequestError
from tests.checkpoints.broken_server import Hub, serving

WEIGHTS = "transformer/model.safetensors"
BIG = random.Random(0).randbytes(3 * 2**20 + 17)
FILES = {WEIGHTS: BIG, "config.json": b"{}", "run_me.py": b"print()", "weights.bin": b"pickle"}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with serving(Hub(dict(FILES))) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.address)
        monkeypatch.setenv("MODELSCOPE_DOMAIN", running.address)
        monkeypatch.setenv("NEWBIE_MODELS", str(tmp_path / "models"))
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setattr(downloads, "_BLOCK", 2**16)
        yield running


def listed(source: str = "huggingface") -> Listing:
    return list_files(find_model("owner/model", source), source)


def fetch(listing: Listing, folder: Path) -> list[downloads.DownloadProgress]:
    return list(download(listing, folder, wait=0.0))


def refusal(listing: Listing, folder: Path, kind: type[NewbieError] = CheckpointError) -> str:
    with pytest.raises(kind) as caught:
        fetch(listing, folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("source", ["huggingface", "modelscope"])
def test_a_connection_that_breaks_is_gone_on_with(hub: Hub, tmp_path: Path, source: str) -> None:
    listing = listed(source)
    assert [file.path for file in listing.files] == ["config.json", WEIGHTS]
    hub.break_after = [2, 2**20, 2**20 + 1]
    seen = fetch(listing, tmp_path / "x")
    assert (tmp_path / "x" / WEIGHTS).read_bytes() == BIG
    assert sorted(path.name for path in (tmp_path / "x").rglob("*") if path.is_file()) == [
        "config.json",
        "model.safetensors",
    ]
    assert hub.ranges_asked(WEIGHTS) == [None, f"bytes={2**20}-", f"bytes={2 * 2**20 + 1}-"]
    done = [at.done for at in seen]
    assert done == sorted(done)
    assert done[-1] == listing.size == len(BIG) + 2


@pytest.mark.parametrize("source", ["huggingface", "modelscope"])
def test_a_run_that_was_stopped_is_gone_on_with_by_the_next(hub: Hub, tmp_path: Path, source: str) -> None:
    listing = listed(source)
    run = download(listing, tmp_path)
    for at in run:
        if at.done > 2**20:
            run.close()
            break
    assert not (tmp_path / WEIGHTS).exists()
    missing = check_room(listing, tmp_path)
    assert 0 < missing < len(BIG) - 2**20 + 2**17
    hub.asked.clear()
    fetch(listing, tmp_path)
    assert (tmp_path / WEIGHTS).read_bytes() == BIG
    assert hub.ranges_asked(WEIGHTS) == [f"bytes={len(BIG) - missing}-"]
    assert hub.ranges_asked("config.json") == []
    hub.asked.clear()
    fetch(listing, tmp_path)
    assert hub.asked == []


def test_a_server_that_gives_nothing_more_is_given_up_after_some_tries(hub: Hub, tmp_path: Path) -> None:
    hub.break_after = [10**9, 2**20, *[0] * TRIES]
    message = refusal(listed(), tmp_path)
    assert f"broke off at {2**20} of {len(BIG)} bytes" in message
    assert "run the same again" in message
    fetch(listed(), tmp_path)
    assert hub.ranges_asked(WEIGHTS)[-1] == f"bytes={2**20}-"
    assert (tmp_path / WEIGHTS).read_bytes() == BIG


def test_a_server_without_ranges_begins_again(hub: Hub, tmp_path: Path) -> None:
    hub.ranges = False
    hub.break_after = [10**9, 2**20]
    fetch(listed(), tmp_path)
    assert (tmp_path / WEIGHTS).read_bytes() == BIG


@pytest.mark.parametrize("source", ["huggingface", "modelscope"])
def test_other_content_than_its_checksum_is_not_kept(hub: Hub, tmp_path: Path, source: str) -> None:
    hub.wrong = {WEIGHTS}
    assert "another checksum" in refusal(listed(source), tmp_path)
    assert not (tmp_path / WEIGHTS).exists()
    assert not list(tmp_path.rglob("*.part"))


def test_what_is_there_is_checked_and_never_overwritten(hub: Hub, tmp_path: Path) -> None:
    fetch(listed(), tmp_path)
    (tmp_path / WEIGHTS).write_bytes(BIG[:-1] + b"x")
    assert "another checksum" in refusal(listed(), tmp_path, OutputError)
    (tmp_path / WEIGHTS).write_bytes(b"mine")
    assert "move it away" in refusal(listed(), tmp_path, OutputError)
    assert (tmp_path / WEIGHTS).read_bytes() == b"mine"


def test_a_disk_without_room_is_said_before_the_first_byte(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**6))
    assert "0.00 GB free" in refusal(listed(), tmp_path / "new", OutputError)
    assert hub.asked == []
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("status", "words"), [(403, "accept them on"), (410, "answered 410")])
def test_refusals_say_what_to_do(hub: Hub, tmp_path: Path, status: int, words: str) -> None:
    hub.status = status
    assert words in refusal(listed(), tmp_path)
    assert len(hub.asked) == 1


def test_a_token_stays_with_its_host(hub: Hub, tmp_path: Path) -> None:
    """Hubs redirect to a storage of another host, which must not see it."""
    with serving(Hub(dict(FILES))) as storage:
        hub.storage = storage.address.replace("127.0.0.1", "localhost")
        fetch(listed(), tmp_path)
        assert (tmp_path / WEIGHTS).read_bytes() == BIG
        assert {token for _, _, token in storage.asked} == {None}
    hub.storage = None
    fetch(listed(), tmp_path / "again")
    assert {token for _, _, token in hub.asked} == {"Bearer hf_secret"}


def test_paths_that_lead_outside_are_refused(hub: Hub) -> None:
    hub.files["../x.json"] = b"{}"
    with pytest.raises(CheckpointError, match="outside of it"):
        listed()


def test_names_are_known_or_nearly(hub: Hub) -> None:
    with pytest.raises(RequestError, match=r"did you mean newbie-exp0\.1"):
        find_model("newbie-exp01")
    with pytest.raises(RequestError, match="OWNER/NAME"):
        find_model("zzz")
    with pytest.raises(RequestError, match="huggingface, modelscope"):
        find_model("flux-vae", "ftp")
    with pytest.raises(RequestError, match="not known on modelscope"):
        find_model("taef1", "modelscope")
    assert all(
        model.licence and model.licence_page.startswith("https://") for model in known_models().values()
    )


def test_a_source_that_has_it_not_or_is_not_there(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    for source in ("huggingface", "modelscope"):
        with pytest.raises(CheckpointError, match="none of the files"):
            list_files(find_model("owner/model", source), source, patterns=("*.gguf",))
    with pytest.raises(CheckpointError, match="other/model"):
        list_files(find_model("other/model"))
    monkeypatch.setenv("MODELSCOPE_DOMAIN", "http://127.0.0.1:9")
    with pytest.raises(CheckpointError, match="cannot be asked"):
        listed("modelscope")


def test_the_command_shows_the_licence_before_the_first_byte(hub: Hub, tmp_path: Path) -> None:
    runner = CliRunner()
    refused = runner.invoke(app, ["weights", "download", "owner/model"])
    assert refused.exit_code == 2
    assert "licence: the repository says: cc-by-nc-4.0" in refused.stderr
    assert "--accept-licence" in refused.stderr
    assert hub.asked == []
    done = runner.invoke(app, ["weights", "download", "owner/model", "--accept-licence"])
    assert done.exit_code == 0, done.stderr
    folder = tmp_path / "models" / "model"
    assert Path(done.stdout.strip()) == folder
    assert (folder / WEIGHTS).read_bytes() == BIG
    assert find_bundle("model") == folder
    only = ["--include", "*.json", "--to", str(tmp_path / "y"), "--source", "modelscope"]
    done = runner.invoke(app, ["weights", "download", "owner/model", "--accept-licence", *only])
    assert sorted(path.name for path in (tmp_path / "y").iterdir()) == ["SHA256SUMS", "config.json"]
    # What the source said stays with the files, so that a byte changed later is found.
    assert check_sums([folder / WEIGHTS]).checked == {"SHA256SUMS": 1}
    (folder / WEIGHTS).write_bytes(BIG[:-1] + b"x")
    assert len(check_sums([folder / WEIGHTS]).wrong) == 1
    said = runner.invoke(app, ["weights", "download"]).stdout
    assert "newbie-exp0.1-comfyui" in said
    assert "Gemma 3" in said
