"""Editing, comparing, patching, templates, schemas."""

from __future__ import annotations

import json
import re

import pytest
from lxml import etree

from newbie_image.errors import PromptError
from newbie_image.prompt import parse
from newbie_image.prompt.diff import Patch, apply, diff, words
from newbie_image.prompt.lint import check
from newbie_image.prompt.mapping import to_mapping
from newbie_image.prompt.schema import json_schema, schema
from newbie_image.prompt.templates import read_template, skeleton, template, template_names
from newbie_image.prompt.write import write

TEXT = """<character_1>
  <n>miku</n>  <!-- a note -->
  <appearance>blue_hair ,twintails</appearance>
</character_1>
<character_2><appearance>red_hair, <!-- weight:0.6 -->smile</appearance></character_2>
<general_tags></general_tags>
"""


def test_set_changes_only_its_field():
    prompt = parse(TEXT).character(1).set("appearance", ["green_hair", "<3", "a, b"])
    assert prompt.source == TEXT.replace("blue_hair ,twintails", "green_hair, <3, a&#44; b")
    assert prompt.character(1).get("appearance") == ("green_hair", "<3", "a, b")


def test_set_adds_missing_fields():
    prompt = parse(TEXT).character(2).set("clothing", "hat, coat").set("style", ["sketch"])
    assert prompt.character(2).get("clothing") == ("hat", "coat")
    assert prompt.general.get("style") == ("sketch",)
    assert "<!-- a note -->" in prompt.source


def test_set_refuses_unknown_fields():
    with pytest.raises(PromptError, match="use one of n, gender"):
        parse(TEXT).character(1).set("hair", "x")


def test_add_and_remove_tags():
    prompt = parse(TEXT).character(1).add("appearance", "ahoge")
    assert "blue_hair ,twintails, ahoge<" in prompt.source
    assert "<appearance>twintails, ahoge<" in prompt.without("character_1.appearance[0]").source
    assert parse(TEXT).without("character_2.appearance[1]").character(2).get("appearance") == ("red_hair",)


def test_weights_are_written_changed_and_taken_away():
    prompt = parse(TEXT).with_weight("character_1.appearance[1]", 1.3)
    assert prompt.tag("character_1.appearance[1]").weight == 1.3
    assert prompt.with_weight("character_1.appearance[1]", 1).source == TEXT
    lighter = parse(TEXT).with_weight("character_2.appearance[1]", 1)
    assert "red_hair, smile" in lighter.source
    assert parse(TEXT).with_weight("character_2", 0.5).tag(
        "character_2.appearance[1]"
    ).weight == pytest.approx(0.3)
    for path, weight in (("character_9.n[0]", 1.0), ("nothing", 1.0), ("character_1.n[0]", 4.0)):
        with pytest.raises(PromptError):
            parse(TEXT).with_weight(path, weight)


def test_swapped_characters_keep_their_numbers():
    prompt = parse(TEXT).swap_characters(1, 2)
    assert prompt.character(1).get("appearance") == ("red_hair", "smile")
    assert prompt.character(2).name == "miku"
    assert prompt.swap_characters(1, 2).source == TEXT
    with pytest.raises(PromptError, match="has 1, 2"):
        parse(TEXT).swap_characters(1, 3)


def test_diff_in_words():
    a = parse(TEXT)
    b = parse(
        TEXT.replace("blue_hair", "green_hair").replace(":0.6", ":1.2").replace("twintails", "twintails, hat")
        + "<!-- version: 2 --><character_3><n>rin</n></character_3>"
    )
    assert words(diff(a, b), a, b) == [
        "version: none → 2",
        "character 1, appearance: blue_hair → green_hair",
        "character 1, appearance: + hat",
        "character 2, appearance: weight of smile 0.6 → 1.2",
        "character 3: added",
    ]
    assert words(diff(a, a), a, a) == []
    spaced = parse(TEXT.replace(" ,", ", "))
    assert words(diff(a, spaced), a, spaced) == ["only spacing differs"]


def test_patch_gives_the_other_text_to_the_byte_and_reaches_other_prompts():
    a, b = parse(TEXT), parse(TEXT.replace("blue_hair", "green_hair").replace("red_hair, ", "hat, "))
    patch = Patch.from_json(diff(a, b).to_json())
    assert apply(a, patch).source == b.source
    other = parse("<!-- mine -->" + TEXT)
    assert apply(other, patch).source == "<!-- mine -->" + b.source
    with pytest.raises(PromptError, match="does not have it"):
        apply(parse(TEXT.replace("blue_hair", "pink_hair")), patch)


