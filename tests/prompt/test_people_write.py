"""Twenty prompts as people of this field write them: what each means, written out, and that nothing of it is lost."""

from __future__ import annotations

import pytest

from newbie_image.errors import PromptError
from newbie_image.prompt import parse
from newbie_image.prompt.document import Comment, Element, Node, Prompt, Tag
from newbie_image.prompt.write import format_prompt, write

# name, text, kind, {path: [tags]}, {path of a tag: weight}
PROMPTS: list[tuple[str, str, str, dict[str, list[str]], dict[str, float]]] = [
    ("heart", "<character_1><expression>smile, <3, ^_^</expression></character_1>", "xml",
     {"character_1.expression": ["smile", "<3", "^_^"]}, {}),
    ("closed eyes face at the end", "<character_1><expression>>_<</expression><pose>v</pose></character_1>", "xml",
     {"character_1.expression": [">_<"], "character_1.pose": ["v"]}, {}),
    ("ampersand and entity", "<general_tags><other>tom & jerry, q&amp;a, r&b</other></general_tags>", "xml",
     {"general_tags.other": ["tom & jerry", "q&a", "r&b"]}, {}),
    ("escaped series", r"<character_1><n>miku \(vocaloid\)</n></character_1>", "xml",
     {"character_1.n": ["miku (vocaloid)"]}, {}),
    ("full-width commas", "<character_1><appearance>蓝发，双马尾、红瞳</appearance></character_1>", "xml",
     {"character_1.appearance": ["蓝发", "双马尾", "红瞳"]}, {}),
    ("image root", "<image>\n  <character_1>\n    <gender>1girl</gender>\n  </character_1>\n</image>\n", "xml",
     {"character_1.gender": ["1girl"]}, {}),
    ("img root and name alias", "<img><character_1><name>rin</name></character_1></img>", "xml",
     {"character_1.n": ["rin"]}, {}),
    ("a note", "<character_1><!-- my oc --><appearance>red_hair <!-- darker? -->, smile</appearance></character_1>", "xml",
     {"character_1.appearance": ["red_hair", "smile"]}, {}),
    ("weights multiply", "<character_1><!-- weight:1.5 --><clothing>hat, <!-- weight:0.5 -->scarf</clothing></character_1>",
     "xml", {"character_1.clothing": ["hat", "scarf"]}, {"character_1.clothing[0]": 1.5, "character_1.clothing[1]": 0.75}),
    ("weight zero and below a tenth", "<general_tags><style><!-- weight:0 -->3d, <!-- weight:0.02 -->sketch</style></general_tags>",
     "xml", {"general_tags.style": ["3d", "sketch"]}, {"general_tags.style[0]": 0.0, "general_tags.style[1]": 0.1}),
    ("missing ends", "<character_1><n>miku<gender>1girl</gender><appearance>blue_hair</character_1>", "tolerant",
     {"character_1.n": ["miku"], "character_1.gender": ["1girl"], "character_1.appearance": ["blue_hair"]}, {}),
    ("end without its slash", "<character_1><n>len<n><gender>1boy</gender></character_1>", "tolerant",
     {"character_1.n": ["len"], "character_1.gender": ["1boy"]}, {}),
    ("CDATA", "<general_tags><other><![CDATA[<b>, x < y & z]]></other></general_tags>", "xml",
     {"general_tags.other": ["<b>", "x < y & z"]}, {}),
    ("one tag a line", "<character_1>\n<clothing>\nred_dress\nboots\r\nhat\n</clothing>\n</character_1>", "xml",
     {"character_1.clothing": ["red_dress", "boots", "hat"]}, {}),
    ("caption keeps its commas", "<caption>A girl, alone,\nlooks at the sea & smiles.</caption><character_1></character_1>", "xml",
     {"caption": ["A girl, alone,\nlooks at the sea & smiles."]}, {}),
    ("danbooru tags", "1girl, solo, hatsune_miku, c++, :<, 😀, looking at viewer", "tags",
     {"tags": ["1girl", "solo", "hatsune_miku", "c++", ":<", "😀", "looking at viewer"]}, {}),
    ("plus between CJK words", "蓝发双马尾+水手服+雨天", "tags", {"tags": ["蓝发双马尾", "水手服", "雨天"]}, {}),
    ("a sentence", "A girl with blue hair walks through the rain, holding an umbrella.", "sentence",
     {"caption": ["A girl with blue hair walks through the rain, holding an umbrella."]}, {}),
    ("loose quality tags, unknown element",
     "masterpiece, best_quality\n<character_1><gender>1girl</gender></character_1>\n<mood>calm, blue</mood>", "xml",
     {"text": ["masterpiece", "best_quality"], "character_1.gender": ["1girl"], "mood": ["calm", "blue"]}, {}),
    ("box, version, lora-like text, numeric entity",
     "<!-- version: 3 --><scene><character_2><position>0.1, 0.2,0.5,0.9</position></character_2>"
     "<general_tags><other><lora:x:0.8>, &#9829;, &bogus;</other></general_tags></scene>", "xml",
     {"character_2.position": ["0.1, 0.2,0.5,0.9"], "general_tags.other": ["<lora:x:0.8>", "♥", "&bogus;"]}, {}),
]  # fmt: skip


def read(text: str, kind: str) -> Prompt:
    if kind == "tolerant":
        with pytest.raises(PromptError):
            parse(text)
        return parse(text, strict=False)
    return parse(text)


@pytest.mark.parametrize(
    ("text", "kind", "tags", "weights"), [p[1:] for p in PROMPTS], ids=[p[0] for p in PROMPTS]
)
def test_prompt_means_what_was_meant(
    text: str, kind: str, tags: dict[str, list[str]], weights: dict[str, float]
):
    prompt = read(text, kind)
    assert prompt.kind == ("xml" if kind == "tolerant" else kind)
    assert {s.path: list(s.texts) for g in prompt.groups for s in g.sections if s.tags} == tags
    for tag in prompt.tags:
        assert tag.weight == pytest.approx(weights.get(tag.path, 1.0))


@pytest.mark.parametrize(("text", "kind"), [p[1:3] for p in PROMPTS], ids=[p[0] for p in PROMPTS])
def test_prompt_is_round_tripped_losslessly(text: str, kind: str):
    prompt = read(text, kind)
    assert prompt.source == text
    assert "".join(pieces(prompt)) == text
    canonical = write(prompt)
    assert write(parse(canonical)) == canonical
    assert parse(canonical).meaning() == prompt.meaning()
    assert format_prompt(parse(canonical)) == canonical


def pieces(prompt: Prompt) -> list[str]:
    """The source again, put together from the tree: marks, tags and comments by their spans, gaps between them."""
    out: list[str] = []
    position = 0

    def take(start: int, end: int) -> None:
        nonlocal position
        if end > position:
            assert start >= position, "a node overlaps another one"
            gap = prompt.source[position:start]
            assert not gap.strip(" \t\r\n,，、+"), f"{gap!r} is in no node"
            out.append(prompt.source[position:end])
            position = end

    def visit(nodes: tuple[Node, ...]) -> None:
        for node in nodes:
            if isinstance(node, Element):
                take(node.start, node.inner_start)
                visit(node.children)
                take(node.inner_end, node.end)
            elif isinstance(node, (Tag, Comment)):
                take(node.start, node.end)

    visit(prompt.tree)
    rest = prompt.source[position:]
    assert not rest.strip(" \t\r\n,，、+")
    return [*out, rest]
