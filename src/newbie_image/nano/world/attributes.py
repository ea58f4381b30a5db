"""What a character and a scene of the world can be. Every value is a Danbooru tag, or the colour in front
of one.

The lists are ordered and only ever extended at their end: classifiers and score tables index them.
"""

from __future__ import annotations

from typing import Final

GENDERS: Final = ("1girl", "1boy")

HAIR_STYLES: Final = (
    "bob_cut",
    "long_hair",
    "hime_cut",
    "wavy_hair",
    "ponytail",
    "side_ponytail",
    "twintails",
    "twin_braids",
    "double_bun",
    "twin_drills",
    "spiked_hair",
    "short_hair",
)
HAIR_COLORS: Final = (
    "black",
    "brown",
    "blonde",
    "red",
    "orange",
    "pink",
    "purple",
    "blue",
    "aqua",
    "green",
    "white",
    "grey",
)
EYE_COLORS: Final = ("blue", "red", "green", "yellow", "purple", "brown", "aqua", "pink")
EXPRESSIONS: Final = ("smile", ":d", "frown", ":o", "closed_eyes", "angry", "one_eye_closed", "tears")

CLOTHES_COLORS: Final = ("white", "black", "red", "blue", "green", "yellow", "pink", "purple")
TOPS: Final = (
    "serafuku",
    "collared_shirt",
    "hoodie",
    "sweater",
    "jacket",
    "kimono",
    "tank_top",
    "striped_shirt",
)
BOTTOMS: Final = ("pleated_skirt", "frilled_skirt", "long_skirt", "shorts", "pants", "dress")
LEGWEAR: Final = (
    "bare_legs",
    "white_thighhighs",
    "black_thighhighs",
    "black_pantyhose",
    "white_socks",
    "striped_thighhighs",
)
HEADWEAR: Final = (
    "hair_bow",
    "hairband",
    "hair_flower",
    "beret",
    "witch_hat",
    "headphones",
    "cat_ears",
    "rabbit_ears",
    "tiara",
)
COLORED_HEADWEAR: Final = ("hair_bow", "hairband", "hair_flower", "beret", "witch_hat", "headphones")
HELD: Final = (
    "umbrella",
    "book",
    "sword",
    "cup",
    "balloon",
    "flower",
    "microphone",
    "lollipop",
    "stuffed_toy",
    "wand",
)
POSES: Final = (
    "standing",
    "waving",
    "arm_up",
    "hand_on_own_hip",
    "salute",
    "outstretched_arm",
    "sitting",
    "jumping",
)

HANDLESS_POSES: Final = ("standing", "sitting", "jumping")
"""Poses that are told without the free arm."""

POSITIONS: Final = {
    1: (("center",), ("left",), ("right",)),
    2: (("left", "right"),),
    3: (("left", "center", "right"),),
    4: (
        ("left", "center_left", "center_right", "right"),
        ("upper_left", "upper_right", "lower_left", "lower_right"),
    ),
    5: (("upper_left", "upper_right", "lower_left", "center", "lower_right"),),
    6: (("upper_left", "upper_center", "upper_right", "lower_left", "lower_center", "lower_right"),),
}
INTERACTIONS: Final = ("holding_hands", "facing_another", "back-to-back")

BACKGROUNDS: Final = (
    "white_background",
    "pink_background",
    "blue_background",
    "yellow_background",
    "sky",
    "beach",
    "forest",
    "cherry_blossoms",
    "cityscape",
    "classroom",
    "bedroom",
    "flower_field",
    "mountain",
    "snowfield",
    "starry_sky",
)
PLAIN_BACKGROUNDS: Final = BACKGROUNDS[:4]
INDOOR_BACKGROUNDS: Final = ("classroom", "bedroom")
TIMES: Final = ("day", "sunset", "night")
WEATHERS: Final = ("rain", "snowing", "falling_petals")

