"""`newbie prompt …` from the outside: answers, JSON, exit codes, and that it is quick and needs no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from newbie_image.cli.app import app

BAD = "<character><n>rin</n><n>len</n><appearance>yellow_hair, twin_braids, green_hair, short_cut</appearance></character>"


def newbie(*arguments: str, text: str | bytes = ""):
    return CliRunner().invoke(app, ["prompt", *arguments], input=text)


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    file = tmp_path / "bad.xml"
    file.write_text(BAD, encoding="utf-8")
    return file


def test_check_says_place_code_and_fix(bad: Path):
    answer = newbie("check", str(bad))
    assert answer.exit_code == 0
    assert f"{bad}:1:1: warning merged-characters: character_1 has 2 names (rin, len)" in answer.stdout
    assert newbie("check", str(bad), "--warnings-as-errors").exit_code == 1
    assert newbie("check", "-", text="<character_1><n>").exit_code == 2


def test_fix_writes_the_file(bad: Path):
    assert newbie("check", str(bad), "--fix").exit_code == 0
    assert "<character_2>" in bad.read_text(encoding="utf-8")
    assert list(bad.parent.iterdir()) == [bad]


def test_json_for_results_and_errors(bad: Path):
    told = json.loads(newbie("check", str(bad), "--json").stdout)
    assert told["ok"] is False
    assert told["diagnostics"][0]["code"] == "merged-characters"
    answer = newbie("check", "-", "--json", text="<n>")
    assert answer.exit_code == 2
    error = json.loads(answer.stdout)["error"]
    assert (error["kind"], error["line"], error["column"]) == ("PromptError", 1, 1)


def test_what_was_assumed_is_said_by_each_command_that_repairs(tmp_path: Path):
    make_bundle(tmp_path / "tiny")
    for command in ("check", "format", "flatten", "convert", "explain"):
        more = ("--model", str(tmp_path / "tiny")) if command == "explain" else ()
        answer = newbie(command, "-", "--tolerant", *more, text="<character_1><n>a</character_1>")
        assert answer.exit_code == 0, answer.output
        assert "</n> is assumed" in answer.output, command
        assert newbie(command, "-", text="<character_1><n>a</character_1>").exit_code == 2


def test_every_error_object_has_the_same_keys(tmp_path: Path):
    for arguments in (("check", str(tmp_path / "none")), ("new", "--characters", "0"), ("check", "-")):
        told = json.loads(newbie(*arguments, "--json", text="<n>").stdout)
        assert list(told) == ["ok", "error"]
        assert list(told["error"]) == ["kind", "message", "line", "column"]


def test_a_layout_that_could_not_be_read_again_is_refused():
    answer = newbie("format", "-", text="<character_1><n>a</n></character_1>" * 7000)
    assert answer.exit_code == 2
    assert "256 KiB" in answer.stderr


def test_the_excerpt_shows_the_line_that_the_error_names():
    from newbie_image.cli.messages import excerpt
    from newbie_image.errors import PromptError
    from newbie_image.prompt import parse

    with pytest.raises(PromptError) as caught:
        parse("a\u2028b\x0c\n蓝发 <n>")
    assert excerpt(caught.value)[0] == "   2 | 蓝发 <n>"


def test_error_is_one_line_without_traceback(tmp_path: Path):
    for arguments in (("check", str(tmp_path / "none.xml")), ("check", "-"), ("schema", "--kind", "dtd"), ("new", "--characters", "0"),
                      ("template", "show", "nothing"), ("apply", "-", str(tmp_path / "none")), ("convert", "-", "--to", "pdf")):  # fmt: skip
        answer = newbie(*arguments, text=b"\xff\xfe")
        assert answer.exit_code == 2, arguments
        assert "Traceback" not in answer.output
        assert answer.stderr.startswith("error: ")
        assert answer.stderr.count("\n") == 1


def test_format_flatten_convert(bad: Path):
    assert newbie("format", "-", text="<n>a ,b<!-- x --></n>").stdout == "<n>a, b <!-- x --></n>\n"
    assert newbie("format", "-", "--check", text="<n>a</n>\n").exit_code == 0
    assert newbie("format", "-", "--check", text="<n>a ,b</n>\n").exit_code == 1
    assert newbie("flatten", str(bad)).stdout.startswith("[char1]rin, [char1]len, [char1]yellow_hair")
    flat = json.loads(newbie("flatten", str(bad), "--json").stdout)
    assert flat["tags"][2]["path"] == "character_1.appearance[0]"
    assert set(flat["groups"]) == {"character_1", "general"}
    answer = newbie("convert", "-", "--explain", text="蓝发双马尾+水手服+雨天")
    assert "<appearance>blue_hair, twintails</appearance>" in answer.stdout
    assert "蓝发 → blue_hair" in answer.stderr
    told = json.loads(newbie("convert", "-", "--to", "yaml", "--json", text="蓝发").stdout)
    assert told["explained"][0]["tag"] == "blue_hair"


def test_diff_and_apply(bad: Path, tmp_path: Path):
    newer = tmp_path / "newer.xml"
    newer.write_text(BAD.replace("yellow_hair", "pink_hair"), encoding="utf-8")
    answer = newbie("diff", str(bad), str(newer))
    assert answer.stdout == "character 1, appearance: yellow_hair → pink_hair\n"
    patch = tmp_path / "patch.json"
    patch.write_text(newbie("diff", str(bad), str(newer), "--patch").stdout, encoding="utf-8")
    assert newbie("apply", str(bad), str(patch)).stdout.strip() == newer.read_text(encoding="utf-8")
    assert (
        json.loads(newbie("diff", str(bad), str(newer), "--json").stdout)["changes"][0]["action"] == "replace"
    )


def test_diff_and_apply_say_what_they_assumed(bad: Path, tmp_path: Path):
    broken, whole, patch = tmp_path / "broken.xml", tmp_path / "whole.xml", tmp_path / "patch.json"
    broken.write_text("<character_1><n>a</character_1>", encoding="utf-8")
    whole.write_text("<character_1><n>b</n></character_1>", encoding="utf-8")
    answer = newbie("diff", str(broken), str(whole), "--patch")
    assert answer.exit_code == 0
    assert f"{broken}:1:14: warning missing-end" in answer.stderr
    assert str(whole) not in answer.stderr
    patch.write_text(answer.stdout, encoding="utf-8")
    applied = newbie("apply", str(broken), str(patch))
    assert applied.stdout == whole.read_text(encoding="utf-8")
    assert "missing-end" in applied.stderr


def test_templates_schema_and_new():
    assert "single_portrait" in newbie("template", "list").stdout
    assert "{{hair" in newbie("template", "show", "single_portrait").stdout
    filled = newbie("template", "fill", "single_portrait", "hair=red_hair").stdout
    assert "red_hair" in filled
    assert "{{" not in filled
    assert newbie("schema", "--kind", "xsd").stdout.startswith("<?xml")
    assert "<character_3>" in newbie("new", "--characters", "3").stdout
    for arguments in (("template", "list"), ("template", "show", "negative"), ("schema",), ("new",)):
        assert json.loads(newbie(*arguments, "--json").stdout)["ok"] is True


def make_bundle(folder: Path) -> None:
    """A folder with settings and two word tokenizers: all that `explain` reads of a bundle."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder.mkdir()
    (folder / "model_index.json").write_text("{}", encoding="utf-8")
    settings = {"name": "tiny", "text": {"system_prompt_xml": "Draw this: ", "max_tokens": 24}}
    (folder / "newbie.json").write_text(json.dumps(settings), encoding="utf-8")
    for name in ("tokenizer", "clip_tokenizer"):
        (folder / name).mkdir()
        tokenizer = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer.save(str(folder / name / "tokenizer.json"))


