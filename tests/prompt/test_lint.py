"""Every rule: what it finds, where, and whether its fix mends it."""

from __future__ import annotations

from pathlib import Path

import pytest

from newbie_image.cli.prompt_report import report_lines
from newbie_image.errors import PromptError
from newbie_image.prompt import grammar, parse
from newbie_image.prompt.lint import check, fix
from newbie_image.prompt.templates import folder
from newbie_image.prompt.write import write

ONE = "<character_1><gender>1girl</gender><appearance>{}</appearance></character_1><general_tags><style>x</style></general_tags>"
TWO = (
    "<character_1><gender>1girl</gender><appearance>a</appearance>{}</character_1>"
    "<character_2><gender>1boy</gender><appearance>b</appearance>{}</character_2><general_tags>{}</general_tags>"
)


@pytest.mark.parametrize(
    ("text", "code", "fixed"),
    [
        (ONE.format("bleu_hair"), "misspelt-tag", "blue_hair"),
        (ONE.format("long hair"), "tag-with-spaces", "long_hair"),
        (ONE.format("smile, hat, smile"), "duplicate-tag", "smile, hat<"),
        (ONE.format("red_hair, blue_hair"), "contradiction", ""),
        (ONE.format("(hat:1.2)"), "foreign-weight", "<!-- weight:1.2 -->hat"),
        (ONE.format("hat, <lora:x:1>"), "extra-network", "hat<"),
        (ONE.format("q &amp;amp; a"), "escaped-twice", "q & a"),
        (
            ONE.format("hat") + "<general_tags><other></other></general_tags>",
            "empty-field",
            "<general_tags></general_tags>",
        ),
        (ONE.format("hat").replace("general_tags", "genral_tags"), "misspelt-element", "<general_tags>"),
        (TWO.format("", "", "<count>2girls</count>"), "count-disagrees", "<count>1girl, 1boy</count>"),
        (TWO.format("", "", "<style>red_eyes</style>"), "attribute-in-general", ""),
        (ONE.format("hat").replace("style>x", "style>red_eyes"), "attribute-in-general", "hat, red_eyes"),
        (TWO.format("<position>left</position>", "<position>left</position>", ""), "shared-position", ""),
        (TWO.format("<position>lefft</position>", "", ""), "unknown-position", "<position>left<"),
        (TWO.format("<position>0.9,0,0.1,1</position>", "", ""), "unknown-position", ""),
        (TWO.format("<n>rin</n>", "<n>rin</n>", ""), "repeated-name", ""),
        (TWO.format("", "", "").replace("character_2", "character_4"), "numbering-gap", "<character_2>"),
        (TWO.format("", "", "").replace("character_2", "character_1"), "repeated-number", "<character_2>"),
        ("<general_tags><style>x</style></general_tags>", "no-character", ""),
        ("<appearance>hat</appearance><character_1></character_1>", "field-outside-character", ""),
        (ONE.format("hat") + " masterpiece", "loose-text", ""),
        (ONE.format("hat <expression>smile</expression>"), "nested-field", ""),
        ("<character_1><style>x</style></character_1>", "field-outside-general", ""),
    ],
)
def test_rule_finds_and_fix_mends(text: str, code: str, fixed: str):
    found = [d for d in check(parse(text)) if d.code == code]
    assert found, [d.code for d in check(parse(text))]
    for diagnostic in found:
        assert 0 <= diagnostic.start <= diagnostic.end <= len(text)
        assert diagnostic.line >= 1
    assert (found[0].fix is not None) == bool(fixed)
    if fixed:
        mended, what = fix(parse(text))
        assert code in {d.code for d in what}
        assert fixed in mended.source
        assert code not in {d.code for d in check(mended)}


@pytest.mark.parametrize(
    "tags",
    [
        "red_hair, two-tone_hair, blue_hair",
        "heterochromia, red_eyes, blue_eyes",
        "blue_hat, poles, marine",
        "<3, >_<, :d",
    ],
)
def test_no_false_alarm(tags: str):
    assert [d for d in check(parse(ONE.format(tags))) if d.severity != "hint"] == []


