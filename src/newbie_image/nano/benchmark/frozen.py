"""The frozen prompt sets: `frozen.json` has a recipe and a sha256 for each set, and a set is used only if
what the recipe makes has that sha256.

It was written once, by `python -m newbie_image.nano.benchmark.frozen`, which does not write over it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from newbie_image.errors import ConfigError, RequestError
from newbie_image.nano.benchmark.prompt_sets import (
    FORMS,
    KINDS,
    LONGEST,
    BenchmarkPrompt,
    check_set,
    first_seed,
    make_prompt,
)

FROZEN_FILE: Final = Path(__file__).parent / "frozen.json"


class FrozenSet(BaseModel):
    """A set's recipe and the sha256 of what it makes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    people: int = Field(ge=1, le=6)
    first_seed: int = Field(ge=0)
    prompts: int = Field(ge=1)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class FrozenSets(BaseModel):
    """The whole file: set name (`seen-2`) → its recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = Field(ge=1, le=1)
    sets: dict[str, FrozenSet]


def prompts_sha256(prompts: Sequence[BenchmarkPrompt]) -> str:
    """sha256 of all that is asked: each prompt's key, noise, scene and its text in every form."""
    digest = hashlib.sha256()
    for prompt in prompts:
        asked = [prompt.key, prompt.noise_seed, asdict(prompt.scene), *(prompt.text(form) for form in FORMS)]
        digest.update(json.dumps(asked, sort_keys=True).encode() + b"\0")
    return digest.hexdigest()


def frozen_prompts(kind: str, people: int, file: Path = FROZEN_FILE) -> list[BenchmarkPrompt]:
    """All prompts of a frozen set, checked.

    Raises:
        RequestError: a set that there is not.
        ConfigError: the file or the set is not what was frozen; names it.
    """
    check_set(kind, people)
    name = f"{kind}-{people}"
    recipe = read_frozen(file).sets.get(name)
    if recipe is None:
        raise ConfigError(f"{file.name} has no set {name!r}; restore the file from the repository")
    wanted = (kind, people, first_seed(kind, people))
    if (recipe.kind, recipe.people, recipe.first_seed) != wanted:
        raise ConfigError(
            f"the set {name!r} of {file.name} has the recipe {recipe.kind} with {recipe.people} people from "
            f"seed {recipe.first_seed}, not {wanted[0]} with {wanted[1]} from {wanted[2]}; restore the file "
            "from the repository"
        )
    prompts = [make_prompt(kind, people, index) for index in range(recipe.prompts)]
    made = prompts_sha256(prompts)
    if made != recipe.sha256:
        raise ConfigError(
            f"the set {name!r} is not the frozen one: {file.name} says sha256 {recipe.sha256[:16]}…, "
            f"its {recipe.prompts} prompts have {made[:16]}…; restore {file.name} and the world's sampling"
        )
    return prompts


def mixed_prompts(
    kind: str, people: Sequence[int], count: int, skip: int = 0, file: Path = FROZEN_FILE
) -> tuple[list[BenchmarkPrompt], dict[str, str]]:
    """`count` prompts of a kind behind the first `skip`, the numbers of people in turn, and the sha256 of
    each set they are from.

    Raises:
        RequestError: more prompts than there are, or none.
        ConfigError: a set that is not the frozen one.
    """
    if not people:
        raise RequestError(f"no number of people is given for the set {kind!r}; give one or more of 1 to 6")
    sets = {number: frozen_prompts(kind, number, file) for number in people}
    there = min(len(prompts) for prompts in sets.values())
    if count < 1 or skip < 0 or skip + count > there * len(people):
        behind = f" behind the first {skip}" if skip else ""
        raise RequestError(
            f"count {count}{behind} is not allowed; the set {kind!r} has 1 to {there * len(people)} prompts "
            f"with {', '.join(map(str, people))} people"
        )
    mixed = [sets[number][index] for index in range(there) for number in people][skip : skip + count]
    hashes = {f"{kind}-{n}": read_frozen(file).sets[f"{kind}-{n}"].sha256 for n in people}
    return mixed, hashes


def read_frozen(file: Path = FROZEN_FILE) -> FrozenSets:
    """The file, its form checked and nothing else.

    Raises:
        ConfigError: it is missing or misshapen.
    """
    try:
        return FrozenSets.model_validate_json(file.read_text())
    except OSError as error:
        raise ConfigError(
            f"{file} cannot be read ({error.strerror}); restore it from the repository"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ConfigError(
            f"{file.name} is misshapen at {where} ({first['msg']}); restore it from the repository"
        ) from None


def freeze(file: Path = FROZEN_FILE, prompts: int = LONGEST) -> None:
    """Writes the recipes and hashes of all sets.

    Raises:
        ConfigError: the file is there already.
    """
    if file.exists():
        raise ConfigError(f"{file} is there already; frozen sets are not written over")
    sets = {
        f"{kind}-{people}": FrozenSet(
            kind=kind,
            people=people,
            first_seed=first_seed(kind, people),
            prompts=prompts,
            sha256=prompts_sha256([make_prompt(kind, people, index) for index in range(prompts)]),
        )
        for kind, about in KINDS.items()
        for people in about.people
    }
    file.write_text(FrozenSets(format=1, sets=sets).model_dump_json(indent=1) + "\n")


if __name__ == "__main__":
    freeze()
