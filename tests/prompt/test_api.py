"""The names that the documentation imports from `newbie_image.prompt` are functions, in any order of imports."""

from __future__ import annotations

import subprocess
import sys

import pytest

import newbie_image.prompt as language


def test_what_the_language_does_is_imported_from_one_place():
    from newbie_image.prompt import (
        Patch,
        apply,
        check,
        convert,
        diff,
        fix,
        flatten,
        format_prompt,
        parse,
        schema,
        write,
    )

    a = parse("<character_1><n>a</n><appearance>bleu_hair</appearance></character_1>")
    b = fix(a)[0]
    assert "misspelt-tag" in {d.code for d in check(a)}
    assert isinstance(diff(a, b), Patch)
    assert apply(a, diff(a, b)) == b
    assert parse(write(b)).tags[1].text == parse(format_prompt(b)).tags[1].text == "blue_hair"
    assert flatten(b).text == "[char1]a, [char1]blue_hair"
    assert "<n>" in convert("1girl, hatsune_miku", "xml").text
    assert schema("xsd").startswith("<")


@pytest.mark.parametrize("first", ["convert", "diff", "schema", "write", "lint", "cli"])
def test_importing_a_module_leaves_the_functions(first: str):
    module = "newbie_image.cli.prompt" if first == "cli" else f"newbie_image.prompt.{first}"
    code = f"""
import {module}, newbie_image.prompt as p
assert all(callable(getattr(p, name)) for name in p.__all__ if name not in ("TextForm",)), p
from newbie_image.prompt import apply, convert, diff, schema, write
import newbie_image.prompt.diff, newbie_image.prompt.write, newbie_image.prompt.convert, newbie_image.prompt.schema
assert p.convert is convert and p.diff is diff and p.schema is schema and p.write is write
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_the_language_stays_cheap():
    heavy = ("convert", "diff", "lint", "schema", "mapping", "sorting")
    code = f"import sys, newbie_image.prompt; print([m for m in {heavy!r} if 'newbie_image.prompt.' + m in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert said.strip() == "[]"
    assert set(language.__all__) <= set(dir(language))