def test_explain_counts_tokens_and_says_what_is_cut_off(tmp_path: Path):
    make_bundle(tmp_path / "tiny")
    text = (
        "<character_1><appearance>red_hair, <!-- weight:0 -->hat, <!-- weight:1.5 -->smile</appearance>"
        "<position>left</position></character_1><general_tags><style>a, b, c, d, e, f</style></general_tags>"
    )
    answer = newbie("explain", "-", "--model", str(tmp_path / "tiny"), "--json", text=text)
    assert answer.exit_code == 0, answer.output
    told = json.loads(answer.stdout)
    gemma, jina = told["encoders"]["text_encoder"], told["encoders"]["clip_model"]
    assert gemma["tokens"] > 24
    assert gemma["cut_off"] == gemma["tokens"] - 24
    assert gemma["cut_tags"]
    assert jina["cut_off"] == 0
    assert told["left_out"] == ["character_1.appearance[1]"]
    smile = next(t for t in told["tags"] if t["text"] == "smile")
    assert smile["weight"] == 1.5
    first, last = smile["tokens"]["text_encoder"]
    assert last - first == 1
    assert told["regions"]["character_1"] == [0.2, 0.5]
    assert "CUT OFF" in newbie("explain", "-", "--model", str(tmp_path / "tiny"), text=text).stdout


