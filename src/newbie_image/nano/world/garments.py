"""Clothes below the head: tops, skirts and trousers, legwear. All in the character's standing coordinates."""

from __future__ import annotations

from collections.abc import Sequence

from newbie_image.nano.world import palette
from newbie_image.nano.world.scene import Character
from newbie_image.nano.world.strokes import (
    OUTLINE,
    Point,
    cut,
    disc,
    flared,
    length,
    limb,
    polygon,
    shape,
    stroke,
)

WHITE = palette.CLOTHES["white"]
DARK = "#2f3350"
SOCK_WHITE = "#f4f6ff"
SOCK_BLACK = "#2b2935"
STRIPE_BLUE = "#2f6fd8"
LEG_WIDTH = 25.0


def cloth(name: str | None) -> str:
    """The fill of a clothes colour; a hidden one is white."""
    return palette.CLOTHES[name or "white"]


def _trim(name: str | None) -> str:
    """White trimming, or navy on white cloth."""
    return DARK if name == "white" else "#fbfaf8"


def torso_path(boy: bool) -> str:
    """Outline of the trunk from the shoulders to the hips."""
    if boy:
        return (
            "M-16,-203L-40,-195Q-48,-190 -46,-178L-40,-150L-40,-113"
            "L40,-113L40,-150L46,-178Q48,-190 40,-195L16,-203Z"
        )
    return (
        "M-15,-203L-34,-194Q-43,-190 -41,-178L-34,-152Q-33,-136 -38,-113L38,-113Q33,-136 34,-152"
        "L41,-178Q43,-190 34,-194L15,-203Z"
    )


def _shade(fill: str, boy: bool) -> str:
    """Cel shadow: the right flank and a band beneath the chin."""
    side = "M41,-180L34,-152Q33,-136 38,-114L16,-114Q24,-150 22,-190Z"
    if boy:
        side = "M45,-180L40,-150L40,-114L18,-114Q27,-150 24,-190Z"
    chin = "M-32,-196Q0,-176 32,-196L15,-203L-15,-203Z"
    dark = palette.shadow(fill)
    return shape(side, dark, "none") + shape(chin, dark, "none")


def draw_top(character: Character) -> str:
    """The trunk with its top or the bodice of a dress, and the neck; without arms."""
    boy = character.gender == "1boy"
    dress = character.bottom == "dress"
    name = character.bottom_color if dress else character.top_color
    fill = cloth(name)
    body = torso_path(boy)
    neck = shape("M-13,-214L-13,-196Q0,-186 13,-196L13,-214Z", palette.SKIN)
    base = shape(body, fill, "none") + _shade(fill, boy)
    outline = stroke(body, palette.line(fill))
    if dress:
        return neck + base + outline + _bodice(name)
    top = character.top or "collared_shirt"
    if top == "tank_top":
        return neck + _tank_top(fill, boy, body)
    if top == "striped_shirt":
        return neck + _striped_shirt(fill, name, boy) + outline + _neckline(fill)
    details = {
        "serafuku": _serafuku,
        "collared_shirt": _collared_shirt,
        "hoodie": _hoodie,
        "sweater": _sweater,
        "jacket": _jacket,
        "kimono": _kimono,
    }
    return neck + base + outline + details[top](fill, name)


def _neckline(fill: str) -> str:
    return shape("M-19,-202Q0,-178 19,-202Z", palette.shadow(palette.SKIN), palette.line(fill))


def _serafuku(fill: str, name: str | None) -> str:
    collar = _trim(name)
    scarf = palette.CLOTHES["blue" if name in ("red", "pink") else "red"]
    left = "M-14,-206L-46,-193L-44,-163L0,-146Z"
    right = "M14,-206L46,-193L44,-163L0,-146Z"
    line = SOCK_WHITE if name == "white" else fill
    stripe = stroke("M-37,-186L-36,-170L-10,-159", line, 5) + stroke("M37,-186L36,-170L10,-159", line, 5)
    skin = shape("M-13,-206L0,-166L13,-206Z", palette.SKIN, "none")
    tails = shape("M0,-152L-21,-120L-3,-126L0,-142L3,-126L21,-120Z", scarf) + disc(0, -152, 8, scarf, 7)
    return shape(left, collar) + shape(right, collar) + stripe + skin + tails


def _collared_shirt(fill: str, name: str | None) -> str:
    tie = palette.CLOTHES["red"] if name == "black" else "#2a2d48"
    collar = palette.highlight(fill, 0.4)
    necktie = shape("M-8,-190L8,-190L5,-178L11,-142L0,-130L-11,-142L-5,-178Z", tie)
    points = shape("M0,-189L-13,-206L-31,-197L-20,-172Z", collar) + shape(
        "M0,-189L13,-206L31,-197L20,-172Z", collar
    )
    pocket = stroke("M17,-160L31,-160L30,-144L24,-140L18,-144Z", palette.line(fill), 3)
    return necktie + points + pocket + stroke("M0,-128L0,-114", palette.line(fill), 3)


