"""Looking at a picture while a bundle of random weights draws it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from newbie_image.binding.sight import Sight, block_numbers
from newbie_image.errors import OutputError, RequestError
from newbie_image.explain.folder import prepare_folder, write_folder
from newbie_image.explain.looking import Explanation, LookChoice, Looking
from newbie_image.explain.numbers import numbers, tag_file
from newbie_image.explain.overlay import colours, heat_picture, level, regions_picture
from newbie_image.explain.page import page
from newbie_image.latents import seeded_noise
from newbie_image.pipeline import NewbiePipeline
from newbie_image.request import GenerationRequest, PictureDone, UsedRegions
from tests import tiny

SECOND = "<appearance>black_hair, glasses</appearance>"
PLACED = tiny.XML_PROMPT.replace(SECOND, SECOND + "\n<position>right</position>")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> NewbiePipeline:
    folder: Path = tmp_path_factory.mktemp("bundle")
    return NewbiePipeline.from_pretrained(tiny.write_bundle(folder))


def look(
    pipeline: NewbiePipeline, request: GenerationRequest, choice: LookChoice, picture: int = 0
) -> tuple[Explanation, PictureDone]:
    looking = Looking(pipeline, request, choice, picture)
    done = None
    for event in pipeline.stream(request, sights=(looking.sight,)):
        looking.read(event)
        done = event
    assert isinstance(done, PictureDone)
    assert looking.explanation is not None
    return looking.explanation, done


@pytest.fixture(scope="module")
def seen(pipeline: NewbiePipeline) -> Explanation:
    request = GenerationRequest(PLACED, seed=5)
    return look(pipeline, request, LookChoice(blocks="all", steps="1,3", previews=2))[0]


def test_looking_changes_nothing_and_sees_every_tag(pipeline: NewbiePipeline, seen: Explanation) -> None:
    *_, plain = pipeline.stream(GenerationRequest(PLACED, seed=5))
    assert isinstance(plain, PictureDone)
    assert seen.picture.image.tobytes() == plain.images[0].image.tobytes()
    assert [(span.text, span.group) for span in seen.spans][:3] == [
        ("momo", 1),
        ("1girl", 1),
        ("pink_hair", 1),
    ]
    assert len(seen.tags) == len(seen.spans) == 13
    assert seen.names == ("momo", None)
    assert (seen.regions, len(seen.boxes), len(seen.areas)) == ("given", 2, 3)
    assert sum(seen.areas) == pytest.approx(1)
    for heat in (*seen.tags, *seen.characters):
        assert heat.map.shape == (3, 4)
        assert heat.map.min() >= 0
        assert sum(heat.inside) == pytest.approx(1)
        assert heat.attention is not None
        assert 0 < heat.attention < 1
        assert heat.centre is not None
        assert all(0 < place < 1 for place in heat.centre)
    # A character's tags are some of its tokens, so they get less of the attention than the whole.
    first = sum(h.attention or 0 for s, h in zip(seen.spans, seen.tags, strict=True) if s.group == 1)
    assert first < (seen.characters[0].attention or 0)


def test_the_trace_is_by_step(pipeline: NewbiePipeline, seen: Explanation) -> None:
    assert [step.index for step in seen.trace] == [1, 2, 3]
    assert [step.characters is None for step in seen.trace] == [False, True, False]
    assert [step.preview is None for step in seen.trace] == [True, False, False]
    assert seen.trace[-1].t == pytest.approx(1)
    sizes, norms = [step.step_size for step in seen.trace], [step.guidance_norm for step in seen.trace]
    assert min(sizes) > 0
    assert all(norm is not None and norm > 0 for norm in norms)
    # Without guidance there is no norm, and one step goes all the way.
    free = GenerationRequest(PLACED, seed=5, guidance_scale=1.0, steps=1)
    alone, done = look(pipeline, free, LookChoice())
    assert alone.trace[0].guidance_norm is None
    assert done.latents is not None
    way = done.latents[0] - seeded_noise(5, 1, (16, 6, 8))[0]
    assert alone.trace[0].step_size == pytest.approx(float(way.norm()), rel=1e-5)


def test_guidance_norms_are_those_of_the_velocities(pipeline: NewbiePipeline) -> None:
    # c + 2 · (c − u) is scale 3: the first step ends 2 · pull · dt away from the one without guidance.
    plain, one = (GenerationRequest(PLACED, seed=5, guidance_scale=scale) for scale in (1.0, 3.0))
    looking = Sight(steps=frozenset({0}), pull=True)
    events = pipeline.stream(one, sights=(looking,))
    next(events)
    guided = next(events)
    events.close()
    events = pipeline.stream(plain)
    next(events)
    free = next(events)
    events.close()
    apart = float((guided.latents - free.latents).norm())  # pyright: ignore[reportAttributeAccessIssue]
    reached = guided.t  # pyright: ignore[reportAttributeAccessIssue]
    assert looking.pulls[0][0][0] == pytest.approx(apart / (2 * reached), rel=1e-3)


def test_the_second_of_two_pictures_is_explained_as_it_would_be_alone(pipeline: NewbiePipeline) -> None:
    both = GenerationRequest(PLACED, seed=4, count=2, batch=2)
    second, _ = look(pipeline, both, LookChoice(previews=0), picture=1)
    alone, _ = look(pipeline, GenerationRequest(PLACED, seed=5), LookChoice(previews=0))
    assert second.picture.seed == 5
    for one, other in zip(second.tags, alone.tags, strict=True):
        torch.testing.assert_close(one.map, other.map, atol=1e-5, rtol=1e-3)
    for one, other in zip(second.trace, alone.trace, strict=True):
        assert one.step_size == pytest.approx(other.step_size, rel=1e-3)


def test_regions_come_from_the_binding_the_prompt_or_the_picture(pipeline: NewbiePipeline) -> None:
    free = tiny.XML_PROMPT.replace("<position>center_left</position>\n", "")
    found, _ = look(pipeline, GenerationRequest(free, seed=5), LookChoice(kind="similarity", blocks="0"))
    assert (found.regions, found.boxes) == ("found", ())
    assert found.tags[0].attention is None
    bound, done = look(pipeline, GenerationRequest(PLACED, seed=5, binding="region"), LookChoice())
    assert (bound.regions, bound.boxes) == ("given", done.regions[0].boxes)
    assert done.regions[0].masks.shape == (2, 3, 4)
    tags, _ = look(pipeline, GenerationRequest(tiny.TAGS_PROMPT, seed=5), LookChoice())
    assert (tags.regions, tags.areas, tags.characters) == ("none", (), ())


def test_used_regions_are_told_with_the_picture(pipeline: NewbiePipeline) -> None:
    free = tiny.XML_PROMPT.replace("<position>center_left</position>\n", "")
    request = GenerationRequest(free, seed=5, binding="region", count=3, batch=2)
    *_, found = pipeline.stream(request)
    *_, off = pipeline.stream(GenerationRequest(PLACED, seed=5, binding="text"))
    assert isinstance(found, PictureDone)
    assert isinstance(off, PictureDone)
    assert off.regions == ()
    assert [each.boxes for each in found.regions] == [(), (), ()]
    assert not torch.equal(found.regions[0].masks, found.regions[1].masks)
    assert all(float(each.masks.sum(0).max()) <= 1 + 1e-5 for each in found.regions)


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"kind": "heat"}, "attention, similarity"),
        ({"blocks": "upper"}, "early, middle, late"),
        ({"blocks": "0-7"}, "there is no block 7 to look at; there are 0 to 1"),
        ({"blocks": "3-1"}, "not understood"),
        ({"steps": "0"}, "there is no step 0 to look at; there are 1 to"),
        ({"steps": "2,4"}, "there is no step 4 to look at; there are 1 to 3"),
        ({"steps": "late"}, "give all, or numbers from 1"),
        ({"previews": -1}, "0 to 50"),
        ({"kind": "similarity", "blocks": "1"}, "keeps the picture only"),
    ],
)
def test_what_cannot_be_looked_at_is_said(
    pipeline: NewbiePipeline, choice: dict[str, object], said: str
) -> None:
    with pytest.raises(RequestError, match=said):
        Looking(pipeline, GenerationRequest(PLACED), LookChoice(**choice))  # pyright: ignore[reportArgumentType]


def test_what_cannot_be_explained_is_said(pipeline: NewbiePipeline) -> None:
    for request, said in (
        (GenerationRequest(" "), "no tags to look at"),
        (GenerationRequest(PLACED, changes=((1, "1girl"),)), "--at-steps 1-1 or 2-3"),
        (GenerationRequest(PLACED, changes=((1, " "),)), "no tags to look at"),
        (GenerationRequest(PLACED, count=2), "batches of 1"),
    ):
        with pytest.raises(RequestError, match=said):
            Looking(pipeline, request, LookChoice())
    with pytest.raises(RequestError, match="there is no block 9"):
        next(pipeline.stream(GenerationRequest(PLACED), sights=(Sight(blocks=(9,)),)))
    changing = pipeline.stream(GenerationRequest(PLACED, changes=((1, "1girl"),)), sights=(Sight(),))
    with pytest.raises(RequestError, match="cannot be added"):
        list(changing)


def test_a_picture_under_several_prompts_is_explained_where_their_words_are_the_same(
    pipeline: NewbiePipeline,
) -> None:
    weighed = PLACED.replace("pink_hair", "<!-- weight:2 -->pink_hair")
    seen, done = look(pipeline, GenerationRequest(PLACED, seed=5, changes=((1, weighed),)), LookChoice())
    *_, plain = pipeline.stream(GenerationRequest(PLACED, seed=5))
    assert isinstance(plain, PictureDone)
    assert done.latents is not None
    assert plain.latents is not None
    assert not torch.equal(done.latents, plain.latents)
    assert [span.weight for span in seen.spans if span.text == "pink_hair"] == [2.0]
    found = numbers(seen)
    assert found["prompt"] == PLACED
    assert found["changes"] == [{"step": 2, "prompt": weighed}]
    # Other words: on either side of the change.
    other = GenerationRequest(PLACED, seed=5, changes=((1, tiny.TAGS_PROMPT),))
    before, _ = look(pipeline, other, LookChoice(steps="1"))
    after, _ = look(pipeline, other, LookChoice(steps="2-3"))
    assert before.names == ("momo", None)
    assert (after.names, [span.text for span in after.spans][:2]) == ((), ["1girl", "pink_hair"])


def test_characters_keep_their_numbers(pipeline: NewbiePipeline) -> None:
    turned = PLACED.replace("character_1>", "character_7>")
    seen, _ = look(pipeline, GenerationRequest(turned, seed=5), LookChoice())
    found = numbers(seen)
    assert [each["character"] for each in found["characters"]] == [7, 2]
    assert {each["character"] for each in found["tags"]} == {7, 2, None}
    assert list(found["regions"]["areas"]) == ["character_7", "character_2", "outside"]
    *_, done = pipeline.stream(GenerationRequest(turned, seed=5, binding="region"))
    assert isinstance(done, PictureDone)
    assert done.regions[0].labels == (7, 2)


@pytest.mark.parametrize("form", ["typed", "flat"])
def test_a_character_of_whom_nothing_is_said_has_an_empty_map(
    pipeline: NewbiePipeline, tmp_path: Path, form: str
) -> None:
    silent = tiny.XML_PROMPT.replace("<character_1>", "<!-- weight:0 --><character_1>")
    request = GenerationRequest(silent, seed=5, text_form=form)
    seen, _ = look(pipeline, request, LookChoice(previews=0))
    assert float(seen.characters[0].map.max()) == 0
    assert float(seen.characters[1].map.max()) > 0
    prepare_folder(tmp_path / "seen")
    assert write_folder(seen, request, tmp_path / "seen").exists()


def test_a_third_of_few_blocks_is_one_at_least() -> None:
    assert [block_numbers(name, 2) for name in ("early", "middle", "late")] == [(0,), (0, 1), (1,)]
    assert [block_numbers(name, 7) for name in ("early", "middle", "late")] == [(0, 1), (2, 3, 4), (5, 6)]
    assert block_numbers("all", 3) == (0, 1, 2)


def test_colours_are_even_steps_of_light() -> None:
    ramp = colours(np.linspace(0, 1, 33)).astype(float) @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(ramp) > 0).all()
    assert level(torch.zeros(2, 2)).max() == 0


def test_a_map_is_bright_where_it_is_hot_and_the_picture_grey_elsewhere() -> None:
    picture = Image.new("RGB", (64, 48), (200, 40, 40))
    heat = torch.zeros(3, 4)
    heat[0, 3] = 1.0
    drawn = np.asarray(heat_picture(picture, heat)).astype(int)
    assert drawn.shape == (384, 512, 3)
    assert drawn[40, 470].sum() > 450
    cold = drawn[340, 40]
    assert cold.max() - cold.min() <= 3


def test_regions_are_drawn_with_boxes_or_outlines_and_numbers() -> None:
    picture = Image.new("RGB", (64, 48), (128, 128, 128))
    masks = torch.zeros(2, 3, 4)
    masks[0, :, :2] = 1
    masks[1, :, 2:] = 1
    boxed = np.asarray(regions_picture(picture, UsedRegions(((0, 0, 0.5, 1), (0.5, 0, 1, 1)), masks)))
    found = np.asarray(regions_picture(picture, UsedRegions((), masks)))
    assert boxed.shape == found.shape == (384, 512, 3)
    assert tuple(boxed[100, 0]) == (230, 159, 0)
    assert tuple(boxed[100, 511]) == (86, 180, 233)
    assert not (found == boxed).all()
    for drawn in (boxed, found):
        assert (drawn == 255).all(-1).any()  # the numbers
        assert (drawn[60:340, 60:100] != 128).any()
    # A box of less than a pixel, a region of nothing, and other numbers than 1 and 2.
    small = regions_picture(picture, UsedRegions(((0.5, 0.5, 0.501, 0.501), (0.5, 0, 1, 1)), masks))
    assert small.size == (512, 384)
    masks[0] = 0
    assert regions_picture(picture, UsedRegions((), masks)).size == (512, 384)
    other = np.asarray(regions_picture(picture, UsedRegions((), masks, (2, 1))))
    assert (other != np.asarray(regions_picture(picture, UsedRegions((), masks)))).any()


def test_the_folder_holds_what_the_page_names(tmp_path: Path, seen: Explanation) -> None:
    folder = tmp_path / "new" / "explained"
    prepare_folder(folder)
    written = write_folder(seen, GenerationRequest(PLACED, seed=5), folder)
    told = json.loads((folder / "explain.json").read_text(encoding="utf-8"))
    assert (told["prompt"], told["seed"], told["steps"]) == (PLACED, 5, [1, 3])
    maps = [entry["map"] for entry in (*told["characters"], *told["tags"])]
    assert len(set(maps)) == 15
    names = {"explain.json", "index.html", "picture.png"}
    assert {file.name for file in folder.iterdir()} == {*maps, *names}
    assert set(told["tags"][0]["inside"]) == {"character_1", "character_2", "outside"}
    assert told["trace"][1]["characters"] is None
    html = written.read_text(encoding="utf-8")
    assert html.count("data:image/png;base64,") == 1 + 15 + 2 + 1
    assert "http" not in html.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")
    prepare_folder(folder)  # an earlier explanation gives way
    (folder / "explain.json").unlink()
    with pytest.raises(OutputError, match="holds other files"):
        prepare_folder(folder)


def test_a_prompt_cannot_end_the_pages_script(pipeline: NewbiePipeline) -> None:
    evil = "1girl, a&lt;/script&gt;&lt;!--b, \u2028c"
    text = page(look(pipeline, GenerationRequest(evil, seed=1), LookChoice(previews=0))[0])
    assert text.count("</script>") == 1
    assert "<!--" not in text.split("<script>")[1]
    assert tag_file(3, "character_1.appearance[0]", "../a b/猫") == "tag-03-character_1-_a_b.png"