def test_an_other_order_keeps_tags_that_it_does_not_name():
    def block(tags: str) -> str:
        return f"<character_1><n>a</n><appearance>{tags}</appearance></character_1>"

    a = parse(block("x, y"))
    b = parse(block("y, x") + "<character_2><n>b</n></character_2>")
    patch = Patch.from_json(diff(a, b).to_json())
    assert apply(parse(block("x, y, z")), patch).character(1).get("appearance") == ("y", "x", "z")
    assert apply(parse(block("x, <!-- note -->z, y")), patch).source.startswith(block("y, <!-- note -->z, x"))
    assert apply(parse(block("z")), patch).character(1).get("appearance") == ("z",)
    weighed = apply(parse(block("x <!-- weight:0.6 -->y, z")), patch)
    assert [(t.text, t.weight) for t in weighed.character(1).section("appearance").tags] == [
        ("y", 0.6),
        ("x", 1.0),
        ("z", 1.0),
    ]


def test_an_order_of_tags_with_commas_is_taken_apart_again():
    a, b = parse("<style>p&#44; q, r</style>"), parse("<style>r, p&#44; q</style>")
    made = apply(parse("<style>p&#44; q, s, r</style>"), diff(a, b))
    assert made.general.get("style") == ("r", "s", "p, q")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "newbie-prompt-patch/1"}', "[" * 90_000])
def test_damaged_patches_are_refused(text: str):
    with pytest.raises(PromptError):
        Patch.from_json(text)


def test_templates_fill_and_are_clean():
    names = template_names()
    assert len(names) >= 12
    blanks = {
        "hair": "blue_hair",
        "hairstyle": "long_hair",
        "eyes": "red_eyes",
        "top": "white_sweater",
        "bottom": "black_pants",
    }
    for name in names:
        found = template(name)
        assert found.about
        needed = {k: blanks[k] for k, default in found.variables.items() if default is None}
        codes = {d.code for d in check(found.fill(needed)) if d.severity != "hint"}
        assert codes <= ({"no-character"} if name == "negative" else set()), name


def test_template_mistakes_are_named():
    made = read_template("x", "<!-- template: About -->\n<n>{{name}}</n><style>{{style=sketch}}</style>")
    assert made.about == "About"
    assert made.fill({"name": "miku"}).source == "<n>miku</n><style>sketch</style>"
    with pytest.raises(PromptError, match="needs name"):
        made.fill()
    with pytest.raises(PromptError, match="has no 'hair'"):
        made.fill({"hair": "x", "name": "y"})
    with pytest.raises(PromptError, match="did you mean single_portrait"):
        template("single_portrat")


@pytest.mark.parametrize("characters", [1, 2, 4, 16])
def test_skeleton_is_clean(characters: int):
    prompt = parse(skeleton(characters))
    assert len(prompt.characters) == characters
    assert check(prompt) == ()


def test_schemas_accept_templates_and_refuse_misplaced_fields():
    rng = etree.RelaxNG(etree.fromstring(schema("rng").encode()))
    xsd = etree.XMLSchema(etree.fromstring(schema("xsd").encode()))
    for name in template_names():
        blanks = {k: "hat" for k, default in template(name).variables.items() if default is None}
        document = etree.fromstring(f"<scene>{write(template(name).fill(blanks))}</scene>")
        assert rng.validate(document), (name, rng.error_log)
        assert xsd.validate(document), (name, xsd.error_log)
    wrong = etree.fromstring("<scene><character_1><weather>rain</weather></character_1></scene>")
    assert not rng.validate(wrong)
    assert not xsd.validate(wrong)
    unknown = etree.fromstring("<scene><mood>calm</mood></scene>")
    assert rng.validate(unknown)


def test_json_schema_names_every_field():
    made = json_schema()
    assert json.loads(schema("json")) == made
    assert set(made["$defs"]["character"]["properties"]) >= {"n", "name", "gender", "appearance", "position"}
    values = to_mapping(parse(skeleton(2)))
    for key in values:
        known = key in made["properties"] or key.startswith("character_")
        assert known, key
    with pytest.raises(PromptError, match="rng, xsd, json"):
        schema("dtd")