def _hoodie(fill: str, name: str | None) -> str:
    dark = palette.shadow(fill)
    hood = shape(
        "M-18,-210Q-66,-212 -58,-184Q-46,-160 0,-160Q46,-160 58,-184Q66,-212 18,-210Z",
        palette.highlight(fill, 0.22),
    )
    inner = shape("M-30,-206Q-26,-176 0,-176Q26,-176 30,-206Z", palette.shadow(fill, 0.75))
    pocket = shape("M-18,-144L18,-144L29,-117L-29,-117Z", palette.shadow(fill, 0.5))
    cord = _trim(name)
    cords = stroke("M-12,-176L-13,-148", cord, 6) + stroke("M12,-176L13,-148", cord, 6)
    hem = stroke("M-37,-114L37,-114", dark, 7)
    return pocket + hood + inner + cords + hem


def _sweater(fill: str, name: str | None) -> str:
    dark = palette.highlight(fill, 0.4) if name == "black" else palette.shadow(fill, 0.5)
    knit = "".join(stroke(f"M{x},-174l9,8l-9,8l9,8l-9,8l9,8l-9,8", dark, 5) for x in (-26, -5, 16))
    roll = shape("M-28,-208Q-36,-182 -26,-176Q0,-168 26,-176Q36,-182 28,-208Z", palette.highlight(fill, 0.3))
    ribs = stroke("M-11,-192L-11,-180", dark, 4) + stroke("M11,-192L11,-180", dark, 4)
    hem = shape("M-38,-124L38,-124L40,-110L-40,-110Z", palette.highlight(fill, 0.3))
    return knit + roll + ribs + hem


def _jacket(fill: str, name: str | None) -> str:
    inner = "#55516b" if name == "white" else "#fdfcfa"
    edge = palette.line(fill)
    strip = shape("M-13,-204L13,-204L17,-113L-17,-113Z", inner, edge)
    folds = stroke("M0,-176L0,-116", palette.shadow(inner, 0.35), 4)
    lapel = palette.shadow(fill, 0.4)
    left = shape("M-14,-206L-38,-194L-26,-176L-32,-168L-14,-146Z", lapel)
    right = shape("M14,-206L38,-194L26,-176L32,-168L14,-146Z", lapel)
    zips = stroke("M-15,-144L-18,-114", "#e0c060", 4, dash="5 5") + stroke(
        "M15,-144L18,-114", "#e0c060", 4, dash="5 5"
    )
    return strip + folds + left + right + zips


def _kimono(fill: str, name: str | None) -> str:
    edge = "#8a86a0" if name == "white" else "#fdfcfa"
    sash = palette.CLOTHES["purple"] if name == "yellow" else "#e9b93c"
    skin = shape("M-12,-206L0,-184L12,-206Z", palette.SKIN, "none")
    under = stroke("M18,-204L-14,-150", palette.line(fill), 15, "butt") + stroke(
        "M18,-204L-14,-150", edge, 8, "butt"
    )
    over = stroke("M-18,-204L16,-150", palette.line(fill), 15, "butt") + stroke(
        "M-18,-204L16,-150", edge, 8, "butt"
    )
    obi = shape("M-36,-154L36,-154L38,-124L-38,-124Z", sash)
    cord = stroke("M-36,-139L36,-139", palette.CLOTHES["red"] if name != "red" else DARK, 6, "butt")
    return skin + under + over + obi + cord + disc(0, -139, 7, "#fdfcfa")


def _tank_top(fill: str, boy: bool, body: str) -> str:
    half = 40 if boy else 35
    skin = shape(body, palette.SKIN)
    shade = shape("M-32,-196Q0,-180 32,-196L15,-203L-15,-203Z", palette.shadow(palette.SKIN), "none")
    cloth_path = (
        f"M-31,-197L-18,-200Q-18,-172 0,-172Q18,-172 18,-200L31,-197Q28,-172 {half + 2},-164L{half},-152"
        f"L{half + 4},-111L-{half + 4},-111L-{half},-152L-{half + 2},-164Q-28,-172 -31,-197Z"
    )
    dark = shape(
        f"M{half + 1},-164L{half - 1},-152L{half + 3},-112L16,-112Q24,-140 20,-168Z",
        palette.shadow(fill),
        "none",
    )
    return skin + shade + shape(cloth_path, fill, "none") + dark + stroke(cloth_path, palette.line(fill))


