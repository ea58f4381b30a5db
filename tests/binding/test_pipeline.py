"""Binding on the whole path: off changes nothing, modes change the picture, all is recorded."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from newbie_image.binding import sight
from newbie_image.binding.binding import decide
from newbie_image.binding.sight import Sight
from newbie_image.binding_modes import MODES, read_binding
from newbie_image.cli.drawing import late_remarks
from newbie_image.errors import PromptError, RequestError
from newbie_image.pipeline import NewbiePipeline
from newbie_image.prompt import parse
from newbie_image.provenance import from_json, record_picture, to_json
from newbie_image.request import GenerationRequest, PictureDone, StepDone, TextEncoded
from tests import tiny

SECOND = "<appearance>black_hair, glasses</appearance>"
PLACED = tiny.XML_PROMPT.replace(SECOND, SECOND + "\n<position>right</position>")
WEIGHED = PLACED.replace("pink_hair", "<!-- weight:2 -->pink_hair")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> NewbiePipeline:
    folder: Path = tmp_path_factory.mktemp("bundle")
    return NewbiePipeline.from_pretrained(tiny.write_bundle(folder))


def draw(pipeline: NewbiePipeline, prompt: str, binding: str) -> tuple[PictureDone, tuple[str, ...]]:
    warnings: tuple[str, ...] = ()
    for event in pipeline.stream(GenerationRequest(prompt, seed=5, binding=binding)):
        if isinstance(event, TextEncoded):
            warnings = event.warnings
        if isinstance(event, PictureDone):
            return event, warnings
    raise AssertionError


def latents(pipeline: NewbiePipeline, prompt: str, binding: str) -> torch.Tensor:
    found = draw(pipeline, prompt, binding)[0].latents
    assert found is not None
    return found


def test_auto_without_weights_is_off_to_the_bit(pipeline: NewbiePipeline) -> None:
    off = latents(pipeline, PLACED, "off")
    assert torch.equal(latents(pipeline, PLACED, "auto"), off)
    one = PLACED.replace("pink_hair", "<!-- weight:1 -->pink_hair")
    assert torch.equal(latents(pipeline, one, "auto"), off)


def test_each_mode_draws_another_picture(pipeline: NewbiePipeline) -> None:
    drawn = {
        mode: latents(pipeline, PLACED, mode)
        for mode in ("off", "encode", "text", "region", "full", "sealed")
    }
    names = list(drawn)
    for place, first in enumerate(names):
        assert torch.isfinite(drawn[first]).all()
        for second in names[place + 1 :]:
            assert not torch.equal(drawn[first], drawn[second]), (first, second)


def test_weights_act_and_are_said_where_they_do_not(pipeline: NewbiePipeline) -> None:
    plain = latents(pipeline, PLACED, "off")
    assert not torch.equal(latents(pipeline, WEIGHED, "auto"), plain)
    done, warnings = draw(pipeline, WEIGHED, "off")
    assert done.latents is not None
    assert torch.equal(done.latents, plain)
    assert any("does not use them; add weights=on" in warning for warning in warnings)


def test_a_prompt_without_characters_says_that_binding_is_off(pipeline: NewbiePipeline) -> None:
    done, warnings = draw(pipeline, tiny.TAGS_PROMPT, "full")
    assert done.latents is not None
    assert torch.equal(done.latents, latents(pipeline, tiny.TAGS_PROMPT, "off"))
    assert any("the prompt has none: it is off" in warning for warning in warnings)


def test_the_record_says_what_acted_and_is_read_back(pipeline: NewbiePipeline) -> None:
    setting = "full,beta_minus=5,window=0-0.5"
    request = GenerationRequest(PLACED, seed=5, binding=setting)
    record = record_picture(draw(pipeline, PLACED, setting)[0].images[0], request)
    assert from_json(to_json(record)).request.binding == setting
    plain = record_picture(draw(pipeline, PLACED, "auto")[0].images[0], replace(request, binding="auto"))
    assert plain.request.binding == "off"
    assert '"binding"' not in to_json(plain)  # older versions read it
    assert from_json(to_json(plain)).request.binding == "off"


def test_guidance_in_one_batch_or_two_passes(pipeline: NewbiePipeline) -> None:
    before = pipeline.guidance_in_one_batch
    try:
        pipeline.guidance_in_one_batch = True
        together = latents(pipeline, PLACED, "full")
        pipeline.guidance_in_one_batch = False
        torch.testing.assert_close(latents(pipeline, PLACED, "full"), together, atol=1e-4, rtol=1e-4)
    finally:
        pipeline.guidance_in_one_batch = before


def test_regions_are_found_where_no_place_is_given(pipeline: NewbiePipeline) -> None:
    # Without any place the first step is the text's alone; what it reads decides where the others act.
    free = tiny.XML_PROMPT.replace("<position>center_left</position>\n", "")
    request = GenerationRequest(free, seed=5, binding="region", count=2, batch=2)
    *_, found = pipeline.stream(request)
    *_, text = pipeline.stream(replace(request, binding="text"))
    assert isinstance(found, PictureDone)
    assert isinstance(text, PictureDone)
    assert found.latents is not None
    assert text.latents is not None
    assert not torch.equal(found.latents, text.latents)
    # Each picture has its own: alone it is the same picture.
    *_, second = pipeline.stream(replace(request, seed=6, count=1))
    assert isinstance(second, PictureDone)
    assert second.latents is not None
    torch.testing.assert_close(second.latents[0], found.latents[1], atol=1e-4, rtol=1e-4)


def test_sight_collects_shares_of_attention(
    pipeline: NewbiePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = Sight(blocks=(0, 1))
    once = Sight(blocks=(1,), steps=frozenset({1}), chunk=5)
    alike = Sight(blocks=(0,), kind="similarity")
    *_, done = pipeline.stream(GenerationRequest(PLACED, seed=5), sights=(every, once, alike))
    assert isinstance(done, PictureDone)
    assert done.latents is not None
    assert torch.equal(done.latents[0], latents(pipeline, PLACED, "off")[0])  # looking changes nothing
    length = len(pipeline.tokenizer(tiny.SETTINGS.text.system_prompt_xml + PLACED)["input_ids"])
    for looking, looks in ((every, 6), (once, 1), (alike, 3)):
        assert looking.looks == looks
        assert looking.maps.shape == (1, length, 12)
    monkeypatch.setattr(sight, "MAX_SCORES", 1)  # one image token at a time
    least = Sight(blocks=(0, 1))
    list(pipeline.stream(GenerationRequest(PLACED, seed=5), sights=(least,)))
    torch.testing.assert_close(least.maps, every.maps)
    share = every.maps.sum(1)
    assert share.min() > 0
    assert share.max() < 1
    with pytest.raises(ValueError, match="nothing was looked at"):
        _ = Sight().maps


def test_a_weight_changes_in_the_middle_and_is_replayed(pipeline: NewbiePipeline) -> None:
    request = GenerationRequest(PLACED, seed=5)
    events = pipeline.stream(request)
    event, reply, after_first = next(events), None, None
    while not isinstance(event, PictureDone):
        reply = WEIGHED if isinstance(event, StepDone) and event.index == 1 else None
        if isinstance(event, StepDone) and event.index == 1:
            after_first = event.latents.clone()
        event = events.send(reply)
    assert event.latents is not None
    plain = [each for each in pipeline.stream(request) if isinstance(each, StepDone)]
    assert after_first is not None
    assert torch.equal(after_first, plain[0].latents)
    assert not torch.equal(event.latents, plain[-1].latents.cpu())
    record = from_json(to_json(record_picture(event.images[0], request)))
    assert record.request.changes == ((1, WEIGHED),)
    *_, again = pipeline.stream(record.request)
    assert isinstance(again, PictureDone)
    assert again.latents is not None
    assert torch.equal(again.latents, event.latents)


def test_a_change_that_cannot_act_is_refused_before_the_work(pipeline: NewbiePipeline) -> None:
    late = GenerationRequest(PLACED, changes=((3, WEIGHED),))
    with pytest.raises(RequestError, match="from step 4 on, but the picture has 3; give an earlier"):
        next(pipeline.stream(late))
    with pytest.raises(PromptError):
        next(pipeline.stream(replace(late, changes=((1, "<n>a"),))))
    events = pipeline.stream(GenerationRequest(PLACED))
    event = next(events)
    while not (isinstance(event, StepDone) and event.index == 3):
        event = next(events)
    with pytest.raises(RequestError, match="after step 3, the last one"):
        events.send(WEIGHED)


def test_what_is_to_be_said_of_a_later_prompt_is_said(pipeline: NewbiePipeline) -> None:
    request = GenerationRequest(PLACED, binding="off", changes=((1, WEIGHED),))
    events = list(pipeline.stream(request))
    told = [place for place, event in enumerate(events) if isinstance(event, TextEncoded)]
    assert told == [0, 2]  # after the first step, before the second
    first, second = (events[place] for place in told)
    assert isinstance(first, TextEncoded)
    assert isinstance(second, TextEncoded)
    assert first.warnings == ()
    assert len(second.warnings) == 1
    assert "does not use them; add weights=on" in second.warnings[0]


def test_a_prompt_that_comes_late_is_in_the_records_of_what_it_reached(pipeline: NewbiePipeline) -> None:
    request = GenerationRequest(PLACED, seed=5, count=2)
    events = pipeline.stream(request)
    event = next(events)
    while not isinstance(event, PictureDone):
        sent = isinstance(event, StepDone) and event.index == 4  # the second picture's first step
        event = events.send(WEIGHED if sent else None)
    first, second = event.images
    assert first.settings["changes"] == ()
    assert second.settings["changes"] == ((1, WEIGHED),)
    for picture in (first, second):
        again = list(pipeline.stream(record_picture(picture, request).request))[-1]
        assert isinstance(again, PictureDone)
        assert torch.equal(again.images[0].latents, picture.latents)


def test_people_who_were_found_stay_where_they_are_under_another_prompt(pipeline: NewbiePipeline) -> None:
    free = tiny.XML_PROMPT.replace("<position>center_left</position>\n", "")
    weighed = free.replace("pink_hair", "<!-- weight:2 -->pink_hair")
    request = GenerationRequest(free, seed=5, binding="region", steps=4)
    *_, plain = pipeline.stream(request)
    *_, changed = pipeline.stream(replace(request, changes=((3, weighed),)))
    assert isinstance(plain, PictureDone)
    assert isinstance(changed, PictureDone)
    assert torch.equal(changed.regions[0].masks, plain.regions[0].masks)
    assert not torch.equal(changed.images[0].latents, plain.images[0].latents)


@pytest.mark.parametrize("form", ["typed", "flat"])
def test_a_character_of_whom_nothing_is_said_does_no_harm(pipeline: NewbiePipeline, form: str) -> None:
    free = tiny.XML_PROMPT.replace("<position>center_left</position>\n", "")
    silent = free.replace("<character_1>", "<!-- weight:0 --><character_1>")
    request = GenerationRequest(silent, seed=5, binding="region", text_form=form)
    *_, done = pipeline.stream(request)
    assert isinstance(done, PictureDone)
    assert float(done.regions[0].masks[0].max()) == 0
    assert float(done.regions[0].masks[1].max()) > 0


def test_regions_that_never_acted_are_not_shown(pipeline: NewbiePipeline) -> None:
    for prompt, setting, steps in (
        (PLACED, "region,window=0-0.1", 3),
        (tiny.XML_PROMPT, "region", 1),
        (tiny.XML_PROMPT, "region,window=0-0.4", 3),
    ):
        *_, done = pipeline.stream(GenerationRequest(prompt, binding=setting, steps=steps))
        assert isinstance(done, PictureDone)
        assert done.regions == ()


def test_more_people_than_training_saw_are_said(pipeline: NewbiePipeline) -> None:
    before = pipeline.settings
    text = before.text.model_copy(update={"trained_characters": 1})
    pipeline.settings = before.model_copy(update={"text": text})
    try:
        for setting in ("auto", "region"):
            _, warnings = draw(pipeline, PLACED, setting)
            assert any("2 characters; training stopped at 1" in warning for warning in warnings)
    finally:
        pipeline.settings = before
    assert draw(pipeline, PLACED, "auto")[1] == ()


def test_a_binding_that_training_did_not_see_is_said_and_drawn(pipeline: NewbiePipeline) -> None:
    before = pipeline.settings
    known = {"auto_binding": "text", "trained_bindings": ("off", "text", "full")}
    pipeline.settings = before.model_copy(update={"text": before.text.model_copy(update=known)})
    one = re.sub(r"<character_2>.*?</character_2>\n*", "", PLACED, flags=re.DOTALL)
    try:
        for setting, prompt in (
            ("auto", PLACED),
            ("auto", tiny.XML_PROMPT),
            ("auto", one),
            ("off", PLACED),
            ("off,weights=on", WEIGHED),
            ("text", PLACED),
            ("region,region=off", PLACED),
            ("full,beta_minus=5,window=0-0.5,layers=middle", PLACED),
        ):
            assert draw(pipeline, prompt, setting)[1] == (), setting
        for setting, prompt in (
            ("sealed", PLACED),
            ("encode", PLACED),
            ("encode", one),
            ("region", PLACED),
            ("full,background=off", PLACED),
            ("off,blind=on", PLACED),
        ):
            done, warnings = draw(pipeline, prompt, setting)
            assert warnings == (
                f"the model was not trained with binding {setting!r}, only with off, text, full; it is used "
                "all the same, and the picture may be worse",
            )
            assert done.images[0].settings["binding"] == setting
            # What --warnings-as-errors asks before anything is drawn.
            assert late_remarks(pipeline, GenerationRequest(prompt, binding=setting)) == warnings
        # A binding that is off for want of people is not said to be untrained.
        assert not any("trained" in said for said in draw(pipeline, tiny.TAGS_PROMPT, "sealed")[1])
    finally:
        pipeline.settings = before
    assert draw(pipeline, PLACED, "sealed")[1] == ()  # nothing is known, nothing is said


def test_the_mode_that_auto_chooses_is_not_said_to_be_untrained() -> None:
    nowhere = tiny.XML_PROMPT.replace("<position>center_left</position>\n", "")
    for prompt in (nowhere, PLACED):
        assert decide("auto", parse(prompt), "region", ("off", "region"))[1] == ()
    told = decide("text", parse(nowhere), "region", ("off", "region"))[1]
    assert "not trained with binding 'text'" in told[0]


def test_what_is_too_long_beside_a_binding_is_refused_or_said(pipeline: NewbiePipeline) -> None:
    request = GenerationRequest(PLACED, "a " * 600, binding="text", long_prompt="refuse")
    with pytest.raises(RequestError, match=r"the negative prompt has .* Gemma tokens"):
        next(pipeline.stream(request))
    told = next(pipeline.stream(replace(request, long_prompt="groups")))
    assert isinstance(told, TextEncoded)
    assert any("not read by groups" in warning for warning in told.warnings)


def test_a_weight_below_a_tenth_is_said(pipeline: NewbiePipeline) -> None:
    _, warnings = draw(pipeline, WEIGHED.replace("weight:2", "weight:0.05"), "auto")
    assert warnings == ("the weight 0.05 of character_1.appearance[0] acts as 0.1, the least above 0",)


def test_changes_are_checked() -> None:
    for wrong in ([(1, "1girl")], ((0, "1girl"),), ((1,),), ((1, 2),), ((2, "a"), (1, "b")), ((1, "a"),) * 2):
        with pytest.raises(RequestError, match="steps from 1"):
            GenerationRequest("1girl", changes=wrong)  # pyright: ignore[reportArgumentType]
    with pytest.raises(RequestError, match="binding 5 is not allowed"):
        GenerationRequest("1girl", binding=5)  # pyright: ignore[reportArgumentType]


def test_auto_is_the_bundles_mode_and_its_regions_need_positions() -> None:
    one, two = "<character_1><n>a</n></character_1>", "<character_2><n>b</n>{}</character_2>"
    placed = one.replace("</n>", "</n><position>left</position>") + two.format("<position>right</position>")
    nowhere = placed.replace("<position>left</position>", "").replace("<position>right</position>", "")
    half = placed.replace("<position>left</position>", "")
    for text, wanted, said in (
        (placed, MODES["region"], 0),
        (nowhere, MODES["off"], 0),
        (half, MODES["off"], 1),
        (one, MODES["off"], 0),
    ):
        parts, remarks = decide("auto", parse(text + "<general_tags>day</general_tags>"), "region")
        assert parts == replace(wanted, weights=False)
        assert len(remarks) == said
    _, (remark,) = decide("auto", parse(half + "<general_tags>day</general_tags>"), "region")
    assert "character_1 has no position" in remark
    assert "auto does not bind by 'region'" in remark
    assert decide("auto", parse(half + "<general_tags>day</general_tags>"), "text")[1] == ()


def test_sealed_keeps_a_character_out_of_the_other_half_in_guided_steps(pipeline: NewbiePipeline) -> None:
    halves = PLACED.replace("center_left", "0,0,0.5,1").replace("<position>right", "<position>0.5,0,1,1")

    # As many tokens in another order: the image's places in the rotary tables depend on the caption's length.
    first, second = "pink_hair, twintails", "twintails, pink_hair"

    def latents(hair: str, binding: str) -> torch.Tensor:
        prompt = halves.replace(first, hair)
        assert hair in prompt
        request = GenerationRequest(prompt, "bad", binding=binding, steps=3, seed=4, guidance_scale=3.0)
        *_, done = pipeline.stream(request)
        assert isinstance(done, PictureDone)
        return done.latents

    half = latents(first, "sealed").shape[-1] // 2
    apart = latents(first, "sealed") - latents(second, "sealed")
    assert apart[..., half:].abs().max() < 1e-5
    assert apart[..., :half].abs().max() > 1e-3
    through = latents(first, "full") - latents(second, "full")
    assert through[..., half:].abs().max() > 1e-5


def test_sealed_is_all_of_its_parts() -> None:
    for setting in ("sealed,text=off", "sealed,encode=off", "off,sealed=on"):
        with pytest.raises(RequestError, match="sealed holds only with all of encode, text"):
            read_binding(setting)
    assert read_binding("full,sealed=on") is not None
