"""A run goes on where it stopped, only as what it was, and says what it cannot draw."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from newbie_image.binding.regions import regions_of
from newbie_image.cli.app import app
from newbie_image.cli.nano_benchmark import _training as describe_training
from newbie_image.errors import ConfigError, RequestError
from newbie_image.nano import dataset
from newbie_image.nano.benchmark.arms import ARMS, Arm, dose_arms, read_arms, unavailable
from newbie_image.nano.benchmark.dose_response import SPILLS
from newbie_image.nano.benchmark.drawing import Sampling, draw, prompt_text, request_of, turned
from newbie_image.nano.benchmark.guards import (
    describe,
    descriptions_of,
    diversity,
    nearest_distances,
    region_borders,
    seam_ratio,
)
from newbie_image.nano.benchmark.prompt_sets import BenchmarkPrompt, make_prompt
from newbie_image.nano.benchmark.reading import Evaluator, load_evaluator
from newbie_image.nano.benchmark.report import write_report
from newbie_image.nano.benchmark.results import Results
from newbie_image.nano.benchmark.run import Done, Run, RunEvent, Skipped, run
from newbie_image.nano.benchmark.run_folder import ReadingLine, RunFolder, read_folder
from newbie_image.nano.benchmark.work import RENDERS, Crew, Draw, Job, Worker, WorkerPlan, in_this_process
from newbie_image.nano.captions import xml_caption
from newbie_image.nano.world.layout import FOUR_IN_CORNERS
from newbie_image.nano.world.render import render
from newbie_image.pipeline import NewbiePipeline
from newbie_image.prompt import parse

READERS = Path(__file__).parent.parent.parent.parent / "assets" / "readers"
PROMPTS = [make_prompt("seen", people, index) for index in range(3) for people in (1, 2)]
SWAPPED = [make_prompt("swapped", 2, index) for index in range(3)]
SETTINGS = {"model": "the world", "steps": 3}
XML, TAGS = ARMS["xml"], ARMS["tags"]


class World:
    """Draws what the world says the prompt looks like, and remembers for what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def __call__(self, arm: Arm, prompts: Sequence[BenchmarkPrompt]) -> np.ndarray:
        self.asked += [(arm.name, prompt.key) for prompt in prompts]
        return np.stack([render(prompt.scene, 128) for prompt in prompts])


@pytest.fixture(scope="module")
def evaluator() -> Evaluator:
    return load_evaluator(READERS)


def _events(
    folder: RunFolder,
    world: Draw,
    evaluator: Evaluator,
    arms: Sequence[Arm],
    prompts: Sequence[BenchmarkPrompt],
    batch: int = 16,
    keep: int | None = None,
) -> Iterator[RunEvent]:
    asked = Run(folder, arms, prompts, evaluator.sha256, batch, keep)
    return run(asked, in_this_process(Worker(world, evaluator)))