# Invented people: the name alone fixes these.
FIGURES: Final = {
    "minamo": {
        "gender": "1girl",
        "hair_style": "twintails",
        "hair_color": "aqua",
        "eye_color": "blue",
        "top": "serafuku",
        "top_color": "blue",
        "bottom": "pleated_skirt",
        "bottom_color": "blue",
        "legwear": "black_thighhighs",
        "headwear": "headphones",
        "headwear_color": "black",
        "glasses": False,
    },
    "akane_hoshi": {
        "gender": "1girl",
        "hair_style": "ponytail",
        "hair_color": "red",
        "eye_color": "yellow",
        "top": "jacket",
        "top_color": "black",
        "bottom": "shorts",
        "bottom_color": "red",
        "legwear": "striped_thighhighs",
        "headwear": "hair_bow",
        "headwear_color": "yellow",
        "glasses": False,
    },
    "kogane": {
        "gender": "1girl",
        "hair_style": "twin_drills",
        "hair_color": "blonde",
        "eye_color": "red",
        "top": None,
        "top_color": None,
        "bottom": "dress",
        "bottom_color": "purple",
        "legwear": "white_thighhighs",
        "headwear": "tiara",
        "headwear_color": None,
        "glasses": False,
    },
    "yoru_no_mika": {
        "gender": "1girl",
        "hair_style": "hime_cut",
        "hair_color": "black",
        "eye_color": "purple",
        "top": "kimono",
        "top_color": "red",
        "bottom": "long_skirt",
        "bottom_color": "black",
        "legwear": None,
        "headwear": "hair_flower",
        "headwear_color": "white",
        "glasses": False,
    },
    "professor_kuri": {
        "gender": "1boy",
        "hair_style": "short_hair",
        "hair_color": "brown",
        "eye_color": "green",
        "top": "sweater",
        "top_color": "green",
        "bottom": "pants",
        "bottom_color": "black",
        "legwear": None,
        "headwear": None,
        "headwear_color": None,
        "glasses": True,
    },
    "raizo": {
        "gender": "1boy",
        "hair_style": "spiked_hair",
        "hair_color": "white",
        "eye_color": "red",
        "top": "hoodie",
        "top_color": "black",
        "bottom": "pants",
        "bottom_color": "purple",
        "legwear": None,
        "headwear": "headphones",
        "headwear_color": "red",
        "glasses": False,
    },
    "momo_usagi": {
        "gender": "1girl",
        "hair_style": "wavy_hair",
        "hair_color": "pink",
        "eye_color": "pink",
        "top": "sweater",
        "top_color": "white",
        "bottom": "frilled_skirt",
        "bottom_color": "pink",
        "legwear": "white_socks",
        "headwear": "rabbit_ears",
        "headwear_color": None,
        "glasses": False,
    },
    "mahou_no_lilo": {
        "gender": "1girl",
        "hair_style": "twin_braids",
        "hair_color": "orange",
        "eye_color": "green",
        "top": "collared_shirt",
        "top_color": "white",
        "bottom": "long_skirt",
        "bottom_color": "purple",
        "legwear": None,
        "headwear": "witch_hat",
        "headwear_color": "purple",
        "glasses": True,
    },
}

LEGWEAR_HIDING_BOTTOMS: Final = ("long_skirt", "pants")
"""Bottoms under which no legwear shows: such a character has legwear None."""

EYE_HIDING_EXPRESSIONS: Final = ("closed_eyes",)
"""Expressions in which the eye colour cannot be seen: such a character has eye_color None."""

CHARACTER_FIELDS: Final = {
    "gender": GENDERS,
    "hair_style": HAIR_STYLES,
    "hair_color": HAIR_COLORS,
    "eye_color": EYE_COLORS,
    "expression": EXPRESSIONS,
    "glasses": (False, True),
    "top": TOPS,
    "top_color": CLOTHES_COLORS,
    "bottom": BOTTOMS,
    "bottom_color": CLOTHES_COLORS,
    "legwear": LEGWEAR,
    "headwear": (None, *HEADWEAR),
    "headwear_color": CLOTHES_COLORS,
    "held": (None, *HELD),
    "pose": POSES,
}
"""Each attribute of a character and its values, in order. None within a list means that nothing is there,
which can be seen and is scored; a character's attribute that is None where its list has no None is hidden,
not
scored."""