def fits(value: object, rule: dict, defs: dict) -> bool:
    """Whether a value is what a JSON Schema says, for the keywords that ours uses."""
    unknown = set(rule) - {"$ref", "anyOf", "enum", "type", "minimum", "maximum", "properties", "patternProperties", "required",
                           "additionalProperties", "items", "description", "title", "$schema", "$defs"}  # fmt: skip
    assert not unknown
    if "$ref" in rule:
        return fits(value, defs[rule["$ref"].removeprefix("#/$defs/")], defs)
    if "anyOf" in rule:
        return any(fits(value, choice, defs) for choice in rule["anyOf"])
    if "enum" in rule:
        return value in rule["enum"]
    kinds = {"object": dict, "array": list, "string": str, "number": (int, float)}
    if not isinstance(value, kinds[rule["type"]]):
        return False
    if isinstance(value, dict):
        named = rule.get("properties", {})
        for key, inner in value.items():
            rules = [named[key]] if key in named else []
            rules += [r for p, r in rule.get("patternProperties", {}).items() if re.search(p, key)]
            if (not rules and rule.get("additionalProperties") is False) or not all(
                fits(inner, r, defs) for r in rules
            ):
                return False
        return set(rule.get("required", ())) <= set(value)
    if isinstance(value, list):
        return all(fits(item, rule.get("items", {"anyOf": [rule]}), defs) for item in value)
    if isinstance(value, int | float):
        return rule.get("minimum", value) <= value <= rule.get("maximum", value)
    return True


def test_json_schema_accepts_what_is_written_and_refuses_what_is_not_read():
    made = json_schema()
    texts = [template(name).fill(dict.fromkeys((k for k, v in template(name).variables.items() if v is None), "hat")).source
             for name in template_names()]  # fmt: skip
    texts += [
        skeleton(4), "a, <!-- weight:2 -->b", "A girl is here.", "<!-- version: 3 --><scene><mood>calm</mood></scene>",
        "<!-- weight:2 --><character_1><!-- weight:0.5 --><n>a, <!-- weight:2 -->b</n> loose</character_1><character/>",
        "<caption>Hi, <!-- weight:2 -->you.</caption><environment>x<time>night</time></environment><n>a</n><n>b</n>",
        "<general_tags><environment><weather>rain</weather></environment></general_tags>",
    ]  # fmt: skip
    for text in texts:
        assert fits(to_mapping(parse(text)), made, made["$defs"]), text
    for wrong in (
        [],
        {"root": "html"},
        {"character_1": ["x"]},
        {"character_1": {"n": [{"tag": "x", "weight": 9}]}},
        {"character_1": {"n": [{"tga": "x"}]}},
        {"general_tags": {"style": 5}},
        {"character_2#2": {"n": {"weight": 1}}},
    ):
        assert not fits(wrong, made, made["$defs"]), wrong


@pytest.mark.parametrize(
    "source",
    [
        "<character_1><appearance><![CDATA[<b>]]>, x</appearance></character_1>",
        "<character_1><appearance>q, <![CDATA[a<b>, d]]> w, x</appearance></character_1>",
        "blue_hair, <!-- weight:-1 --><![CDATA[<b>, blue_& ]]>+ <!-- a -->x,,",
    ],
)
def test_a_tag_in_a_cdata_stretch_is_weighed_and_left_out_as_any_other(source):
    prompt = parse(source, strict=False)
    before = [tag.text for tag in prompt.tags]
    for place, tag in enumerate(prompt.tags):
        heavier = prompt.with_weight(tag.path, 1.5)
        assert [t.text for t in heavier.tags] == before
        assert heavier.tags[place].weight == 1.5
        assert [t.text for t in prompt.without(tag.path).tags] == before[:place] + before[place + 1 :]


@pytest.mark.parametrize(
    "empty", ["<character_1/>", '<character_1 mood="calm"/>', "<character_1></character_1>"]
)
def test_an_empty_block_is_filled(empty: str):
    prompt = parse(f"{empty}<character_2><n>rin</n></character_2>")
    made = prompt.character(1).set("appearance", ["hat"])
    assert made.character(1).get("appearance") == ("hat",)
    assert made.source.endswith("<character_2><n>rin</n></character_2>")
    swapped = prompt.swap_characters(1, 2)
    assert [c.name for c in swapped.characters] == ["rin", None]
    assert swapped.swap_characters(1, 2).meaning() == prompt.meaning()


@pytest.mark.parametrize("text", ["<scene/>", "<general_tags/>", "<scene><general_tags/></scene>"])
def test_an_empty_general_block_is_filled(text: str):
    made = parse(text).set("style", ["sketch"])
    assert [t.path for t in made.tags] == ["general_tags.style[0]"]
    assert not [d for d in made.diagnostics if d.code.endswith("-end")]


def test_a_new_block_is_not_weighed_by_a_weight_that_weighs_nothing():
    for text in ("<scene><n>a</n><!-- weight:2 --></scene>", "<n>a</n> <!-- weight:2 --> <!-- weight:3 -->"):
        made = parse(text).set("style", ["sketch"])
        assert made.tag("general_tags.style[0]").weight == 1