def test_a_stopped_run_goes_on_and_draws_nothing_twice(tmp_path: Path, evaluator: Evaluator):
    world = World()
    for event in _events(RunFolder(tmp_path, SETTINGS), world, evaluator, [XML, TAGS], PROMPTS, 2):
        if event == Done("xml", 4, 6):
            break
    assert len(world.asked) == 4
    assert [key.split("-")[1] for _, key in world.asked] == ["1", "1", "1", "2"]
    lines = (tmp_path / "pictures.jsonl").read_bytes()
    (tmp_path / "pictures.jsonl").write_bytes(lines[:-20])
    readings = (tmp_path / "readings.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "readings.jsonl").write_bytes(b"".join(readings[1:]))
    again = World()
    events = list(_events(RunFolder(tmp_path, SETTINGS), again, evaluator, [XML, TAGS], PROMPTS, 2))
    assert events[0] == Done("xml", 2, 6)
    assert events[-1] == Done("tags", 6, 6)
    # The one that lacks its reading alone is read, and not drawn again.
    assert len(again.asked) == 12 - 3
    folder = read_folder(tmp_path)
    pairs = {(arm.name, prompt.key) for arm in (XML, TAGS) for prompt in PROMPTS}
    assert set(folder.pictures()) == set(folder.readings(evaluator.sha256)) == pairs
    line = folder.pictures()["xml", PROMPTS[0].key]
    assert line.seed == PROMPTS[0].noise_seed
    assert line.file is not None
    (tmp_path / line.file).unlink()
    last = World()
    list(_events(RunFolder(tmp_path, SETTINGS), last, evaluator, [XML, TAGS], PROMPTS))
    assert last.asked == [("xml", PROMPTS[0].key)]


def test_what_is_read_is_done_also_where_its_picture_was_not_kept(tmp_path: Path, evaluator: Evaluator):
    folder = RunFolder(tmp_path, SETTINGS)
    list(_events(folder, World(), evaluator, [XML], [*PROMPTS, *SWAPPED], keep=1))
    files = sorted(path.name for path in tmp_path.glob("pictures/xml/*"))
    assert files == [f"{PROMPTS[0].key}.png", f"{SWAPPED[0].key}.png"]
    again = World()
    list(_events(RunFolder(tmp_path, SETTINGS), again, evaluator, [XML], [*PROMPTS, *SWAPPED], keep=1))
    assert again.asked == []
    # Another evaluator needs the pictures: those that are there are read, the others drawn again.
    other = replace(evaluator, sha256="0" * 64)
    list(_events(folder, again, other, [XML], [*PROMPTS, *SWAPPED], keep=1))
    assert len(again.asked) == 9 - 2
    looks = [line.look for line in folder.readings(evaluator.sha256).values()]
    pictures = np.stack([render(prompt.scene, 128) for prompt in PROMPTS])
    found = dict(zip([key for _, key in folder.readings(evaluator.sha256)], looks, strict=True))
    kept = descriptions_of([str(found[prompt.key]) for prompt in PROMPTS])
    assert np.abs(kept - describe(pictures)).max() <= 0.5 / 255 + 1e-6
    assert descriptions_of([]).shape == (0, 768)


def test_an_evaluator_reads_the_same_in_chunks_and_after_a_move(evaluator: Evaluator):
    pictures = np.stack([render(prompt.scene, 128) for prompt in PROMPTS])
    scenes = [prompt.scene for prompt in PROMPTS]
    whole = evaluator.read(pictures, scenes)
    assert evaluator.to(torch.device("cpu")).read(pictures, scenes, chunk=4) == whole
    assert evaluator.read(pictures[:0], []) == []


def test_four_people_that_are_nowhere_asked_for_may_stand_in_either_plan(
    tmp_path: Path, evaluator: Evaluator
):
    prompt = next(
        p for i in range(20) if (p := make_prompt("unplaced", 4, i)).scene.characters[0].position == "left"
    )
    people = zip(prompt.scene.characters, FOUR_IN_CORNERS, strict=True)
    corners = replace(prompt.scene, characters=tuple(replace(c, position=place) for c, place in people))
    worker = Worker(lambda arm, prompts: np.stack([render(corners, 256) for _ in prompts]), evaluator)
    for arm, asked in (("xml", list(FOUR_IN_CORNERS)), ("tags", list(FOUR_IN_CORNERS))):
        (line,) = worker(Job(tmp_path, ARMS[arm], (prompt,), frozenset())).readings
        assert [person.position for person in line.reading.people] == asked
    said = replace(prompt, positions=True)
    (line,) = worker(Job(tmp_path, ARMS["xml"], (said,), frozenset())).readings
    assert [person.position for person in line.reading.people] == [
        c.position for c in prompt.scene.characters
    ]


@pytest.mark.slow
def test_two_processes_make_what_one_does(tmp_path: Path, evaluator: Evaluator):
    plan = WorkerPlan("nano", READERS, Sampling(steps=1, batch=2))
    made: list[dict[tuple[str, str], ReadingLine]] = []
    for workers in (1, 2):
        folder = RunFolder(tmp_path / str(workers), SETTINGS)
        asked = Run(folder, [RENDERS, XML], PROMPTS[:4], evaluator.sha256, 2, keep=1)
        with Crew(plan, workers) as crew:
            events = list(run(asked, crew))
        assert Done("xml", 4, 4) in events
        assert len(list(folder.folder.glob("pictures/*/*.png"))) == 2
        made.append(folder.readings(evaluator.sha256))
    assert made[0].keys() == made[1].keys()
    renders = [pair for pair in made[0] if pair[0] == "renders"]
    assert all(made[0][pair] == made[1][pair] for pair in renders)
    looks = [descriptions_of([str(line.look) for _, line in sorted(each.items())]) for each in made]
    assert np.abs(looks[0] - looks[1]).max() < 0.02


def test_a_folder_of_another_run_arm_or_set_is_refused(tmp_path: Path):
    folder = RunFolder(tmp_path, SETTINGS)
    folder.add_arm(XML)
    folder.add_sets({"seen-1": "a" * 64})
    with pytest.raises(
        ConfigError, match=r"holds a run with steps 3, not 20; name another folder with --out"
    ):
        RunFolder(tmp_path, {**SETTINGS, "steps": 20})
    with pytest.raises(ConfigError, match="another arm 'xml'"):
        folder.add_arm(Arm("xml", form="tags"))
    with pytest.raises(ConfigError, match="another prompt set 'seen-1'"):
        folder.add_sets({"seen-1": "b" * 64})
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ConfigError, match=r"run.json is damaged"):
        RunFolder(tmp_path, SETTINGS)


