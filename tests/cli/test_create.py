"""The loop stays alive whatever it is given."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from newbie_image.cli.create import Loop, help_lines, reweighed
from newbie_image.cli.entry import PipedEntry, is_command, is_complete, open_history
from newbie_image.cli.options import ModelChoice
from newbie_image.cli.session import MODEL_SETTINGS, PICTURE_SETTINGS, Session
from newbie_image.errors import PromptError, RequestError
from newbie_image.provenance import read_picture


def entries(text: str) -> list[str]:
    piped = PipedEntry(io.BytesIO(text.encode()))
    return list(iter(piped.read, None))


def test_a_pipe_is_split_as_a_person_would_type() -> None:
    text = (
        ":steps 3\n\n1girl, smile\n<character_1>\r\n  <n>a</n>\n</character_1>\n\n<3, heart\n:again\n<n>b</n>"
    )
    assert entries(text) == [
        ":steps 3",
        "1girl, smile",
        "<character_1>\r\n  <n>a</n>\n</character_1>",
        "<3, heart",
        ":again",
        "<n>b</n>",
    ]
    piped = PipedEntry(io.BytesIO(b"\xff\n1girl\n"))
    with pytest.raises(PromptError, match="not UTF-8"):
        piped.read()
    assert piped.read() == "1girl"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_costs_an_entry_of_the_history_and_not_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("typer.get_app_dir", lambda name: str(tmp_path))
    (tmp_path / "history").symlink_to("/dev/full")
    history = open_history()
    history.append_string("1girl, smile")
    assert history.get_strings() == ["1girl, smile"]
    (tmp_path / "history").unlink()
    open_history().append_string("1boy")
    assert list(open_history().load_history_strings()) == ["1boy"]


def test_where_an_input_ends() -> None:
    assert not is_complete("")
    assert is_complete("1girl, smile")
    assert is_complete(":steps 3")
    assert not is_complete("<character_1>")
    assert not is_complete("<character_1>\n</character_1>")
    assert is_complete("<character_1>\n</character_1>\n")
    assert is_complete("<3, heart")
    assert is_command(":steps 3")
    assert is_command(":q")
    assert not is_command(":d, smile")
    assert not is_command("1girl")


class Lines:
    """Inputs one after another; an exception is raised in its place."""

    def __init__(self, *inputs: str | type[BaseException]) -> None:
        self._inputs = iter(inputs)

    def read(self) -> str | None:
        found = next(self._inputs, None)
        if isinstance(found, type):
            raise found
        return found


@pytest.fixture
def loop(tiny_bundle: Path, tmp_path: Path) -> type:
    class Prepared:
        def __init__(self, *inputs: str | type[BaseException]) -> None:
            choice = ModelChoice(str(tiny_bundle), device="cpu", dtype="fp32")
            self.session = Session(choice=choice, out=str(tmp_path / "out"))
            self.loop = Loop(self.session, Lines(*inputs))

        def run(self) -> bool:
            return self.loop.run()

        @property
        def pictures(self) -> list[Path]:
            return sorted((tmp_path / "out").glob("*.png"), key=os.path.getmtime)

    return Prepared


def test_pictures_commands_and_mistakes(
    loop: type, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepared = loop(
        ":seed 5",
        ":steps 2",
        "<character_1><n>a</n></character_1>",
        ":save " + str(tmp_path / "kept.png"),
        "<n>broken",
        ":steps none at all",
        ":nonsense",
        ":resolution 32x50",
        ":resolution 32x48",
        ":again",
        ":seed random",
        ":again",
        ":again",
        ":quit",
        "1girl, never drawn",
    )
    assert prepared.run() is False  # a script learns that something in it failed
    said = capsys.readouterr()
    assert len(prepared.pictures) == 4
    records = [read_picture(path)[1] for path in prepared.pictures]
    assert [record.request.steps for record in records] == [2] * 4
    assert [record.request.width for record in records] == [64, 32, 32, 32]
    assert [record.seed for record in records[:2]] == [5, 5]
    assert len({record.seed for record in records}) == 3
    assert {record.request.prompt for record in records} == {"<character_1><n>a</n></character_1>"}
    assert (tmp_path / "kept.png").read_bytes() == prepared.pictures[0].read_bytes()
    errors = said.err.splitlines()
    assert [line.split(";")[0] for line in errors[:1]] == [errors[0].split(";")[0]]
    assert len(errors) == 4
    assert "line 1, column 1" in errors[0]
    assert "give :steps N" in errors[1]
    assert ":nonsense" in errors[2]
    assert "48 and 64" in errors[3]


def test_a_model_that_cannot_be_loaded_leaves_the_old_one(
    loop: type, capsys: pytest.CaptureFixture[str]
) -> None:
    prepared = loop("1girl", ":model no-such-model", ":offload", ":dtype bf16", ":again")
    assert prepared.run() is False
    assert len(prepared.pictures) == 2
    assert read_picture(prepared.pictures[1])[1].environment["dtype"] == "bf16"
    errors = capsys.readouterr().err.splitlines()
    assert "no-such-model" in errors[0]
    assert "needs a GPU" in errors[1]


def test_ctrl_c_stops_the_picture_and_the_loop_goes_on(loop: type, monkeypatch: pytest.MonkeyPatch) -> None:
    from newbie_image.cli import drawing

    steps: list[int] = []
    whole = drawing._progress

    class Pressed:
        """Sends the signal a person's Ctrl-C sends, after the second step of the first picture."""

        def __init__(self, label: str) -> None:
            self._within = whole(label)

        def __enter__(self):
            advance = self._within.__enter__()

            def advancing(done: int, total: int) -> None:
                steps.append(done)
                if steps == [1, 2]:
                    os.kill(os.getpid(), signal.SIGINT)
                advance(done, total)

            return advancing

        def __exit__(self, *exception: object) -> None:
            self._within.__exit__(None, None, None)

    monkeypatch.setattr(drawing, "_progress", Pressed)
    prepared = loop(":steps 6", "1girl", "1boy")
    before = signal.getsignal(signal.SIGINT)
    assert prepared.run() is True
    assert steps == [1, 2, 1, 2, 3, 4, 5, 6]
    assert [read_picture(path)[1].request.prompt for path in prepared.pictures] == ["1boy"]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_ctrl_c_before_the_next_prompt_leaves_too(
    loop: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    from newbie_image.cli import create, drawing

    @contextmanager
    def pressed(label: str) -> Iterator[Callable[[int, int], None]]:
        yield lambda done, total: os.kill(os.getpid(), signal.SIGINT) if done == 2 else None

    def said(text: str) -> None:
        if text.startswith("stopped"):
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(drawing, "_progress", pressed)
    monkeypatch.setattr(create, "say_note", said)
    prepared = loop(":steps 6", "1girl", ":steps 1", "1boy")
    prepared.loop._at_terminal = True
    assert prepared.run() is True
    assert prepared.pictures == []


def test_ctrl_c_at_the_prompt_leaves_the_second_time(loop: type) -> None:
    prepared = loop(KeyboardInterrupt, "1girl", KeyboardInterrupt, KeyboardInterrupt, "1boy")
    prepared.loop._at_terminal = True
    assert prepared.run() is True
    assert len(prepared.pictures) == 1


def test_warnings_count_as_errors_while_that_is_set(loop: type, capsys: pytest.CaptureFixture[str]) -> None:
    prepared = loop(
        *(
            ":steps 1",
            ":warnings-as-errors on",
            "1girl, bleu_hair",
            "1girl",
            ":warnings-as-errors off",
            ":again",
        ),
        "1girl, bleu_hair",
    )
    assert prepared.run() is False
    assert len(prepared.pictures) == 3
    assert "warnings count as errors" in capsys.readouterr().err


def test_what_only_the_model_can_say_counts_as_an_error_too(
    loop: type, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = "<character_1><gender>1girl</gender><appearance>pink_hair</appearance></character_1>"
    prepared = loop(":steps 1", ":binding full", ":warnings-as-errors on", lost)
    assert prepared.run() is False
    assert prepared.pictures == []
    assert "character_1 has no position that can be used" in capsys.readouterr().err


def test_a_weight_that_comes_midway_and_does_not_act_is_said(
    loop: type, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt = "<character_1><appearance>pink_hair, blue_eyes</appearance></character_1>"
    loop(":steps 2", ":binding off", prompt, ":weight pink_hair 2 2").run()
    assert "does not use them; add weights=on, or give auto" in capsys.readouterr().err


def test_every_option_of_the_loop_is_a_command_and_is_explained() -> None:
    text = "\n".join(help_lines())
    for name in (*PICTURE_SETTINGS, *MODEL_SETTINGS):
        assert f":{name} " in text


def test_settings_are_changed_shown_and_set_back() -> None:
    session = Session()
    assert session.change("cfg", "3.5") is False
    assert session.request.guidance_scale == 3.5
    assert dict(session.describe())["cfg"] == "3.5"
    session.change("cfg", "default")
    assert session.request.guidance_scale is None
    session.change("negative", "hat, bad hands")
    session.change("negative", "none")
    assert session.request.negative_prompt == ""
    assert session.change("dtype", "bf16") is True
    assert session.change("dtype", "bf16") is False
    assert session.change("vae", "other") is True
    assert session.change("vae", "default") is True
    assert session.choice.vae is None
    session.change("seed", "12")
    assert session.next_request("a").seed == 12
    before = session.request
    for name, value in [("sampler", "ddim"), ("steps", "1.5"), ("count", "0"), ("preview", "hologram")]:
        with pytest.raises(RequestError):
            session.change(name, value)
    assert session.request == before


def test_a_weight_is_changed_from_the_start_or_from_a_step_on(
    loop: type, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt = "<character_1><appearance>pink_hair, blue_eyes</appearance></character_1>"
    prepared = loop(
        ":weight pink_hair 2",
        ":steps 2",
        prompt,
        ":weight pink_hair 2 2",
        ":weight pink_hair 2 3",
        ":weight character_1.appearance[1] 0.5 1",
        ":weight green_hair 2",
        ":weight pink_hair loud",
        ":weight pink_hair 5",
    )
    prepared.run()
    errors = capsys.readouterr().err.splitlines()
    assert "there is no picture yet" in errors[0]
    # A step that there is not draws nothing, and the last picture is still there to be weighed.
    assert "from step 3 on, but the picture has 2; give" in errors[-4]
    assert "'green_hair' is not in the prompt" in errors[-3]
    assert "give :weight TAG X" in errors[-2]
    assert "outside 0 to 3" in errors[-1]
    plain, midway, whole = (read_picture(path)[1] for path in prepared.pictures)
    assert plain.seed == midway.seed == whole.seed
    assert midway.request.prompt == prompt
    assert [(step, "weight:2" in text) for step, text in midway.request.changes] == [(1, True)]
    assert "weight:0.5" in whole.request.prompt
    assert len({plain.pixels, midway.pixels, whole.pixels}) == 3


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("long_hair -1", "the weight -1 is outside 0 to 3; give one within, 0 to leave the tag out"),
        ("long_hair −.5 6", "the weight −.5 is outside 0 to 3"),
        ("long_hair 5", "the weight 5 is outside 0 to 3"),
        ("long_hair 2 0", "'0' is no step; give :weight TAG X or"),
        ("long_hair 2 -1", "'-1' is no step; give :weight TAG X or"),
        ("long_hair", "is not understood; give :weight TAG X or"),
        ("long_hair loud", "(X is 0 to 3, steps count from 1)"),
    ],
)
def test_what_a_weight_may_be_is_said(asked: str, said: str) -> None:
    prompt = "<character_1><appearance>long_hair, year 2023</appearance></character_1>"
    with pytest.raises(RequestError) as refused:
        reweighed(prompt, asked, tolerant=False)
    assert str(refused.value).startswith(f":weight {asked!r}")
    assert said in str(refused.value)
    # A tag that ends in a number is still a tag.
    assert reweighed(prompt, "year 2023 0", tolerant=False) == (
        prompt.replace("year", "<!-- weight:0 -->year"),
        None,
    )


def test_what_is_said_of_a_prompt_is_not_said_again_of_its_change(
    loop: type, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt = "<character_1><appearance><!-- weight:0.05 -->pink_hair, blue_eyes</appearance></character_1>"
    loop(":steps 2", prompt).run()
    once = capsys.readouterr().err.splitlines()
    assert len(once) == 1
    assert "the weight 0.05 of" in once[0]
    loop(":steps 2", prompt, ":weight blue_eyes 2 2").run()
    assert capsys.readouterr().err.splitlines() == once * 2  # once a picture
