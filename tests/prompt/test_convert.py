"""Conversions: tag lists, sentences, Chinese and Japanese, other programs' weights, plain values, and back."""

from __future__ import annotations

import pytest

from newbie_image.errors import PromptError
from newbie_image.prompt import parse
from newbie_image.prompt.convert import convert, guess
from newbie_image.prompt.mapping import dump, from_mapping, load, to_mapping
from newbie_image.prompt.weights import WeighedTag, read_weights, write_weights

SIXTY = (
    "2girls, hatsune_miku, vocaloid, aqua_hair, very_long_hair, twintails, aqua_eyes, hair_between_eyes, hair_ribbon, "
    "black_ribbon, headset, smile, open_mouth, grey_shirt, sleeveless_shirt, aqua_necktie, detached_sleeves, "
    "black_sleeves, pleated_skirt, black_skirt, thigh_boots, zettai_ryouiki, arm_up, waving, megurine_luka, pink_hair, "
    "long_hair, blue_eyes, side_braid, headphones, closed_mouth, light_smile, black_dress, side_slit, gold_trim, "
    "armband, elbow_gloves, black_gloves, high_heels, hand_on_own_hip, necklace, holding_hands, looking_at_viewer, "
    "stage, concert, night, starry_sky, stage_lights, spotlight, light_particles, confetti, musical_note, from_below, "
    "full_body, cel_shading, colorful, depth_of_field, highres, masterpiece, best_quality"
)


def test_sixty_tags_of_two_characters():
    done = convert(SIXTY, "xml")
    assert len(SIXTY.split(", ")) == 60
    miku, luka = done.prompt.characters
    assert (miku.name, luka.name) == ("hatsune_miku", "megurine_luka")
    assert miku.get("appearance") == (
        "aqua_hair",
        "very_long_hair",
        "twintails",
        "aqua_eyes",
        "hair_between_eyes",
    )
    assert luka.get("appearance") == ("pink_hair", "long_hair", "blue_eyes", "side_braid")
    assert "thigh_boots" in miku.get("clothing")
    assert "zettai_ryouiki" in miku.get("clothing")
    assert luka.get("clothing")[:2] == ("headphones", "black_dress")
    assert (miku.get("pose")[:2], luka.get("pose")[:1]) == (("arm_up", "waving"), ("hand_on_own_hip",))
    assert miku.get("interaction") == luka.get("interaction") == ("holding_hands",)
    assert done.prompt.general.get("count") == ("2girls",)
    assert done.prompt.general.get("background") == ("stage", "concert", "starry_sky")
    assert done.prompt.general.get("lighting") == ("night", "stage_lights", "spotlight", "light_particles")
    assert done.prompt.general.get("quality") == ("masterpiece", "best_quality")
    every = {t.text for t in done.prompt.tags}
    assert set(SIXTY.split(", ")) <= every
    assert len(done.explained) >= 60
    assert all(e.path and e.reason for e in done.explained)


def test_an_alphabetical_list_is_sorted_by_what_the_figures_look_like():
    done = convert(", ".join(sorted(SIXTY.split(", "))), "xml")
    miku, luka = done.prompt.characters
    assert {"aqua_hair", "aqua_eyes", "twintails"} <= set(miku.get("appearance"))
    assert {"pink_hair", "blue_eyes"} <= set(luka.get("appearance"))
    assert set(SIXTY.split(", ")) <= {t.text for t in done.prompt.tags}


@pytest.mark.parametrize(
    ("text", "tags", "unknown"),
    [
        (
            "蓝发双马尾+水手服+雨天",
            {"蓝发": "blue_hair", "双马尾": "twintails", "水手服": "serafuku", "雨天": "rain"},
            (),
        ),
        ("猫耳，渐变发色", {"猫耳": "cat_ears", "渐变发色": "gradient_hair"}, ()),
        ("红色连衣裙+怪兽雷电", {"红色连衣裙": "red_dress"}, ("怪兽雷电",)),
        ("青い髪、ツインテール、雨", {"青い髪": "blue_hair", "ツインテール": "twintails", "雨": "rain"}, ()),
        ("蓝发+smile", {"蓝发": "blue_hair", "smile": "smile"}, ()),
    ],
)
def test_chinese_and_japanese_words_are_explained(text: str, tags: dict[str, str], unknown: tuple[str, ...]):
    done = convert(text, "xml")
    assert {e.written: e.tag for e in done.explained} == tags
    assert done.unknown == unknown
    for word in unknown:
        assert word in done.text


