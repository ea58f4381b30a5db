"""Errors with their places, what is refused, what is assumed, and damaged input."""

from __future__ import annotations

import contextlib
import gc
import subprocess
import sys
import time

import pytest

from newbie_image.errors import PromptError
from newbie_image.prompt import parse
from newbie_image.prompt.diagnostics import excerpt


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        (
            "<character_1>\n  <n>miku\n  <gender>1girl</gender>\n</character_1>",
            2,
            3,
            "write </n> before <gender>",
        ),
        ("<scene>\n<character_1></character_1>", 1, 1, "write </scene>"),
        ("<character_1>\n<n>len<n>\n</character_1>", 2, 7, "write </n> to close it"),
        ("<character_1>\n <appearance>red_hair</apperance></character_1>", 2, 22, "write </appearance>"),
        ("<character_1></character_2>", 1, 14, "does not close <character_1>"),
        ("red_hair</appearance>", 1, 9, "closes nothing"),
        ("<scene><n>a</n></image>", 1, 16, "</image> does not close <scene>; write </scene>"),
        ("<scene><n>a</n></image></scene>", 1, 16, "closes nothing"),
        ("<n>a</n> <!-- never ends", 1, 10, "close it with -->"),
        ("<n><![CDATA[a</n>", 1, 4, "close it with ]]>"),
        ("smile, \x00", 1, 8, "U+0000"),
        ("smile\n\ud83d", 2, 1, "U+D83D"),
    ],
)
def test_strict_error_has_place_and_fix(text: str, line: int, column: int, words: str):
    with pytest.raises(PromptError) as caught:
        parse(text)
    assert (caught.value.line, caught.value.column) == (line, column)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert parse(text, strict=False).diagnostics


def test_invalid_utf8_has_its_place():
    with pytest.raises(PromptError) as caught:
        parse("蓝发\nab".encode() + b"\xff")
    assert (caught.value.line, caught.value.column) == (2, 3)
    assert parse(b"half \xf0\x9f\x98", strict=False).tags[0].text == "half \ufffd"


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('<!DOCTYPE x [<!ENTITY a "b">]><n>&a;</n>', "document type"),
        ('<!entity lol "lol">', "document type"),
        ("<a>" * 33 + "x" + "</a>" * 33, "deeper than 32"),
        ("a" * (256 * 1024 + 1), "256 KiB"),
        ("蓝" * 90_000, "256 KiB"),
    ],
)
def test_dangerous_input_is_refused_in_both_modes(text: str, words: str, strict: bool):
    with pytest.raises(PromptError, match=words):
        parse(text, strict=strict)


def test_depth_of_32_is_read():
    assert parse("<a>" * 32 + "x" + "</a>" * 32).tags[0].text == "x"


def test_byte_order_mark_and_declaration_reach_no_model():
    prompt = parse('\ufeff<?xml version="1.0"?>\n<n>miku</n>')
    assert prompt.encoder_text == "\n<n>miku</n>"
    assert [d.code for d in prompt.diagnostics] == ["declaration"]


def test_weights_are_clamped_and_said():
    prompt = parse("<n><!-- weight:7 -->a, <!-- weight:-1 -->b, <!-- weight:soon -->c <!-- weight:2 --></n>")
    assert [t.weight for t in prompt.tags] == [3.0, 0.0, 1.0]
    assert [d.code for d in prompt.diagnostics] == [
        "weight-range",
        "weight-range",
        "unreadable-weight",
        "unused-weight",
    ]


def test_weight_zero_leaves_the_tag_out_with_its_separator():
    prompt = parse("<style>a, <!-- weight:0 -->b, c, <!-- weight:0 -->d</style>")
    assert prompt.encoder_text == "<style>a, c</style>"
    assert parse("<n>x</n><!-- weight:0 --><style>a</style>").encoder_text == "<n>x</n>"


def test_a_weight_between_two_words_keeps_them_apart():
    assert parse("<n>a<!-- weight:2 -->b</n>").encoder_text == "<n>a, b</n>"


def test_a_note_may_stand_inside_a_tag():
    prompt = parse("<n>blue<!-- or red? -->_hair, x</n>")
    assert [t.text for t in prompt.tags] == ["blue_hair", "x"]
    assert prompt.tags[0].raw == "blue<!-- or red? -->_hair"


def test_unknown_elements_are_kept_and_named():
    prompt = parse("<foo><bar>a</bar></foo><apperance>b</apperance><i>")
    assert [(t.path, t.text) for t in prompt.tags] == [
        ("foo.bar[0]", "a"),
        ("apperance[0]", "b"),
        ("text[0]", "<i>"),
    ]
    assert [d.code for d in prompt.diagnostics] == ["unknown-element", "unknown-element", "misspelt-element"]


def test_characters_without_number_take_the_first_free_one():
    prompt = parse(
        "<character_2></character_2><character><n>a</n></character><character><n>b</n></character>"
    )
    numbers = [c.number for c in prompt.characters]
    assert numbers == [2, 1, 2] or numbers == [2, 1, 3]
    assert len({c.key for c in prompt.characters}) == 3


def test_repeated_number_makes_two_groups():
    prompt = parse("<character_1><n>a</n></character_1><character_1><n>b</n></character_1>")
    assert [(c.key, c.name) for c in prompt.characters] == [("character_1", "a"), ("character_1#2", "b")]


@pytest.mark.parametrize(
    "text",
    [
        "<" * 130_000,
        "<a " * 43_000,
        "<n>" * 43_000,
        "<x>" * 43_000,
        "</n>" * 32_000,
        "<!--" * 32_000,
        "<a><b></a></b>" * 9_000,
        '<a b="' * 43_000,
        "<character_1/>" * 10_000,
        "a" * 200 * 1024,
        "蓝+" * 30_000,
        "a," * 65_000,
    ],
    ids=lambda text: text[:14],
)
def test_hostile_text_is_answered_in_linear_time(text: str):
    begin = time.process_time()
    with contextlib.suppress(PromptError):
        parse(text, strict=False)
    assert time.process_time() - begin < 3.0


def test_reading_a_large_text_leaves_the_collection_of_garbage_as_it_was():
    for text in ("a," * 20_000, "<n>" * 20_000):
        with contextlib.suppress(PromptError):
            parse(text)
        assert gc.isenabled()
    gc.disable()
    try:
        parse("a," * 20_000)
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_excerpt_points_at_the_place_also_behind_wide_letters():
    shown, caret = excerpt("蓝发 <n>", 3).split("\n")
    assert shown == "蓝发 <n>"
    assert caret == " " * 5 + "^"


def test_excerpt_counts_the_columns_of_a_terminal():
    assert excerpt("ﾐｸ e\u0301 <n>", 6).split("\n")[1] == " " * 5 + "^"


def test_importing_the_language_imports_no_torch():
    code = (
        "import sys, newbie_image.prompt, newbie_image.prompt.convert, newbie_image.prompt.lint, newbie_image.cli.prompt;"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
