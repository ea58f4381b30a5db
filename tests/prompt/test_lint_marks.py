"""Marks and comments that are not what they were meant to be."""

from __future__ import annotations

import pytest

from newbie_image.errors import PromptError
from newbie_image.prompt import parse
from newbie_image.prompt.lint import check, fix


@pytest.mark.parametrize(
    "text",
    [
        "<character 1><n>a</n></character 1>",
        "＜character_1＞<n>a</n>＜/character_1＞",
        "＜character_1＞＜n＞a＜／n＞＜/character_1＞",
        "<character_1>＜n＞a＜/n＞</character_1>",
        "<Character 1><n>a</n></character - 1>",
        "＜ｃｈａｒａｃｔｅｒ＿１＞<n>a</n>＜/character_1＞",
    ],
)
def test_a_misshapen_mark_is_said_and_mended(text: str):
    found = [d for d in check(parse(text)) if d.code == "misshapen-mark"]
    assert found
    assert all("write <" in d.message for d in found)
    assert fix(parse(text))[0].source == "<character_1><n>a</n></character_1>"


@pytest.mark.parametrize("text", ["a < b > c", "<3 >_<", "<br 1>", "<n>＜3</n>", "<![CDATA[<n>]]>", "＜笑＞"])
def test_faces_and_other_brackets_are_left_alone(text: str):
    assert "misshapen-mark" not in {d.code for d in check(parse(text))}


def test_marks_that_do_not_belong_together_are_left_to_the_person():
    prompt = parse("<n>＜appearance＞a</n>")
    found = [d for d in check(prompt) if d.code == "misshapen-mark"]
    assert [d.fix for d in found] == [None]
    assert fix(prompt)[0] == prompt


def test_an_end_without_start_names_the_misshapen_start():
    with pytest.raises(PromptError) as caught:
        parse("<n>a</n>\n <character 1><n>b</n></character_1>")
    assert (caught.value.line, caught.value.column) == (2, 2)
    assert "write <character_1>" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<!-- weight:2 --><n>a, <!-- weight:2 -->b</n>", ["b"]),
        ("<!-- weight:2 --><character_1><!-- weight:2 --><n>a</n></character_1>", ["a"]),
        ("<!-- weight:3 --><n>a, <!-- weight:1 -->b</n>", []),
        ("<!-- weight:2 --><n><!-- weight:0 -->a</n>", []),
    ],
)
def test_weights_that_multiply_to_more_than_three(text: str, said: list[str]):
    assert [text[d.start : d.end] for d in check(parse(text)) if d.code == "weight-range"] == said


def test_a_note_that_was_meant_as_a_weight():
    text = "<n>a, <!-- weight 0.6 -->b</n><!-- weight of the world --><!-- weights 2 girls -->"
    prompt = parse(text)
    assert [(d.code, d.severity) for d in check(prompt) if d.start == 6] == [("weight-note", "hint")]
    assert sum(d.code == "weight-note" for d in check(prompt)) == 1
    assert [tag.weight for tag in fix(prompt)[0].tags] == [1.0, 0.6]
