"""`--lora` and `:lora` from the outside: drawing, the record, replay, the loop, and what is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from newbie_image.cli.app import app
from newbie_image.cli.create import Loop
from newbie_image.cli.lora import LoraChoice, read_lora, split_scale
from newbie_image.cli.options import ModelChoice
from newbie_image.cli.session import Session
from newbie_image.errors import CheckpointError, RequestError
from newbie_image.provenance import read_picture
from tests.adapters import write_lora


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def refused(done: Result) -> str:
    """The one line of an error."""
    assert done.exit_code == 2, done.output
    lines = done.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    return lines[0]


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    return write_lora(tmp_path / "with" / "style.safetensors", seed=1)


def draw(bundle: Path, out: Path, *options: str) -> Result:
    common = ("--seed", "7", "--steps", "2", "--dtype", "fp32", "--resolution", "32x32")
    return run("generate", "1girl, smile", "--model", str(bundle), *common, "-o", str(out), *options)


def test_a_scale_follows_the_last_colon_and_nothing_else_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_lora(Path("a.safetensors"))
    shutil.copy("a.safetensors", "odd:0.5.safetensors")
    shutil.copy("a.safetensors", "twice:2.safetensors")
    Path("x:0.5").mkdir()
    shutil.copy("a.safetensors", "x:0.5/adapter_model.safetensors")
    assert read_lora("a.safetensors") == LoraChoice(Path("a.safetensors"), 1.0)
    assert read_lora("a.safetensors:0.8") == LoraChoice(Path("a.safetensors"), 0.8)
    assert read_lora("a.safetensors:-1e-1") == LoraChoice(Path("a.safetensors"), -0.1)
    assert read_lora("odd:0.5.safetensors") == LoraChoice(Path("odd:0.5.safetensors"), 1.0)
    assert read_lora("twice:2.safetensors:0.3") == LoraChoice(Path("twice:2.safetensors"), 0.3)
    assert read_lora("x:0.5") == LoraChoice(Path("x:0.5"), 1.0)
    assert read_lora("x:0.5:2") == LoraChoice(Path("x:0.5"), 2.0)
    assert split_scale(r"C:\lora\a.safetensors") == (r"C:\lora\a.safetensors", None)
    assert split_scale(r"C:\lora\a.safetensors:0.7") == (r"C:\lora\a.safetensors", 0.7)
    for text, said in {
        "a.safetensors:strong": "scale 'strong' of adapter a.safetensors is not a number",
        "a.safetensors:": "scale '' of adapter a.safetensors is not a number",
        "missing.safetensors:0,8": "scale '0,8' of adapter missing.safetensors is not a number",
        "a.safetensors:nan": "out of range; give a number from -100 to 100",
        "a.safetensors:101": "out of range",
        " ": "no adapter is named",
    }.items():
        with pytest.raises(RequestError, match=said):
            read_lora(text)
    with pytest.raises(CheckpointError, match=r"missing.safetensors does not exist"):
        read_lora("missing.safetensors:0.5")


def test_a_picture_says_its_adapters_and_is_made_again_with_them(
    tiny_bundle: Path, lora: Path, tmp_path: Path
) -> None:
    other = write_lora(
        tmp_path / "glow" / "adapter_model.safetensors", seed=2, layers=("final_layer.linear",)
    )
    plain, out = tmp_path / "plain.png", tmp_path / "a.png"
    assert draw(tiny_bundle, plain).exit_code == 0
    done = draw(tiny_bundle, out, "--lora", f"{lora}:0.5", "--lora", str(other.parent))
    assert (done.exit_code, done.stderr) == (0, "")
    image, record = read_picture(out)
    assert image.tobytes() != read_picture(plain)[0].tobytes()
    assert record.bundle == read_picture(plain)[1].bundle  # the bundle is what it was; the adapters are apart
    assert [(use.name, use.file, use.scale) for use in record.adapters] == [
        ("style", "style.safetensors", 0.5),
        ("glow", "glow/adapter_model.safetensors", 1.0),
    ]
    assert record.adapters[0].sha256 == hashlib.sha256(lora.read_bytes()).hexdigest()
    texts = image_texts(out)
    assert "1girl, smile <lora:style:0.5> <lora:glow:1>\n" in texts["parameters"]
    assert f'Lora hashes: "style: {record.adapters[0].sha256[:10]}, glow: ' in texts["parameters"]
    assert str(tmp_path) not in str(texts)
    assert "adapters" not in json.loads(image_texts(plain)["newbie"])

    # glow lies beside the picture, style does not
    replay = ("replay", str(out), "--model", str(tiny_bundle))
    said = refused(run(*replay))
    assert "style.safetensors" in said
    assert record.adapters[0].sha256[:12] in said
    assert "--lora FILE" in said
    done = run(*replay, "--lora", str(lora), "--out", str(tmp_path / "b.png"))
    assert done.exit_code == 0, done.output
    assert (tmp_path / "b.png").read_bytes() == out.read_bytes()
    renamed = shutil.copy(lora, tmp_path / "elsewhere.safetensors")
    assert run(*replay, "--lora", str(other), "--lora", str(renamed)).exit_code == 0

    wrong = write_lora(tmp_path / "style.safetensors", seed=9)
    said = refused(run(*replay))
    assert f"{wrong} is another file (sha256" in said
    assert "is another file" in refused(run(*replay, "--lora", str(wrong)))
    extra = ("--lora", str(lora), "--lora", str(wrong))
    assert "is no adapter that the picture was made with" in refused(run(*replay, *extra))
    assert "give the file alone" in refused(run(*replay, "--lora", f"{lora}:0.5"))
    (other.parent / "adapter_config.json").write_text('{"lora_alpha": 99, "r": 4, "peft_type": "LORA"}')
    assert "another adapter_config.json" in refused(run(*replay, "--lora", str(lora)))


def image_texts(path: Path) -> dict[str, str]:
    import PIL.Image

    with PIL.Image.open(path) as opened:
        opened.load()
        return dict(opened.text)  # type: ignore[attr-defined]


def test_fused_adapters_are_fused_again(tiny_bundle: Path, lora: Path, tmp_path: Path) -> None:
    from newbie_image.pipeline import NewbiePipeline
    from newbie_image.provenance import save_picture
    from newbie_image.request import GenerationRequest

    pipe = NewbiePipeline.from_pretrained(tiny_bundle)
    pipe.load_lora_weights(lora, "s", 0.3)
    pipe.fuse_lora()
    request = GenerationRequest("1girl", width=32, height=32, steps=2)
    *_, last = pipe.stream(request)
    save_picture(tmp_path / "a.png", last.images[0], request)
    assert read_picture(tmp_path / "a.png")[1].adapters[0].fused
    done = run("replay", str(tmp_path / "a.png"), "--model", str(tiny_bundle), "--lora", str(lora))
    assert done.exit_code == 0, done.output


def test_what_is_left_out_is_a_warning(tiny_bundle: Path, tmp_path: Path) -> None:
    mixed = write_lora(
        tmp_path / "mixed.safetensors", layers=("layers.0.attention.out", "layers.1.attention.out")
    )
    mixed.write_bytes(mixed.read_bytes().replace(b"layers.1.attention", b"layers.8.attention"))
    done = draw(tiny_bundle, tmp_path / "a.png", "--lora", str(mixed), "--json")
    assert done.exit_code == 0
    (line,) = json.loads(done.stdout)["warnings"]
    assert line in done.stderr
    assert "layers that the model does not have, left out: layers.8.attention.out" in line


def test_mistakes_are_one_line(tiny_bundle: Path, lora: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.png"
    alien = write_lora(tmp_path / "alien.safetensors", layers=("layers.0.attention.out",))
    alien.write_bytes(alien.read_bytes().replace(b"layers.0.attention", b"blocks.0.attention"))
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(lora.read_bytes()[:-20])
    code = tmp_path / "code.pt"
    torch.save({"a": print}, code)
    for given, said in {
        str(tmp_path / "none.safetensors"): "does not exist",
        f"{lora}:much": "scale 'much'",
        str(alien): "none of its 3 keys fits (blocks.0.attention.out",
        str(cut): "not a whole safetensors file",
        str(code): "could run code",
        str(tiny_bundle): "name the file",
    }.items():
        assert said in refused(draw(tiny_bundle, out, "--lora", given))
    assert not out.exists()


class Lines:
    def __init__(self, *inputs: str) -> None:
        self._inputs = iter(inputs)

    def read(self) -> str | None:
        return next(self._inputs, None)


def test_the_loop_puts_on_scales_lists_and_takes_off(
    tiny_bundle: Path, lora: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    choice = ModelChoice(str(tiny_bundle), device="cpu", dtype="fp32")
    session = Session(choice=choice, out=str(tmp_path / "out"))
    script = (
        *(":seed 5", ":resolution 32x32", "1girl", f":lora {lora}:0.5", ":lora", ":again"),
        *(":lora style:0.25", ":again", f":lora {lora}:0.5", ":dtype bf16", ":dtype fp32", ":again"),
        *(":lora missing.safetensors", ":lora remove nothing", ":lora remove style", ":lora", ":again"),
        *(f":lora {lora}", ":lora none", ":again"),
    )
    assert Loop(session, Lines(*script)).run() is False  # two of them are mistakes
    said = capsys.readouterr()
    pictures = [read_picture(tmp_path / "out" / name) for name in picture_names(tmp_path / "out")]
    scales = [[use.scale for use in record.adapters] for _, record in pictures]
    assert scales == [[], [0.5], [0.25], [0.5], [], []]
    same = [image.tobytes() for image, _ in pictures]
    assert same[0] == same[4] == same[5]
    assert same[1] == same[3] != same[0]
    assert said.out.count(f"lora style scale 0.5 ({lora})") == 3
    assert said.out.count("lora none\n") == 3
    errors = said.err.splitlines()
    assert len(errors) == 2
    assert "missing.safetensors does not exist" in errors[0]
    assert "no adapter 'nothing' is loaded; loaded are: style" in errors[1]


def picture_names(folder: Path) -> list[str]:
    """In the order in which the loop wrote them: newbie-5.png, newbie-5-2.png, …"""
    return ["newbie-5.png", *(f"newbie-5-{n}.png" for n in range(2, 1 + len(list(folder.glob("*.png")))))]