def test_colour_scheme_and_uniform():
    done = convert("蓝白配色+双马尾+制服+雨天", "xml")
    assert [e.tag for e in done.explained] == ["blue_theme", "white_theme", "twintails", "uniform", "rain"]
    assert done.prompt.general.get("style") == ("blue_theme", "white_theme")
    assert done.prompt.character(1).get("clothing") == ("uniform",)


def test_sentence_with_two_people_and_places():
    done = convert(
        "On the left a girl with long blue hair wearing a white serafuku smiles, and on the right a boy with black spiked "
        "hair, waving in the rain.",
        "xml",
    )
    girl, boy = done.prompt.characters
    assert (girl.gender, girl.position, girl.get("appearance")) == (
        "1girl",
        "left",
        ("long_hair", "blue_hair"),
    )
    assert girl.get("clothing") == ("white_serafuku",)
    assert (boy.gender, boy.position, boy.get("appearance")) == (
        "1boy",
        "right",
        ("black_hair", "spiked_hair"),
    )
    assert boy.get("pose") == ("waving",)
    assert done.prompt.general.get("weather") == ("rain",)
    assert done.prompt.general.get("caption") == ()


def test_what_a_sentence_says_beside_the_vocabulary_is_kept_whole_and_listed():
    text = "A girl with blue hair ponders quantum theology."
    done = convert(text, "xml")
    assert done.unknown == ("ponders", "quantum", "theology")
    assert done.prompt.general.get("caption") == (text,)


def test_weights_of_other_programs():
    done = convert(
        r"1girl, (blue_hair:1.3), ((smile)), [hat], miku_\(vocaloid\), (a, b:0.5), <lora:x:1>", "xml"
    )
    weights = {t.text: round(t.weight, 4) for t in done.prompt.tags}
    assert weights["blue_hair"] == 1.3
    assert weights["smile"] == 1.21
    assert weights["hat"] == pytest.approx(0.9091)
    assert weights["miku_(vocaloid)"] == 1.0
    assert (weights["a"], weights["b"]) == (0.5, 0.5)
    assert any("<lora:x:1>" in remark for remark in done.remarks)
    back = convert(done.prompt, "a1111").text
    assert "(blue_hair:1.3)" in back
    assert r"miku_\(vocaloid\)" in back


@pytest.mark.parametrize("dialect", ["a1111", "comfyui", "novelai"])
def test_weighed_tags_come_back(dialect):
    tags = [
        WeighedTag("a_(b)", 1.2),
        WeighedTag(r"c\d", 0.0),
        WeighedTag(">_<"),
        WeighedTag(":3", 2.0),
        WeighedTag("c++", 0.55),
        WeighedTag("{o_o}[x]", 1.5),
        WeighedTag("1.5::a"),
    ]
    read, networks = read_weights(write_weights(tags, dialect), dialect)
    assert [(t.text, t.weight) for t in read] == [(t.text, t.weight) for t in tags]
    assert networks == []


def test_flat_form_keeps_people_there_and_back():
    text = (
        "<character_1><gender>1girl</gender><appearance>blue_hair</appearance></character_1>"
        "<character_2><gender>1boy</gender><appearance><!-- weight:1.2 -->red_hair</appearance></character_2>"
        "<general_tags><weather>rain</weather></general_tags>"
    )
    back = convert(convert(text, "flat").text, "xml").prompt
    assert [c.get("appearance") for c in back.characters] == [("blue_hair",), ("red_hair",)]
    assert next(t.weight for t in back.tags if t.text == "red_hair") == 1.2
    assert back.general.get("weather") == ("rain",)


def test_plain_list_counts_the_people():
    text = (
        "<character_1><gender>1girl</gender><appearance>blue_hair</appearance></character_1>"
        "<character_2><gender>1girl</gender><n>rin</n></character_2>"
    )
    done = convert(text, "tags")
    assert done.text == "2girls, blue_hair, rin\n"
    assert done.remarks


