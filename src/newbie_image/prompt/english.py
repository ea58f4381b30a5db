"""Small words of English, for reading sentences: what is skipped, and which form of a word a tag has."""

from __future__ import annotations

# ruff: noqa: SIM905

LEMMAS: dict[str, str] = {
    pair.partition(":")[0]: pair.partition(":")[2]
    for pair in """
    sits:sitting stands:standing smiles:smile smiling:smile runs:running walks:walking holds:holding
    jumps:jumping reads:reading waves:waving sleeps:sleeping sings:singing dances:dancing rains:rain
    raining:rain rainy:rain snowy:snow cries:crying laughs:laughing salutes:salute saluting:salute
    kneels:kneeling flies:flying colour:color gray:grey looks:looking winks:one_eye_closed
    winking:one_eye_closed frowns:frown frowning:frown angrily:angry blushing:blush blushes:blush
    hold:holding stand:standing sit:sitting umbrellas:umbrella flowers:flower snows:snowing pigtails:twintails
    uniforms:uniform
    """.split()
}
"""Word as spoken → word as in tags."""

ARTICLES = frozenset("a an the her his their its own some".split())

NOT_ALONE = frozenset(
    """
    can general safe text sign key watch original error cover recent detailed bright dark tall old solo
    other v holding music group day water sensitive everyone letter tank bar wind star ring bow chain
    table king queen outline border dated duplicate cropped path road light wall weapon animal food
    plant shadow perspective realistic happy cool staff
    """.split()
)
"""Tags that are also everyday words: alone in a sentence they mean something else."""

SMALL_WORDS = frozenset(
    """
    with and or of in on at to by for from is are was were be being has have had wearing wears wear
    dressed who which that there this these those she he they it her him them as into onto over under
    near named while behind beside both each one very together up down out off then where when not no but so
    """.split()
)
"""Words that carry no tag and are not worth listing as unknown."""

PERSON = {"girl": "1girl", "woman": "1girl", "lady": "1girl", "boy": "1boy", "man": "1boy", "guy": "1boy"}
PEOPLE = {"girls": "girls", "women": "girls", "boys": "boys", "men": "boys"}
NUMBERS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "2": 2, "3": 3, "4": 4, "5": 5, "6": 6}
OTHER_ONE = frozenset({"other", "another", "second"})
EVERYONE = frozenset({"are", "were", "both", "they", "together"})
"""Words after which something is said of all the people so far."""
PARTS = frozenset({"hair", "eyes", "ears", "wings", "horns", "skirt", "dress", "gloves", "boots", "socks"})
"""Nouns that several adjectives make several tags of: long blue hair."""
