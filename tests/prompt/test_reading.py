"""Small decisions of the reading, each with a text that shows it; none of them was held by another test."""

from __future__ import annotations

import pytest

from newbie_image.prompt import Prompt, parse, write
from newbie_image.prompt.fields import decode


def texts(prompt: Prompt) -> list[str]:
    return [tag.text for tag in prompt.tags]


def test_an_unknown_end_does_not_close_the_known_elements_inside():
    assert texts(parse("<x><n>a</x></n>")) == ["<x>", "a</x>"]


def test_two_newlines_are_two_lines():
    assert [(tag.span.line, tag.span.column) for tag in parse("a,\n\n\nb,\n\n c").tags] == [
        (1, 1),
        (4, 1),
        (6, 2),
    ]


@pytest.mark.parametrize("entity", ["&#xD800;", "&#57343;", "&#0;", "&#x110000;"])
def test_what_is_no_character_is_no_entity(entity: str):
    assert decode(entity) == entity


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("&hearts;", "♥"),
        ("caf&eacute;", "café"),
        ("tom &AMP; jerry", "tom & jerry"),
        ("a&nbsp;b", "a\xa0b"),
        ("&nbsp;", "\xa0"),
        ("a&comma;b", "a,b"),
        ("&Tab;x", "\tx"),
        ("&nosuch;", "&nosuch;"),
        ("R&B;", "R&B;"),
        ("&amp;hearts;", "&hearts;"),
    ],
)
def test_entities_of_html_are_what_they_stand_for(written: str, text: str):
    prompt = parse(f"<n>{written}</n>")
    assert texts(prompt) == [text]
    again = write(prompt)
    assert texts(parse(again)) == [text]
    assert write(parse(again)) == again


def test_only_what_would_be_an_entity_is_escaped():
    assert write(parse("rock&roll;, &amp;hearts;, a & b")) == "rock&roll;, &amp;hearts;, a & b"


def test_escaped_brackets_of_both_kinds():
    assert decode(r"a \(b\) \[c\]") == "a (b) [c]"


@pytest.mark.parametrize("mark", [":", "=", "：", " = "])
def test_marks_of_a_weight(mark: str):
    assert [tag.weight for tag in parse(f"<!-- weight{mark}0.6 -->a, b").tags] == [0.6, 1.0]


def test_an_environment_does_not_end_the_block_before_it():
    text = "<general_tags><style>a</style><environment><weather>b</weather></environment>"
    prompt = parse(text, strict=False)
    assert prompt.tags[1].path == "general_tags.environment.weather[0]"


def test_the_first_version_note_is_the_prompts():
    assert parse("<!-- version: 1 -->a<!-- version: 2 -->").version == "1"


@pytest.mark.parametrize("text", ["a <foo> b", "a </foo> b", "a <br/> b"])
def test_a_mark_that_begins_and_ends_nothing_is_text(text: str):
    assert texts(parse(text)) == [text]


def test_a_short_name_is_meant_by_names_one_letter_away():
    assert texts(parse("<n>a</ab></n>")) == ["a</ab>"]
    assert [d.code for d in parse("<n>a</m>", strict=False).diagnostics] == ["mismatched-end"]