def test_explain_knows_the_tokens_that_end_a_text(tmp_path: Path):
    from tokenizers import Tokenizer, processors

    make_bundle(tmp_path / "tiny")
    file = tmp_path / "tiny" / "clip_tokenizer" / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.add_special_tokens(["<s>", "</s>"])
    ends = [("<s>", 1), ("</s>", 2)]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    tokenizer.save(str(file))
    settings = tmp_path / "tiny" / "newbie.json"
    for limit, cut in ((17, []), (16, ["tags[7]"]), (14, ["tags[6]", "tags[7]"])):
        settings.write_text(
            json.dumps({"name": "tiny", "text": {"max_pooled_tokens": limit}}), encoding="utf-8"
        )
        answer = newbie("explain", "-", "--model", str(tmp_path / "tiny"), "--json", text="a,b,c,d,e,f,g,h")
        jina = json.loads(answer.stdout)["encoders"]["clip_model"]
        assert jina["tags"] == {f"tags[{n}]": [2 * n + 1, 2 * n + 2] for n in range(8)}
        assert (jina["tokens"], jina["cut_off"], jina["cut_tags"]) == (17, 17 - limit, cut)


def test_explain_without_tokenizers_says_so(tmp_path: Path):
    make_bundle(tmp_path / "tiny")
    (tmp_path / "tiny" / "tokenizer" / "tokenizer.json").unlink()
    answer = newbie("explain", "-", "--model", str(tmp_path / "tiny"), text="hat")
    assert answer.exit_code == 2
    assert answer.stderr.count("\n") == 1


def test_the_command_imports_nothing_that_takes_long(bad: Path):
    code = (
        "import sys; sys.argv = ['newbie', *sys.argv[1:]]; from newbie_image.cli.main import main\n"
        "try: main()\n"
        "finally: print(sorted({'torch', 'typer', 'pydantic', 'rich', 'lxml', 'yaml', 'numpy'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, "prompt", "check", str(bad)]
    done = subprocess.run(command, capture_output=True, check=False)
    assert b"merged-characters" in done.stdout
    assert done.stdout.endswith(b"\n[]\n"), done.stdout[-200:]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("chekc", "a"), "did you mean check?"),
        (("template", "fil", "x"), "did you mean fill?"),
        (("check",), "FILE|-"),
        (("check", "a", "--fixx"), "--fixx"),
        (("new", "--characters", "many"), "'many'"),
    ],
)
def test_a_mistake_in_the_options_is_one_line(arguments: tuple[str, ...], said: str):
    answer = newbie(*arguments)
    assert answer.exit_code == 2
    assert answer.stderr.startswith("error: ")
    assert said in answer.stderr
    assert answer.stderr.count("\n") == 1


def test_help_names_the_commands_and_their_options():
    for arguments in (("--help",), ("template", "--help"), ("check", "--help")):
        assert newbie(*arguments).exit_code == 0
    assert "convert" in newbie("--help").stdout
    assert "fill" in newbie("template", "--help").stdout
    assert "--warnings-as-errors" in newbie("check", "--help").stdout
    assert newbie().exit_code == 2


def test_values_and_options_of_a_template_in_any_order():
    answer = newbie("template", "fill", "--json", "single_portrait", "hair=red_hair")
    other = newbie("template", "fill", "single_portrait", "--json", "hair=red_hair")
    assert json.loads(answer.stdout) == json.loads(other.stdout)
    assert "red_hair" in json.loads(answer.stdout)["text"]


def test_a_list_of_tags_that_ends_its_line_is_laid_out_already(tmp_path: Path):
    file = tmp_path / "tags.txt"
    file.write_bytes(b"hat, smile\n")
    assert newbie("format", str(file), "--check").exit_code == 0
    assert newbie("format", str(file)).stdout == "hat, smile\n"
    assert newbie("format", "-", "--check", text="hat, smile").exit_code == 0


def test_a_patch_gives_the_other_file_to_the_byte(bad: Path, tmp_path: Path):
    newer, patch = tmp_path / "newer.xml", tmp_path / "patch.json"
    for text in (b"\xef\xbb\xbf<n>a</n>\r\n", "蓝发, <3".encode(), b""):
        newer.write_bytes(text)
        patch.write_bytes(newbie("diff", str(bad), str(newer), "--patch").stdout_bytes)
        assert newbie("apply", str(bad), str(patch)).stdout_bytes == text


def test_a_file_that_is_mended_keeps_its_permissions_and_its_link(bad: Path, tmp_path: Path):
    bad.chmod(0o640)
    link = tmp_path / "link.xml"
    link.symlink_to(bad)
    assert newbie("check", str(link), "--fix").exit_code == 0
    assert link.is_symlink()
    assert bad.stat().st_mode & 0o777 == 0o640
    assert "<character_2>" in bad.read_text(encoding="utf-8")
