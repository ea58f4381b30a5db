"""Bodies of the world's characters: every value draws, and no two values look the same at the final scale."""

from __future__ import annotations

import io
import random
from itertools import combinations

import numpy as np
import pytest
import resvg_py
from lxml import etree
from PIL import Image

from newbie_image.nano.world import attributes as a
from newbie_image.nano.world import body
from newbie_image.nano.world.scene import Character, see

SCALE = 0.27
WIDTH, HEIGHT = 280, 460


def character(**changes: object) -> Character:
    values: dict[str, object] = {
        "gender": "1girl",
        "hair_style": "bob_cut",
        "hair_color": "brown",
        "eye_color": "blue",
        "expression": "smile",
        "glasses": False,
        "top": "serafuku",
        "top_color": "blue",
        "bottom": "pleated_skirt",
        "bottom_color": "red",
        "legwear": "bare_legs",
        "headwear": None,
        "headwear_color": None,
        "held": None,
        "pose": "standing",
        "position": "center",
    }
    return see(Character(**(values | changes)))  # pyright: ignore[reportArgumentType]


def fragment(one: Character, hold_hand: str | None = None) -> str:
    rng = random.Random(3)
    layers = (body.draw_behind, body.draw_body, body.draw_front)
    return "".join(layer(one, "c0", rng, hold_hand) for layer in layers)


def picture(one: Character, hold_hand: str | None = None) -> np.ndarray:
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-140 -450 {WIDTH} {HEIGHT}" '
        f'width="{round(WIDTH * SCALE)}" height="{round(HEIGHT * SCALE)}">'
        f'<rect x="-140" y="-450" width="{WIDTH}" height="{HEIGHT}" fill="#cfe0e8"/>'
        f"{fragment(one, hold_hand)}</svg>"
    )
    etree.fromstring(svg)
    png = resvg_py.svg_to_bytes(svg_string=svg, skip_system_fonts=True)
    return np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGB"), dtype=np.float32)


def closest(characters: list[Character]) -> float:
    """The smallest sum, over the pixels, of the difference between two of the characters; 1 is full scale."""
    pictures = [picture(one) for one in characters]
    return min(float(np.abs(p - q).mean(axis=2).sum() / 255) for p, q in combinations(pictures, 2))


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("gender", a.GENDERS),
        ("top", a.TOPS),
        ("bottom", a.BOTTOMS),
        ("held", (None, *a.HELD)),
        ("pose", a.POSES),
        ("legwear", a.LEGWEAR),
    ],
)
def test_values_of_an_attribute_look_different(field: str, values: tuple[str | None, ...]) -> None:
    least = 12.0 if field == "legwear" else 25.0
    assert closest([character(**{field: value}) for value in values]) > least


@pytest.mark.parametrize("top", a.TOPS)
def test_colors_of_a_top_look_different(top: str) -> None:
    assert closest([character(top=top, top_color=color) for color in a.CLOTHES_COLORS]) > 20


@pytest.mark.parametrize("bottom", a.BOTTOMS)
def test_colors_of_a_bottom_look_different(bottom: str) -> None:
    assert closest([character(bottom=bottom, bottom_color=color) for color in a.CLOTHES_COLORS]) > 15


@pytest.mark.parametrize("color", a.CLOTHES_COLORS)
def test_tops_of_one_color_look_different(color: str) -> None:
    assert closest([character(top=top, top_color=color) for top in a.TOPS]) > 15


@pytest.mark.parametrize("pose", a.POSES)
@pytest.mark.parametrize("bottom", [b for b in a.BOTTOMS if b not in a.LEGWEAR_HIDING_BOTTOMS])
def test_legwear_shows_in_every_pose_under_every_bottom(pose: str, bottom: str) -> None:
    assert closest([character(pose=pose, bottom=bottom, legwear=legwear) for legwear in a.LEGWEAR]) > 4


def test_a_hand_to_hold_reaches_out_and_drops_the_object() -> None:
    plain, reaching = picture(character()), picture(character(held="sword"), "right")
    assert np.array_equal(reaching, picture(character(), "right"))
    assert np.abs(plain - reaching)[:, round(240 * SCALE) :].max() > 100


def test_a_fragment_is_light_and_deterministic() -> None:
    for top in a.TOPS:
        one = character(top=top, held="stuffed_toy", legwear="striped_thighhighs")
        assert fragment(one) == fragment(one)
        assert sum(1 for _ in etree.fromstring(f"<g>{fragment(one)}</g>").iter()) < 120


@pytest.mark.parametrize("pose", a.POSES)
def test_offset_moves_the_trunk(pose: str) -> None:
    offset = body.pose_offset(character(pose=pose))
    assert (offset > 0) == (pose == "sitting")
    assert (offset < 0) == (pose == "jumping")