def test_readings_are_of_one_evaluator_and_the_report_says_what_was_skipped(
    tmp_path: Path, evaluator: Evaluator
):
    folder, world = RunFolder(tmp_path, SETTINGS), World()
    arms = [RENDERS, TAGS, XML, ARMS["shuffled"]]
    unplaced = make_prompt("unplaced", 2, 0)
    events = list(_events(folder, world, evaluator, arms, [*PROMPTS, *SWAPPED, unplaced]))
    assert [e for e in events if isinstance(e, Skipped)] == [
        Skipped("tags", "swapped", "a list of tags says where people stand by their order alone"),
        Skipped("shuffled", "unplaced", "without positions there are no regions to shuffle"),
    ]
    assert len(folder.readings(evaluator.sha256)) == 33 + 3
    assert folder.readings("0" * 64) == {}

    results = Results.of(folder, [*PROMPTS, *SWAPPED], evaluator.sha256)
    assert results.arms == ("renders", "tags", "xml", "shuffled")
    assert results.base == "xml"
    plain, swapped = results.readings("xml", "seen"), results.by_scene("xml", "swapped")
    for key, reading in swapped.items():
        assert [p.position for p in reading.people] == [p.position for p in plain[key].people]
    text = write_report(results).read_text()
    assert "Not available: shuffled on unplaced, because without positions there are no regions" in text
    assert "| tags − xml | +0.0" in text
    assert "people named in reverse order" in text
    for name in ("seen-sheet.png", "swapped-sheet.png", "seen-attributes-right.svg", "figures.json"):
        assert (tmp_path / name).stat().st_size > 0
        assert name == "figures.json" or f"({name})" in text
    figures = json.loads((tmp_path / "figures.json").read_text())
    right = figures["figures"]["xml"]["seen"]["by_people"]["2"]["attributes right"]["reader"]
    assert right["value"] > 0.95  # the world's own pictures
    assert right["low"] < right["value"] <= right["high"] <= 1
    assert right["count"] == sum(
        sum(v != -1 for v in p.asked.values())
        for r in results.readings("xml", "seen", 2).values()
        for p in r.people
    )


def test_arms_are_read_with_their_parameters():
    plain, swept = read_arms("xml, region:beta_minus=5:window=0-0.4:cfg_renorm=1.5")
    assert plain == ARMS["xml"]
    assert swept.name == "region_beta_minus=5_window=0-0.4_cfg_renorm=1.5"
    assert swept.binding_setting() == "region,beta_minus=5,window=0-0.4"
    assert swept.request_settings() == {"cfg_renorm": 1.5}
    for text, said in (
        ("xml,magic", "unknown arm 'magic'; choose from tags, sentence, xml"),
        ("region:strength", "'strength' of the arm 'region' is misshapen"),
        ("region:strength=3", "'strength=3' is not understood"),
        ("region:cfg_renorm=much", "sets {'cfg_renorm': 'much'}; give numbers"),
        ("xml,xml", "the arm 'xml' is named twice"),
        (" , ", "no arm is named"),
    ):
        with pytest.raises(RequestError, match=said):
            read_arms(text)
    assert unavailable(ARMS["xml"], "swapped") is None
    assert all(unavailable(arm, "seen") is None for arm in ARMS.values())
    weighed = dose_arms(ARMS["xml"], "top", (2.0,))[0]
    assert weighed.binding_setting() == "off,weights=on"
    assert "its form is tags" in str(unavailable(replace(weighed, form="tags"), "seen"))