def _bands(name: str | None) -> tuple[str, str]:
    """Ground and stripe of striped cloth, whose colour must tell."""
    if name == "white":
        return "#fdfcfa", "#a9aec4"
    return "#fdfcfa", cloth(name)


def _striped_shirt(fill: str, name: str | None, boy: bool) -> str:
    ground, band = _bands(name)
    body = torso_path(boy)
    bands: list[str] = []
    for y in (-191, -163, -135):
        half = 42 if y == -191 else (39 if y == -163 else 35)
        half += 4 if boy else 0
        bands.append(
            shape(f"M-{half},{y}L{half},{y}L{half - 2},{y + 15}L-{half - 2},{y + 15}Z", band, "none")
        )
    flank = "M41,-180L34,-152L37,-114L20,-114Q26,-150 24,-190Z"
    shade = f'<path d="{flank}" fill="{palette.LINE}" fill-opacity="0.2"/>'
    return shape(body, ground, "none") + "".join(bands) + shade


def _bodice(name: str | None) -> str:
    trim = _trim(name)
    collar = shape("M0,-188L-12,-206L-32,-198Q-32,-180 -14,-180Z", trim) + shape(
        "M0,-188L12,-206L32,-198Q32,-180 14,-180Z", trim
    )
    band = stroke("M-34,-139L34,-139", palette.line(trim), 15, "butt") + stroke(
        "M-35,-139L35,-139", trim, 8, "butt"
    )
    bow = (
        shape("M0,-139L-21,-152L-21,-126Z", trim)
        + shape("M0,-139L21,-152L21,-126Z", trim)
        + disc(0, -139, 6, trim)
    )
    return collar + band + bow


def draw_arm(character: Character, points: Sequence[Point], fist: bool = True) -> str:
    """One arm in its sleeve along shoulder, elbow and hand."""
    dress = character.bottom == "dress"
    name = character.bottom_color if dress else character.top_color
    fill, top = cloth(name), character.top
    total = length(points)
    hand = disc(*points[-1], 12.5, palette.SKIN) if fist else ""
    bare = limb(points, 17, palette.SKIN)
    if dress:
        puff = cut(points, 4, 16)
        end = puff[-1]
        return (
            bare
            + hand
            + disc(end[0], end[1], 17, fill, 16)
            + stroke(f"M{end[0] - 8},{end[1] + 11}L{end[0] + 8},{end[1] + 11}", _trim(name), 5)
        )
    if top == "tank_top":
        return bare + hand
    if top == "kimono":
        part = cut(points, 0, total - 14)
        middle = [part[0], *cut(points, total * 0.45, total * 0.5)[:1], part[-1]]
        return bare + hand + flared(middle, (24, 34, 54), fill)
    sleeve = cut(points, 0, total - 12)
    if top == "striped_shirt":
        ground, band = _bands(name)
        return (
            hand
            + limb(sleeve, 20, ground, shade=False)
            + stroke(_line(sleeve), band, 20, "butt", dash="12 13")
        )
    width = {"hoodie": 27, "sweater": 25, "jacket": 23}.get(top or "", 21)
    cuff_fill = {
        "serafuku": _trim(name),
        "hoodie": palette.shadow(fill),
        "sweater": palette.highlight(fill, 0.25),
        "collared_shirt": palette.highlight(fill, 0.4),
    }.get(top or "", palette.shadow(fill, 0.4))
    cuff = limb(cut(sleeve, length(sleeve) - 9, length(sleeve)), width, cuff_fill, shade=False)
    return hand + limb(sleeve, width, fill) + cuff


def _line(points: Sequence[Point]) -> str:
    return "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in points)


def draw_legwear(legwear: str | None, leg: Sequence[Point], cover: float) -> str:
    """One leg with its legwear; `leg` runs from hip to ankle, thighhighs reach `cover` units above it."""
    total = length(leg)
    if legwear == "black_pantyhose":
        return limb(leg, LEG_WIDTH, SOCK_BLACK)
    bare = limb(leg, LEG_WIDTH, palette.SKIN)
    if legwear in (None, "bare_legs"):
        return bare
    sock = cut(leg, total - (cover * 0.55 if legwear == "white_socks" else cover), total)
    fill = SOCK_BLACK if legwear == "black_thighhighs" else SOCK_WHITE
    cloth_part = limb(sock, LEG_WIDTH + 1, fill, shade=legwear != "striped_thighhighs")
    if legwear == "striped_thighhighs":
        cloth_part += stroke(_line(sock), STRIPE_BLUE, LEG_WIDTH + 1, "butt", dash="9 7")
    rim = cut(sock, 0, OUTLINE)
    return bare + cloth_part + stroke(_line(rim), palette.line(fill), LEG_WIDTH + 7, "butt")