@pytest.mark.parametrize(
    ("names", "merged"),
    [
        ("<n>rin</n><n/>", False),
        ("<n></n><n>rin</n>", False),
        ("<n>rin</n><n> <!-- who? --> </n>", False),
        ("<n>rin</n><n>len</n>", True),
        ("<n>rin, len</n>", True),
    ],
)
def test_an_empty_name_is_no_second_person(names: str, merged: bool):
    prompt = parse(TWO.format(names, "", ""))
    assert ("merged-characters" in {d.code for d in check(prompt)}) == merged


def contradictions(tags: str) -> list[str]:
    return [
        d.message.partition(" in ")[0] for d in check(parse(ONE.format(tags))) if d.code == "contradiction"
    ]


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ("long_hair, very_long_hair, absurdly_long_hair", []),
        ("absurdly_long_hair, long_hair", []),
        ("short_hair, long_hair", ["long_hair contradicts short_hair"]),
        ("very_short_hair, very_long_hair", ["very_long_hair contradicts very_short_hair"]),
        ("long_hair, very_long_hair, short_hair", ["short_hair contradicts long_hair"]),
        ("lying, on_back", []),
        ("on_back, on_stomach", ["on_stomach contradicts on_back"]),
    ],
)
def test_a_tag_that_implies_another_is_no_contradiction(tags: str, said: list[str]):
    assert contradictions(tags) == said


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ("blue_hair, Blue_Hair, blue hair", []),
        ("long_hair, Very Long Hair", []),
        ("Blue_Hair, red hair", ["red hair contradicts Blue_Hair"]),
    ],
)
def test_one_tag_in_two_spellings_is_no_contradiction(tags: str, said: list[str]):
    assert contradictions(tags) == said


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ("蓝发, 红发", ["红发 contradicts 蓝发"]),
        ("短髪、長髪", ["長髪 contradicts 短髪"]),
        ("blue_hair，红发", ["红发 contradicts blue_hair"]),
        ("蓝发, blue_hair", []),
        ("蓝发, 红发, 渐变发色", []),
        ("长发, 超长发", []),
    ],
)
def test_contradictions_are_seen_in_chinese_and_japanese(tags: str, said: list[str]):
    assert contradictions(tags) == said


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ("蓝发双马尾, 红发", [("红发 contradicts 蓝发", "红发")]),
        ("蓝发红瞳，绿发长发", [("绿发 contradicts 蓝发", "绿发")]),
        ("蓝发红发", [("红发 contradicts 蓝发", "红发")]),
        ("青い髪ツインテール、赤い髪", [("赤い髪 contradicts 青い髪", "赤い髪")]),
        ("blue_hair, 红发双马尾", [("红发 contradicts blue_hair", "红发")]),
        ("蓝发双马尾, blue_hair", []),
        ("蓝发双马尾, 红发怪兽雷电", []),
        ("蓝发红发渐变发色", []),
        ("蓝发&#30340;红发", [("红发 contradicts 蓝发", "蓝发&#30340;红发")]),
    ],
)
def test_contradictions_are_seen_in_compounds(tags: str, said: list[tuple[str, str]]):
    text = ONE.format(tags)
    found = [d for d in check(parse(text)) if d.code == "contradiction"]
    assert [(d.message.partition(" in ")[0], text[d.start : d.end]) for d in found] == said


def test_a_compound_among_the_general_tags_is_a_persons():
    text = TWO.format("", "", "<style>动漫风格, 蓝发双马尾</style>")
    assert [text[d.start : d.end] for d in check(parse(text)) if d.code == "attribute-in-general"] == ["蓝发"]


@pytest.mark.parametrize("box", ["0.1，0.2，0.5，0.9", "0.1， 0.2,0.5 ，0.9"])
def test_a_box_with_full_width_commas_is_a_box(box: str):
    prompt = parse(TWO.format(f"<position>{box}</position>", "<position>0.1,0.2,0.5,0.9</position>", ""))
    assert prompt.character(1).get("position") == (box,)
    assert grammar.position_box(box) == (0.1, 0.2, 0.5, 0.9)
    codes = {d.code for d in check(prompt)}
    assert "unknown-position" not in codes
    assert "shared-position" in codes
    assert parse(write(prompt)).meaning() == prompt.meaning()