def test_weights_stand_before_the_first_persons_tag_alone():
    prompt = make_prompt("seen", 2, 1)
    arms = dose_arms(ARMS["xml"], "top_color", (0.3, 1.0))
    weighed = parse(prompt_text(arms[0], prompt))
    changed = [(tag.path, tag.text) for tag in weighed.tags if tag.weight != 1]
    first = prompt.scene.characters[0]
    assert changed == [(changed[0][0], f"{first.top_color}_{first.top}")]
    assert changed[0][0].startswith("character_1.clothing")
    assert prompt_text(arms[1], prompt) == prompt.text("xml")


def test_a_response_to_weights_is_told_from_its_pictures(
    tmp_path: Path, evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch
):
    arms = dose_arms(ARMS["xml"], "hair_color", (0.0, 1.0, 3.0))
    prompts = [make_prompt("seen", 1, index) for index in range(8)]
    monkeypatch.setattr("newbie_image.nano.benchmark.run.unavailable", lambda arm, kind: None)

    def drawing(arm: Arm, asked: Sequence[BenchmarkPrompt]) -> np.ndarray:
        """A world in which a weight of 0 takes the colour away, and one of 3 as well in every second
        picture."""
        pictures: list[np.ndarray] = []
        for number, prompt in enumerate(asked):
            person = prompt.scene.characters[0]
            lost = arm.weighed["hair_color"] == 0 or (arm.weighed["hair_color"] == 3 and number % 2)
            hair = ("white" if person.hair_color != "white" else "red") if lost else person.hair_color
            scene = replace(prompt.scene, characters=(replace(person, hair_color=hair),))
            pictures.append(render(scene, 128))
        return np.stack(pictures)

    folder = RunFolder(tmp_path, SETTINGS)
    list(_events(folder, drawing, evaluator, arms, prompts))
    results = Results.of(folder, prompts, evaluator.sha256)
    response = results.responses()["xml hair_color"]
    shares = [share.value for share in response.shares.values()]
    assert shares[0] == 0
    assert shares[1] >= 7 / 8
    assert shares[2] == pytest.approx(0.5, abs=0.13)
    assert response.steps[(0.0, 1.0)].low > 0
    assert response.steps[(1.0, 3.0)].value < 0
    report = write_report(results).read_text()
    assert "| xml hair_color | 0: 0.0, 1:" in report
    assert (tmp_path / "dose-response.svg").exists()
    spilled = next(iter(results.spills().values()))
    assert set(spilled) == set(SPILLS)
    assert all(set(each.shares) == {0.0, 1.0, 3.0} for each in spilled.values())
    assert "What a weight does beside its tag:" in report


def test_training_pictures_are_looked_at_where_they_are_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(dataset, "BLOCK", 3)
    store = dataset.Store.create(tmp_path / "renders", 3, 32, 7, {1: 1.0})
    with pytest.raises(ConfigError, match="no finished renders"):
        describe_training(store.folder)
    dataset._render_block((store, 0))
    bank = describe_training(store.folder)
    assert bank.shape == (3, 768)
    assert nearest_distances(describe(render(store.scene(1), 32)[None]), bank)[0] < 1e-3
    with pytest.raises(ConfigError, match=r"has no store.json; give the folder `renders`"):
        describe_training(tmp_path)


def test_a_request_has_the_arms_settings_and_the_prompts_noise():
    prompt = PROMPTS[1]
    arm = read_arms("full:cfg_renorm=1.5:layers=middle")[0]
    request = request_of(arm, prompt, Sampling(steps=4, guidance=2.0))
    assert (request.cfg_renorm, request.steps, request.guidance_scale) == (1.5, 4, 2.0)
    assert (request.seed, request.prompt) == (prompt.noise_seed, prompt.text("xml"))
    assert request.binding == "full,layers=middle"
    assert request_of(ARMS["xml"], prompt, Sampling()).binding == "off"


def test_shuffled_regions_are_never_ones_own():
    for people in (2, 3, 4, 5, 6):
        regions, _ = regions_of(parse(make_prompt("seen", people, 0).text("xml")))
        other = turned(regions)
        assert [region.character for region in other] == list(range(1, people + 1))
        assert sorted(region.box for region in other) == sorted(region.box for region in regions)
        assert all(a.box != b.box for a, b in zip(regions, other, strict=True))