def draw_skirt(bottom: str, color: str, waist: float, hem: float, spread: float, half: float) -> str:
    """A skirt (also of a dress) between two heights; `spread` widens its hem, `half` is half its waist."""
    fill = cloth(color)
    dark, line = palette.shadow(fill), palette.line(fill)
    wide = {"pleated_skirt": 55, "frilled_skirt": 62, "long_skirt": 56, "dress": 63}[bottom] + spread
    if bottom == "frilled_skirt":
        hem -= 8
    drop = hem - waist
    flank = f"M-{half},{waist}Q-{half + (wide - half) * 0.45},{waist + drop * 0.4} -{wide},{hem}"
    back = f"L{wide},{hem}Q{half + (wide - half) * 0.45},{waist + drop * 0.4} {half},{waist}Z"
    if bottom == "pleated_skirt":
        teeth = 6
        step = 2 * wide / teeth
        edge = "".join(
            f"L{-wide + step * i:.1f},{hem + 7:.1f}L{-wide + step * (i + 1):.1f},{hem:.1f}"
            for i in range(teeth)
        )
        pleats = "".join(
            polygon(
                [
                    (-half + 2 * half / teeth * (i + 0.55), waist),
                    (-half + 2 * half / teeth * (i + 1), waist),
                    (-wide + step * (i + 1), hem),
                    (-wide + step * (i + 0.3), hem + 3),
                ],
                dark,
                "none",
            )
            for i in range(teeth)
        )
        d = flank + edge + back
        return shape(d, fill, "none") + pleats + stroke(d, line)
    d = flank + f"Q0,{hem + 14} {wide},{hem}" + back
    folds = shape(
        f"M{half * 0.4},{waist}L{half},{waist}L{wide},{hem}Q{wide * 0.7},{hem + 6} {wide * 0.5},{hem + 7}Z",
        dark,
        "none",
    ) + shape(
        f"M{-half * 0.4},{waist + drop * 0.2}L{-wide * 0.45},{hem + 6}L{-wide * 0.2},{hem + 7}Z", dark, "none"
    )
    skirt = shape(d, fill, "none") + folds + stroke(d, line)
    if bottom == "frilled_skirt":
        frill = "#ffd6e4" if color == "white" else "#fdfcfa"
        count = 6
        step = 2 * wide / count
        top = hem - 10
        lace = f"M-{wide - 2},{top}Q0,{top + 12} {wide - 2},{top}L{wide + 4},{hem}"
        lace += "".join(
            f"Q{wide + 2 - step * (i + 0.5):.1f},{hem + 20} {wide + 2 - step * (i + 1):.1f},{hem + 3}"
            for i in range(count)
        )
        return skirt + shape(lace + "Z", frill)
    if bottom == "dress":
        trim = _trim(color)
        return skirt + stroke(f"M{-wide + 5},{hem - 8}Q0,{hem + 5} {wide - 5},{hem - 8}", trim, 5, "butt")
    if bottom == "long_skirt":
        seams = f"M{-half * 0.3},{waist + drop * 0.25}L{-wide * 0.45},{hem}"
        seams += f"M{half * 0.1},{waist + drop * 0.3}L{wide * 0.1},{hem + 4}"
        return skirt + stroke(seams, palette.shadow(fill, 0.5), 4)
    return skirt


def draw_trousers(bottom: str, color: str, legs: Sequence[Sequence[Point]], waist: float, half: float) -> str:
    """Shorts or long trousers along both legs."""
    fill = cloth(color)
    parts: list[str] = []
    for leg in legs:
        total = length(leg)
        part = cut(leg, 0, min(40, total * 0.45) if bottom == "shorts" else total - 3)
        parts.append(limb(part, 33 if bottom == "shorts" else 30, fill))
        end = length(part)
        turn_up = cut(part, end - 8, end)
        width = 35 if bottom == "shorts" else 31
        parts.append(
            limb(turn_up, width, palette.highlight(fill, 0.35) if bottom == "shorts" else fill, shade=False)
        )
    hips = legs[0][0][1]
    pelvis = f"M-{half},{waist}L{half},{waist}L{half + 1},{hips + 8}L5,{hips + 12}L0,{hips + 6}"
    pelvis += f"L-5,{hips + 12}L-{half + 1},{hips + 8}Z"
    parts.append(shape(pelvis, fill, "none"))
    parts.append(
        stroke(f"M-{half},{hips + 6}L-{half},{waist}L{half},{waist}L{half},{hips + 6}", palette.line(fill))
    )
    parts.append(stroke(f"M0,{waist + 6}L0,{hips + 14}", palette.line(fill)))
    return "".join(parts)
