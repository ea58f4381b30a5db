"""What other programs leave in a prompt: found, mended where it is plain, and never seen in faces and names."""

from __future__ import annotations

import contextlib
import time

import pytest

from newbie_image.errors import PromptError
from newbie_image.prompt import parse
from newbie_image.prompt.convert import convert
from newbie_image.prompt.lint import check, fix

ONE = "<character_1><gender>1girl</gender><appearance>{}</appearance></character_1><general_tags><style>x</style></general_tags>"


def found(tags: str) -> list[tuple[str, str]]:
    text = ONE.format(tags)
    return [(d.code, text[d.start : d.end]) for d in check(parse(text)) if d.code.startswith("foreign")]


@pytest.mark.parametrize(
    ("typed", "spans", "mended"),
    [
        ("(blue_hair:1.2)", ["(blue_hair:1.2)"], [("blue_hair", 1.2)]),
        ("((hat))", ["((hat))"], [("hat", 1.21)]),
        ("(blue_hair)", ["(blue_hair)"], [("blue_hair", 1.1)]),
        ("(>_<:1.3)", ["(>_<:1.3)"], [(">_<", 1.3)]),
        (
            r"(miku \(vocaloid\):1.2), smile",
            [r"(miku \(vocaloid\):1.2)"],
            [("miku (vocaloid)", 1.2), ("smile", 1)],
        ),
        ("(hat, boots:1.2), smile", ["(hat, boots:1.2)"], [("hat", 1.2), ("boots", 1.2), ("smile", 1)]),
        ("{{{blue_hair}}}", ["{{{blue_hair}}}"], [("blue_hair", 1.157625)]),
        ("{hat, boots}，smile", ["{hat, boots}"], [("hat", 1.05), ("boots", 1.05), ("smile", 1)]),
        ("1.3::blue_hair::, smile", ["1.3::blue_hair::"], [("blue_hair", 1.3), ("smile", 1)]),
        ("0.5::hat, boots::, smile", ["0.5::hat, boots::"], [("hat", 0.5), ("boots", 0.5), ("smile", 1)]),
        ("1.2::^_^::", ["1.2::^_^::"], [("^_^", 1.2)]),
        ("{smile}, [hat]", ["{smile}", "[hat]"], [("smile", 1.05), ("hat", 0.952381)]),
        ("((smile)), [hat]", ["((smile))", "[hat]"], [("smile", 1.21), ("hat", 0.909091)]),
        ("{{red_hair}}", ["{{red_hair}}"], [("red_hair", 1.1025)]),
        ("{蓝发}", ["{蓝发}"], [("蓝发", 1.05)]),
    ],
)
def test_a_foreign_weight_becomes_a_comment(typed: str, spans: list[str], mended: list[tuple[str, float]]):
    assert found(typed) == [("foreign-weight", span) for span in spans]
    prompt, what = fix(parse(ONE.format(typed)))
    assert {d.code for d in what} == {"foreign-weight"}
    section = prompt.character(1).section("appearance")
    assert section is not None
    assert [(t.text, t.weight) for t in section.tags] == [(text, pytest.approx(w)) for text, w in mended]
    assert not [d for d in check(prompt) if d.code.startswith("foreign")]


@pytest.mark.parametrize(
    ("typed", "code"),
    [
        ("[hat]", "foreign-weight"),
        ("-1::hat::", "foreign-weight"),
        ("(hat:9)", "foreign-weight"),
        ("1.3::hat", "foreign-weight"),
        ("{{blank}}", "foreign-weight"),
        ("{{hair=blue_hair}}", "foreign-weight"),
        ("<!-- weight:2 -->(hat:1.2)", "foreign-weight"),
        ("<![CDATA[(hat:1.2)]]>", "foreign-weight"),
        ("(hat <!-- soft --> one:1.2)", "foreign-weight"),
        ("hat:1.2)", "foreign-weight"),
        ("[hat|cap]", "foreign-choice"),
        ("{hat|cap}", "foreign-choice"),
        ("[hat:cap:0.5]", "foreign-choice"),
    ],
)
def test_what_is_not_plain_is_said_and_left(typed: str, code: str):
    text = ONE.format(typed)
    assert [c for c, _ in found(typed)] == [code]
    assert fix(parse(text))[0].source == text


@pytest.mark.parametrize(
    "typed",
    [
        r"miku \(vocaloid\)", r"\(series\)", r"\(tag:1.2\)", "hatsune_miku_(vocaloid)", ">_<", ":<", "^_^", "{}", "[]", "()",
        "(^_^)", "(o_o)", "{o_o}", "[o_o]", r"\(^o^)/", "(:3)", ":(", ";)", "16:9", "(16:9)", "nier:automata", "c++", "a::b",
        "(hat) and (boots)", "[char1]hat", "key: value", "<3", "( ", "{", "1.3", "1::", ":3", "\\{hat\\}",
    ],
)  # fmt: skip
def test_faces_and_names_are_tags_as_they_are(typed: str):
    assert found(typed) == []


def test_a_caption_may_have_brackets():
    assert [
        d.code
        for d in check(parse("<character_1/><caption>A girl (blue hair).</caption>"))
        if "foreign" in d.code
    ] == []


def test_a_plain_list_is_checked_too():
    assert [d.code for d in check(parse("1girl, {{blue_hair}}, 1.3::smile::"))] == ["foreign-weight"] * 2


@pytest.mark.parametrize("piece", ["(,", "1::a,", "{a,", "[", "(a:1", "::1"])
def test_marks_without_end_take_linear_time(piece: str):
    text = (piece * 65_000)[: 16 * 1024]
    begin = time.process_time()
    check(parse(text, strict=False))
    with contextlib.suppress(PromptError):
        convert(text, "xml", source="novelai")
    assert time.process_time() - begin < 2.0


def test_a_list_of_novelai_is_read_and_written():
    done = convert("1girl, {{blue_hair}}, [hat, cap], 1.3::smile, ^_^::, -1::glasses::, rin_(x), <3", "xml")
    weights = {t.text: t.weight for t in done.prompt.tags}
    assert weights["blue_hair"] == pytest.approx(1.1025)
    assert weights["hat"] == weights["cap"] == pytest.approx(0.952381)
    assert weights["smile"] == weights["^_^"] == 1.3
    assert weights["glasses"] == 0
    assert weights["rin_(x)"] == weights["<3"] == 1
    back = convert(done.prompt, "novelai").text
    assert "1.3::smile::" in back
    again = convert(back, "xml", source="novelai").prompt
    assert {t.text: t.weight for t in again.tags} == {
        t: w for t, w in weights.items() if w > 0 and t != "1girl"
    } | {"1girl": 1.0}