def test_every_arm_draws_its_own_picture_with_the_same_noise():
    pipeline = NewbiePipeline.from_pretrained("nano", torch_dtype=torch.float32)
    prompt, sampling = make_prompt("seen", 2, 0), Sampling(steps=2)
    arms = [ARMS["xml"], ARMS["region"], ARMS["shuffled"], *dose_arms(ARMS["xml"], "hair_color", (3.0,))]
    drawn = [draw(pipeline, arm, [prompt], sampling)[0] for arm in arms]
    assert {picture.dtype for picture in drawn} == {np.dtype(np.uint8)}
    assert len({picture.tobytes() for picture in drawn}) == len(arms)
    # One person's region is its own also where regions are shuffled.
    lone = [make_prompt("seen", 1, 0)]
    region, shuffled = (draw(pipeline, ARMS[name], lone, sampling)[0] for name in ("region", "shuffled"))
    assert np.abs(region.astype(float) - shuffled).max() <= 1
    # Alone or in a batch, by the stream or not, a prompt has its noise.
    same = draw(pipeline, read_arms("xml:cfg_renorm=0")[0], [prompt], sampling)[0]
    assert np.abs(same.astype(float) - drawn[0]).max() <= 1


def test_guards_see_seams_and_copies():
    scenes = [make_prompt("seen", 2, i).scene for i in range(4)]
    pictures = np.stack([render(scene, 128) for scene in scenes])
    for picture, scene in zip(pictures, scenes, strict=True):
        seamed = picture.copy()
        seamed[:, 64:] = np.clip(seamed[:, 64:].astype(int) - 60, 0, 255)
        smooth, steep = seam_ratio(picture, scene), seam_ratio(seamed, scene)
        assert smooth is not None
        assert steep is not None
        assert steep > smooth + 0.5
    assert seam_ratio(pictures[0], make_prompt("seen", 1, 0).scene) is None


def test_seams_are_looked_for_where_the_engines_regions_meet():
    for people in range(1, 7):
        scene = make_prompt("seen", people, 0).scene
        regions, _ = regions_of(parse(xml_caption(scene)))
        borders = region_borders(scene)
        edges = {edge for region in regions for edge in region.box} - {0.0, 1.0}
        assert (people > 1) == bool(borders)
        assert {border.place for border in borders} <= edges
        # A border that is drawn is seen, and only along its own stretch.
        for border in borders:
            picture = np.full((200, 200, 3), 100, np.uint8)
            place, low, high = (round(200 * each) for each in (border.place, border.low, border.high))
            if border.upright:
                picture[low:high, place:] = 200
            else:
                picture[place:, low:high] = 200
            seen = seam_ratio(picture, scene)
            assert seen is not None
            assert seen > 5, (people, border)


def test_copies_and_likeness_are_seen():
    scenes = [make_prompt("seen", 2, i).scene for i in range(4)]
    pictures = np.stack([render(scene, 128) for scene in scenes])
    descriptions = describe(pictures)
    assert descriptions.shape == (4, 768)
    nearest = nearest_distances(descriptions[:2], descriptions[1:])
    assert nearest[1] < 1e-3 < 0.02 < nearest[0]
    assert diversity(np.repeat(descriptions[:1], 3, 0)) < 1e-3 < diversity(descriptions)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--arms", "magic"], "unknown arm 'magic'"),
        (["--set", "many"], "unknown prompt set 'many'; choose one of seen, held-out"),
        (["--people", "0-2"], "people '0-2' is not allowed; write 1 to 6"),
        (["--people", "two"], "people 'two' is misshapen"),
        (["--set", "interactions", "--people", "4"], "no prompts with 4 people; choose one of 2"),
        (
            ["--people", "1", "--count", "962"],
            "count 962 is not allowed; the set 'seen' has 1 to 961 prompts",
        ),
        (["--weights", "mood"], "unknown attribute 'mood' in --weights"),
        (["--count", "1", "--people", "1", "--readers", "nowhere"], "is not there; run `newbie nano train"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(arguments: list[str], said: str):
    done = CliRunner().invoke(app, ["nano", "benchmark", *arguments])
    assert done.exit_code == 2
    assert said in done.output
    assert len(done.output.strip().splitlines()) == 1