def test_a_field_goes_into_the_character_and_not_into_a_block_within_it():
    prompt = parse("<character_1><n>a</n><general_tags><style>x</style></general_tags></character_1>")
    made = prompt.character(1).set("clothing", ["hat"])
    assert made.tag("character_1.clothing[0]").text == "hat"


def test_tags_are_added_and_replaced_in_a_cdata_stretch():
    text = "<character_1><appearance><![CDATA[<b>, d]]></appearance></character_1>"
    made = parse(text).character(1).add("appearance", "p, q", "<i>x</i>")
    assert made.character(1).get("appearance") == ("<b>", "d", "p, q", "<i>x</i>")
    other = parse(text.replace("<b>", "q & a, <u>"))
    patch = diff(parse(text), parse(text.replace(", d", ", &e;")))
    assert apply(other, patch).character(1).get("appearance") == ("q & a", "<u>", "&e;")


def test_what_is_added_to_a_caption_is_language():
    made = parse("<caption>A girl, alone.</caption><character_1/>").general
    patch = diff(parse("<caption>a</caption>"), parse("<caption>a</caption>"))
    assert patch.changes == ()
    from newbie_image.prompt.edit import add_tags

    prompt = add_tags(made.prompt_of[0], made, "caption", ["She smiles, softly."])
    assert "<caption>A girl, alone. She smiles, softly.</caption>" in prompt.source


@pytest.mark.parametrize(
    ("text", "path", "left"),
    [
        ("c <!-- weight:2 -->蓝发+红发", "tags[1]", ["c", "红发"]),
        ("蓝发+a<!-- weight:2 -->b+红发", "tags[1]", ["蓝发+a"]),
        ("蓝发+红发+长发", "tags[1]", ["蓝发", "长发"]),
        ("蓝发+红发+长发", "tags[0]", ["红发", "长发"]),
        ("a\nb\nc", "tags[1]", ["a", "c"]),
        ("blue_hair, x,", "tags[1]", ["blue_hair"]),
        ("a <!-- weight:2 --><!-- weight:3 -->b <!-- note -->, c", "tags[1]", ["a", "c"]),
    ],
)
def test_the_others_stay_when_a_tag_is_removed(text: str, path: str, left: list[str]):
    assert [t.text for t in parse(text).without(path).tags] == left


@pytest.mark.parametrize(
    "text",
    [
        "蓝发+红发+长发",
        "蓝发 + a<!-- weight:2 -->b + 红发",
        "a <!-- weight:0.5 -->蓝发+红发",
        "x, <!-- weight:2 --><!-- weight:0.5 -->y, z",
        "<caption>a <!-- weight:2 -->b</caption><n>蓝+红</n>",
    ],
)
def test_the_others_stay_when_a_tag_is_weighed(text: str):
    prompt = parse(text)
    for tag in prompt.tags:
        for weight in (1.5, 1.0, 0.0):
            made = prompt.with_weight(tag.path, weight)
            assert [t.text for t in made.tags] == [t.text for t in prompt.tags]
            assert made.tag(tag.path).weight == weight


def test_a_block_that_goes_takes_its_weight_along():
    a = parse("<character_1><n>a</n></character_1><character_2><n>b</n></character_2>")
    patch = diff(a, parse("<character_2><n>b</n></character_2>"))
    other = parse("<!-- weight:2 --><character_1><n>x</n></character_1><character_2><n>b</n></character_2>")
    made = apply(other, patch)
    assert [(t.text, t.weight) for t in made.tags] == [("b", 1.0)]


def test_a_changed_weight_counts_the_elements_around_the_tag():
    a, b = (parse(f"<character_1><n><!-- weight:{w} -->x</n></character_1>") for w in (0.5, 1.5))
    other = parse("<!-- weight:2 --><character_1><n><!-- weight:0.25 -->x</n>, y</character_1>")
    assert apply(other, diff(a, b)).tag("character_1.n[0]").weight == 1.5
    with pytest.raises(PromptError, match="cannot weigh"):
        apply(parse("<!-- weight:0.2 --><character_1><n>x</n></character_1>"), diff(a, b))


def test_a_box_that_is_replaced_stays_a_box():
    a, b = (
        parse(f"<character_1><position>{p}</position></character_1>") for p in ("left", "0.1,0.2,0.5,0.9")
    )
    made = apply(parse("<!-- mine -->" + a.source), diff(a, b))
    assert made.source == "<!-- mine -->" + b.source