@pytest.mark.parametrize("kind", ["json", "yaml", "toml"])
@pytest.mark.parametrize(
    "text",
    [
        "<scene><character_1><n>miku</n><appearance>a, <!-- weight:0.6 -->b, <3, &#44;x</appearance></character_1>"
        '<environment><weather>rain</weather></environment><caption>Yes, "no".</caption></scene>',
        "<!-- version: 7 --><!-- weight:2 --><style>a</style><caption>x</caption><character_1><position>0,0,1,1</position>"
        "</character_1><general_tags><environment>indoors</environment></general_tags>",
        "a, b, <!-- weight:2 -->c",
        "A girl is here.",
    ],
)
def test_plain_values_there_and_back(text: str, kind: str):
    prompt = parse(text)
    assert load(dump(prompt, kind), kind).meaning() == prompt.meaning()
    assert guess(dump(prompt, kind)) == kind


@pytest.mark.parametrize(
    ("text", "kind"),
    [("{", "json"), ("[1]", "json"), ("a: [", "yaml"), ("= 1", "toml"), ('{"character_1": {"n": [true]}}', "json"),
     ('{"a b": ["x"]}', "json"), ('{"root": "html"}', "json"), ('{"n": [{"tag": "x", "weight": 9}]}', "json"),
     ("[" * 100_000, "json"), ("a: &x [1]\nb: *x", "yaml")],
)  # fmt: skip
def test_damaged_values_are_refused(text: str, kind: str):
    with pytest.raises(PromptError):
        load(text, kind)


def test_mapping_shape():
    values = {
        "character_1": {"n": ["miku"], "appearance": ["a", {"tag": "b", "weight": 0.5}]},
        "caption": "Hi, you.",
    }
    assert to_mapping(from_mapping(values)) == values


def test_unknown_notation():
    with pytest.raises(PromptError, match="choose one of xml"):
        convert("a", "pdf")  # type: ignore[arg-type]


FULL = (
    "<!-- version: 3 --><character_1><n>hatsune_miku</n><gender>1girl</gender>"
    "<appearance>long_hair, <!-- weight:0.6 -->blue_hair <!-- a note --></appearance>"
    "<position>left</position></character_1>"
    "<character_2><appearance>red_hair</appearance><position>0,0,1,1</position></character_2>"
    "<general_tags><count>2others</count></general_tags>"
)


def test_a_sentence_says_who_it_is_and_what_it_cannot_hold():
    done = convert(FULL, "sentence")
    assert done.text == (
        "on the left a girl named hatsune miku with long hair and blue hair, and a person with red hair.\n"
    )
    assert done.remarks == (
        "1 note was left out; `newbie prompt format` keeps them",
        "the version note '3' was left out",
        "a sentence holds no weights; lost: blue_hair 0.6",
        "character_2.position (0,0,1,1) was left out",
        "character_2: no gender; write 1girl, 1boy or 1other in <gender>",
        "general_tags.count (2others) was left out",
    )
    girl = convert(done.text, "xml").prompt.character(1)
    assert (girl.name, girl.gender, girl.position) == ("hatsune_miku", "1girl", "left")


@pytest.mark.parametrize(
    ("to", "lost"),
    [
        ("a1111", ("note", "version", "character_1.position", "character_2.position", "whose")),
        ("tags", ("note", "version", "character_1.position", "character_2.position", "whose")),
        ("flat", ("note", "version")),
        ("json", ("note",)),
        ("xml", ("note",)),
    ],
)
def test_remarks_name_what_a_notation_does_not_hold(to, lost: tuple[str, ...]):
    remarks = convert(FULL, to).remarks
    assert len(remarks) == len(lost)
    for word, remark in zip(lost, remarks, strict=True):
        assert word in remark


def test_nothing_is_remarked_where_nothing_is_lost():
    text = "<character_1><gender>1boy</gender><appearance>red_hair</appearance></character_1>"
    done = convert(text, "sentence")
    assert (done.text, done.remarks) == ("a boy with red hair.\n", ())


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("Two girls hold hands.", "holding_hands"),
        ("手をつなぐ、青い髪", "holding_hands"),
        ("蓝发少女站在雨中", "standing"),
        ("蓝发少女坐在雨中", "sitting"),
        ("少女，站，蓝发", "standing"),
    ],
)
def test_everyday_words_of_posture_and_hands(text: str, tag: str):
    done = convert(text, "xml")
    assert tag in {e.tag for e in done.explained}
    assert done.unknown == ()