@pytest.mark.parametrize(
    ("said", "place"),
    [("左", "left"), ("左边", "left"), ("右", "right"), ("右边", "right"), ("中央", "center"), ("中间", "center"),
     ("真ん中", "center"), ("左上", "upper_left"), ("最右", "far_right")],
)  # fmt: skip
def test_a_place_in_chinese_or_japanese_is_mended(said: str, place: str):
    mended, _ = fix(parse(TWO.format(f"<position>{said}</position>", "", "")))
    assert mended.character(1).get("position") == (place,)


def test_names_of_places_lead_to_places():
    assert set(grammar.POSITION_NAMES.values()) <= set(grammar.POSITIONS)


def test_resolution_that_disagrees_with_the_size():
    prompt = parse(ONE.format("hat") + "<general_tags><resolution>512x768</resolution></general_tags>")
    assert "resolution-disagrees" in {d.code for d in check(prompt, size=(1024, 1024))}
    assert "resolution-disagrees" not in {d.code for d in check(prompt, size=(512, 768))}


def test_diagnostics_have_a_stable_json_shape():
    diagnostic = next(d for d in check(parse(ONE.format("bleu_hair"))) if d.code == "misspelt-tag")
    assert diagnostic.as_dict() == {
        "code": "misspelt-tag",
        "severity": "warning",
        "message": "'bleu_hair' is no known tag; did you mean blue_hair?",
        "start": 47,
        "end": 56,
        "line": 1,
        "column": 48,
        "path": "character_1.appearance[0]",
        "fix": {"title": "write blue_hair", "edits": [{"start": 47, "end": 56, "text": "blue_hair"}]},
    }


MISTAKES = sorted(folder("mistakes").iterdir())


def test_there_are_mistakes_to_learn_from():
    assert len(MISTAKES) >= 10


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda path: path.name)
def test_mistake_gets_the_diagnostics_beside_it_and_the_good_file_none(mistake: Path):
    bad = (mistake / "bad.xml").read_text(encoding="utf-8")
    try:
        told = report_lines(check(parse(bad)), bad, "bad.xml", False)
    except PromptError as error:
        told = [f"error: {error}"]
    assert "\n".join(told) + "\n" == (mistake / "diagnostics.txt").read_text(encoding="utf-8")
    assert check(parse((mistake / "good.xml").read_text(encoding="utf-8"))) == ()
    assert len((mistake / "why.md").read_text(encoding="utf-8")) > 80


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        (ONE.format("蓝发+蓝发+长发"), [("蓝发", 1), ("长发", 1)]),
        (ONE.format("hat\nhat\nboots"), [("hat", 1), ("boots", 1)]),
        (ONE.format("<!-- weight:2 --><lora:x:1>, hat"), [("<lora:x:1>", 2), ("hat", 1)]),
        (ONE.format("hat, <!-- weight:2 -->hat, boots"), [("hat", 1), ("hat", 2), ("boots", 1)]),
    ],
)
def test_a_fix_that_removes_a_tag_leaves_the_others_as_they_were(text: str, tags: list[tuple[str, float]]):
    section = fix(parse(text))[0].character(1).section("appearance")
    assert section is not None
    assert [(t.text, t.weight) for t in section.tags] == tags


def test_people_are_taken_apart_by_tags_that_were_mended_first():
    text = "<character_1><n>rin</n><n>len</n><appearance>yellow_hair, bleu_hair, (twintails:1.2)</appearance></character_1>"
    mended, _ = fix(parse(text))
    assert [(c.name, c.get("appearance")) for c in mended.characters] == [
        ("rin", ("yellow_hair",)),
        ("len", ("blue_hair", "twintails")),
    ]
    assert mended.tag("character_2.appearance[1]").weight == 1.2


def test_an_empty_field_with_a_weight_is_left_to_the_person():
    text = ONE.format("hat") + "<general_tags><!-- weight:2 --><other></other><style>y</style></general_tags>"
    assert fix(parse(text))[0].tag("general_tags.style[1]").weight == 1


def test_people_taken_apart_keep_the_notes_and_are_not_reweighed():
    text = "<character_1><!-- twins --><n>rin</n><n>len</n><gender>1girl <!-- she -->, 1boy</gender></character_1>"
    mended, _ = fix(parse(text))
    assert [c.name for c in mended.characters] == ["rin", "len"]
    assert "<!-- twins -->" in mended.source
    assert "<!-- she -->" in mended.source
    weighed = parse("<!-- weight:2 -->" + text)
    assert "merged-characters" not in {d.code for d in fix(weighed)[1]}
