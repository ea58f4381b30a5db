"""The sets ask what they say, and only the frozen prompts are asked."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from newbie_image.errors import ConfigError, RequestError
from newbie_image.nano.benchmark.frozen import (
    FROZEN_FILE,
    freeze,
    frozen_prompts,
    mixed_prompts,
    prompts_sha256,
    read_frozen,
)
from newbie_image.nano.benchmark.prompt_sets import (
    DIFFERING,
    FORMS,
    KINDS,
    LONGEST,
    differing_fields,
    make_prompt,
)
from newbie_image.nano.world.held_out import HELD_OUT_PAIRS, held_out_pairs
from newbie_image.nano.world.layout import places
from newbie_image.prompt import parse

ROOT = Path(__file__).parent.parent.parent.parent
SETS = [(kind, people) for kind, about in KINDS.items() for people in about.people]


@pytest.mark.parametrize("kind", ["seen", "held-out", "interactions", "swapped", "unplaced"])
def test_people_differ_in_everything_that_is_seen(kind: str):
    for people in KINDS[kind].people:
        for index in range(8):
            scene = make_prompt(kind, people, index).scene
            assert len(scene.characters) == people
            for field in set(DIFFERING) - ({"held", "pose"} if kind == "interactions" else set()):
                values = [v for v in (getattr(c, field) for c in scene.characters) if v is not None]
                assert len(set(values)) == len(values), (kind, people, index, field)


def test_held_out_pairs_are_asked_of_everybody_in_their_set_and_of_nobody_elsewhere():
    for kind, people in SETS:
        for index in range(12):
            scene = make_prompt(kind, people, index).scene
            if kind == "held-out":
                for character in scene.characters:
                    assert any(pair.fits(character) for pair in HELD_OUT_PAIRS)
            else:
                assert held_out_pairs(scene) == ()


def test_twins_differ_in_one_attribute_and_equals_in_none():
    fields: set[str] = set()
    for index in range(60):
        differing = differing_fields(make_prompt("twins", 3, index).scene)
        assert len(differing) == 1
        fields |= differing
    assert len(fields) > 9
    assert all(differing_fields(make_prompt("equal", 4, i).scene) == set() for i in range(20))


def test_interactions_interact_and_others_do_not():
    kinds = {make_prompt("interactions", 2, i).scene.interaction for i in range(40)}
    assert kinds == {"holding_hands", "facing_another", "back-to-back"}
    assert all(make_prompt("seen", 2, i).scene.interaction is None for i in range(40))


def test_swapped_prompts_ask_for_the_same_people_at_the_same_places_with_the_same_noise():
    for people in KINDS["swapped"].people:
        for index in range(4):
            plain, swapped = make_prompt("seen", people, index), make_prompt("swapped", people, index)
            assert swapped.noise_seed == plain.noise_seed
            assert swapped.scene.characters == plain.scene.characters[::-1]
            assert swapped.twin_key == plain.key != swapped.key
            first = parse(swapped.text("xml")).characters[0]
            last = parse(plain.text("xml")).characters[-1]
            assert [t.text for t in first.tags] == [t.text for t in last.tags]
            assert len(places(swapped.scene)) == people


def test_unplaced_prompts_say_no_position():
    plain, unplaced = make_prompt("seen", 3, 0), make_prompt("unplaced", 3, 0)
    assert [plain.says_where(form) for form in FORMS] == [True, False, True]
    assert not any(unplaced.says_where(form) for form in FORMS)
    assert "<position>" in plain.text("xml")
    assert "<position>" not in unplaced.text("xml")
    assert " on the left " in " " + plain.text("sentence")
    assert " on the left " not in " " + unplaced.text("sentence")
    assert [t for t in unplaced.text("xml").split("\n") if "position" not in t] == [
        t for t in plain.text("xml").split("\n") if "position" not in t
    ]


def test_every_set_is_frozen_with_961_prompts_and_the_protocol_names_the_file():
    sets = read_frozen().sets
    assert set(sets) == {f"{kind}-{people}" for kind, people in SETS}
    assert {each.prompts for each in sets.values()} == {LONGEST} == {961}
    protocol = (ROOT / "docs" / "binding-protocol.md").read_text()
    assert hashlib.sha256(FROZEN_FILE.read_bytes()).hexdigest() in protocol


@pytest.mark.parametrize("name", ["seen-2", "held-out-1", "twins-2"])
def test_frozen_sets_are_what_they_were(name: str):
    kind, people = name.rsplit("-", 1)
    prompts = frozen_prompts(kind, int(people))
    assert len({prompt.noise_seed for prompt in prompts}) == 961
    assert len({prompt.text("xml") for prompt in prompts}) == 961


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "people"), SETS)
def test_all_frozen_sets_are_what_they_were(kind: str, people: int):
    assert len(frozen_prompts(kind, people)) == 961


def test_a_change_in_any_prompt_changes_the_hash():
    prompts = [make_prompt("seen", 2, i) for i in range(3)]
    whole = prompts_sha256(prompts)
    scene = prompts[1].scene
    other = replace(prompts[1], scene=replace(scene, jitter=scene.jitter + 1))
    assert prompts_sha256([prompts[0], other, prompts[2]]) != whole
    assert prompts_sha256([prompts[0], replace(prompts[1], noise_seed=5), prompts[2]]) != whole


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sha256": "0" * 64}, r"'seen-1' is not the frozen one: frozen.json says sha256 0000000000000000…"),
        ({"prompts": 960}, r"'seen-1' is not the frozen one"),
        ({"first_seed": 7}, r"'seen-1' of frozen.json has the recipe seen with 1 people from seed 7"),
        ({"sha256": "xyz"}, r"frozen.json is misshapen at sets.seen-1.sha256"),
        ({"more": 1}, r"frozen.json is misshapen at sets.seen-1.more"),
    ],
)
def test_a_tampered_file_is_refused_by_name(tmp_path, change, said):
    file = tmp_path / "frozen.json"
    data = json.loads(FROZEN_FILE.read_text())
    data["sets"]["seen-1"] |= change
    file.write_text(json.dumps(data))
    with pytest.raises(ConfigError, match=said) as caught:
        frozen_prompts("seen", 1, file)
    assert "\n" not in str(caught.value)


def test_a_missing_set_or_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        frozen_prompts("seen", 1, tmp_path / "frozen.json")
    file = tmp_path / "frozen.json"
    file.write_text('{"format": 1, "sets": {}}')
    with pytest.raises(ConfigError, match="has no set 'seen-1'"):
        frozen_prompts("seen", 1, file)
    with pytest.raises(RequestError, match="no prompts with 1 people; choose one of 2"):
        frozen_prompts("interactions", 1)
    with pytest.raises(RequestError, match="unknown prompt set 'many'"):
        frozen_prompts("many", 1)


def test_frozen_sets_are_not_written_over_and_a_small_one_is_used(tmp_path):
    file = tmp_path / "frozen.json"
    freeze(file, prompts=2)
    with pytest.raises(ConfigError, match="not written over"):
        freeze(file, prompts=2)
    prompts, hashes = mixed_prompts("twins", [2, 3], 3, file=file)
    assert [p.key for p in prompts] == ["twins-2-0000", "twins-3-0000", "twins-2-0001"]
    assert set(hashes) == {"twins-2", "twins-3"}
    assert [p.key for p in mixed_prompts("twins", [2, 3], 1, 3, file=file)[0]] == ["twins-3-0001"]
    with pytest.raises(RequestError, match="has 1 to 4 prompts with 2, 3 people"):
        mixed_prompts("twins", [2, 3], 5, file=file)
    with pytest.raises(RequestError, match="behind the first 3"):
        mixed_prompts("twins", [2, 3], 2, 3, file=file)


def test_an_unknown_form_is_named():
    with pytest.raises(RequestError, match="unknown form 'poem'; choose one of xml, tags, sentence"):
        make_prompt("seen", 1, 0).text("poem")
    assert all(make_prompt("seen", 6, 0).text(form) for form in FORMS)
