"""One prompt's binding: read it, decide what is on, and tell the transformer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from newbie_image.binding.bias import Factors, binding_factors, owners, soft_masks
from newbie_image.binding.groups import GroupedText
from newbie_image.binding.regions import Region, finding_step, place_of, regions_of
from newbie_image.binding_modes import MODES, BindingParts, Mode, read_binding
from newbie_image.models.attention import KeyPadding
from newbie_image.models.prepared_text import PreparedText
from newbie_image.prompt import Prompt, grammar

Form = Literal["mask", "appended"]


@dataclass(frozen=True)
class Binding:
    """What keeps the characters of one prompt apart.

    Args:
        parts: what is on.
        text: the prompt's tokens by character.
        regions: where the characters stand; none where nothing says so.
        masks: a (characters, rows, columns) in [0, 1] for each picture, the regions themselves where they
            were found in the pictures; they go before `regions`.
    """

    parts: BindingParts
    text: GroupedText
    regions: tuple[Region, ...] = ()
    masks: tuple[Tensor, ...] = ()

    @property
    def placed(self) -> bool:
        """Whether it is known where the characters stand."""
        return bool(self.regions or self.masks)

    def varies(self, regional: bool) -> bool:
        """Whether each picture has rules of its own: those of one prompt only where regions were found in
        each."""
        return bool(self.masks) and regional

    def factors(self, grid: tuple[int, int], regional: bool, picture: int = 0) -> Factors:
        """The added scores for picture number `picture`, of `grid` image tokens (rows, columns)."""
        return binding_factors(
            self.text.groups,
            self.text.weights,
            self._masks(grid, picture),
            grid[0] * grid[1],
            self.parts,
            regional=regional,
        )

    def negative_factors(self, grid: tuple[int, int], length: int, picture: int = 0) -> Factors:
        """The same for the negative prompt, of `length` tokens, whose words are nobody's: its picture must
        not carry between sealed regions what the prompt's does not."""
        nobodys = (0,) * length
        return binding_factors(nobodys, (), self._masks(grid, picture), grid[0] * grid[1], self.parts)

    def _masks(self, grid: tuple[int, int], picture: int) -> Tensor:
        if self.masks:
            return self.masks[picture].flatten(1)
        return soft_masks([region.box for region in self.regions], *grid)

    def tell(
        self, prepared: PreparedText, pictures: int, blocks: int, *, regional: bool, form: Form = "mask"
    ) -> PreparedText:
        """The same prepared text with this binding's rules for its first rows.

        Args:
            prepared: the prompt's rows, then any others (negative prompts, in the same order), which get none
                of the rules; where regions are sealed, they are sealed there too.
            pictures: how many of the rows are the prompt's.
            blocks: joint blocks of the transformer.
            regional: whether the parts that need regions act.
            form: written out, or appended to queries and keys.
        """
        image = prepared.grid[0] * prepared.grid[1]
        length = image + prepared.text.shape[1]
        if prepared.padding is None:
            valid = torch.ones(prepared.batch, length, dtype=torch.bool, device=prepared.text.device)
        else:
            valid = prepared.padding.valid
        told = self._told(regional, valid, pictures, prepared, form)
        result = replace(prepared, padding=told)
        if self.parts.layers == "middle" and regional:
            plain = self._told(False, valid, pictures, prepared, form)
            third = blocks // 3
            inner = (third, blocks - third)
            result = replace(prepared, padding=plain, inner=inner, inner_padding=told)
        if self.parts.sealed and regional:
            # The noise refiners see the picture alone, before the caption joins; sealed regions hold there.
            told = self._told(True, valid[:, :image], pictures, prepared, form)
            result = replace(result, image_padding=told)
        return result

    def _told(
        self, regional: bool, valid: Tensor, pictures: int, prepared: PreparedText, form: Form
    ) -> KeyPadding:
        device, dtype = prepared.text.device, prepared.text.dtype
        on_host = valid.cpu()
        tokens = on_host.shape[1]
        rules: dict[int, Factors] = {}
        each: list[Factors] = []
        dense: dict[tuple[int, int], Tensor] = {}
        rows: list[Tensor] = []
        for row, known in enumerate(on_host):
            negative = row >= pictures
            picture = (row - pictures if negative else row) if self.varies(regional) else 0
            kind = -1 - picture if negative else picture
            if kind not in rules:
                rules[kind] = self._rules(prepared.grid, regional, tokens, picture, negative)
            each.append(rules[kind].padded(known))
            written = (kind, int(known.sum()))
            if form == "mask" and written not in dense:
                dense[written] = each[-1].dense().to(device, dtype)[None]
            if form == "mask":
                rows.append(dense[written])
        if form == "mask":
            return KeyPadding(valid, bias=torch.stack(rows))
        rank = max(one.queries.shape[1] for one in each)
        queries, keys = (
            torch.stack([F.pad(part, (0, rank - part.shape[1])) for part in parts]).to(device)
            for parts in ([one.queries for one in each], [one.keys for one in each])
        )
        return KeyPadding(valid, factors=(queries, keys))

    def _rules(
        self, grid: tuple[int, int], regional: bool, tokens: int, picture: int, negative: bool
    ) -> Factors:
        """Of the first `tokens` of a row, image and caption."""
        if not negative:
            found = self.factors(grid, regional, picture)
            return Factors(found.queries[:tokens], found.keys[:tokens])
        if self.parts.sealed and regional:
            return self.negative_factors(grid, tokens - grid[0] * grid[1], picture)
        return Factors(torch.zeros(tokens, 1), torch.zeros(tokens, 1))


def decide(
    setting: str, prompt: Prompt, default: str, trained: Sequence[Mode] | None = None
) -> tuple[BindingParts, tuple[str, ...]]:
    """The parts that act on a prompt, and what has to be said.

    Args:
        setting: of the request: `auto` or a mode with its parts.
        prompt: parsed.
        default: the mode that the bundle gives prompts with several characters.
        trained: modes that the bundle was trained with, None where nothing is known. `auto` is never said to
            be none of them: `default` is one.
    """
    parts = read_binding(setting)
    weighed = any(tag.weight not in (0.0, 1.0) for tag in prompt.tags)
    people = len(prompt.characters)
    remarks = [
        f"the weight {tag.own_weight:g} of {tag.path} acts as {grammar.SOFT_MIN_WEIGHT:g}, the least above 0"
        for tag in prompt.tags
        if tag.own_weight is not None and 0 < tag.own_weight < grammar.SOFT_MIN_WEIGHT
    ]
    if parts is None:
        chosen = MODES[default] if people > 1 else MODES["off"]
        lost = [each.key for each in prompt.characters if place_of(each) is None]
        if lost and chosen.regional:
            if len(lost) < people:
                remarks.append(
                    f"{', '.join(lost)} {'has' if len(lost) == 1 else 'have'} no position that can be used: "
                    f"auto does not bind by {default!r}, and those of the others are not used"
                )
            chosen = MODES["off"]
        return replace(chosen, weights=weighed), tuple(remarks)
    if weighed and not parts.weights:
        remarks.append(
            f"the prompt has weights, but binding {setting!r} does not use them; add weights=on, or give auto"
        )
    if not weighed:
        parts = replace(parts, weights=False)
    if people == 0 and (parts.encode or parts.text or parts.blind or parts.regional):
        remarks.append(f"binding {setting!r} needs <character_N> blocks and the prompt has none: it is off")
        parts = replace(MODES["off"], weights=parts.weights)
    if trained is not None and parts.switched and all(parts.switched != MODES[m].switched for m in trained):
        remarks.append(
            f"the model was not trained with binding {setting!r}, only with {', '.join(trained)}; it is "
            "used all the same, and the picture may be worse"
        )
    return parts, tuple(remarks)


def place(
    parts: BindingParts, prompt: Prompt, grid: tuple[int, int] | None = None, steps: int | None = None
) -> tuple[tuple[Region, ...], tuple[str, ...]]:
    """The regions that the parts need, and what has to be said about them.

    Args:
        parts: what is on.
        prompt: parsed.
        grid: image tokens downwards and across; None where they are not known yet.
        steps: of the run; likewise.
    """
    if not parts.regional or not prompt.characters:
        return (), ()
    regions, remarks = regions_of(prompt)
    if regions:
        if grid is not None:
            remarks = (*remarks, *_unseen(parts, prompt, regions, grid))
        if steps is not None and not acting_steps(parts, steps):
            remarks = (*remarks, f"{_window(parts)} holds none of {steps} steps: no regions act")
        return regions, remarks
    return (), (*remarks, _sought(parts, prompt, steps))


def _sought(parts: BindingParts, prompt: Prompt, steps: int | None) -> str:
    """What is done where somebody has no place."""
    lost = [each.key for each in prompt.characters if place_of(each) is None]
    who = f"{', '.join(lost)} {'has' if len(lost) == 1 else 'have'} no position that can be used"
    if len(prompt.characters) == 1:
        return f"{who}: the parts of the binding that need regions do nothing"
    if len(lost) < len(prompt.characters):
        who += ", so those of the others are not used"
    if steps is None:
        return f"{who}: regions are looked for in the picture"
    acting = acting_steps(parts, steps, finding_step(steps))
    if not acting:
        wider = acting_steps(replace(parts, end=1.0), steps, finding_step(steps))
        window = f" or a wider {_window(parts)}" if wider else ""
        return f"{who}: {steps} steps leave none to look for regions and use them; give positions{window}"
    until = "; before it, nothing but the texts is sealed" if parts.sealed else ""
    last = acting[-1] + 1
    when = f"from step {acting[0] + 1} on" if last == steps else f"in steps {acting[0] + 1} to {last}"
    return f"{who}: regions are looked for in the picture and act {when}{until}"


def _window(parts: BindingParts) -> str:
    return f"window={parts.start:g}-{parts.end:g}"


def _unseen(
    parts: BindingParts, prompt: Prompt, regions: Sequence[Region], grid: tuple[int, int]
) -> list[str]:
    """Characters to whom no image token belongs."""
    masks = soft_masks([region.box for region in regions], *grid)
    found = owners(masks).tolist()
    barred = parts.sealed or (parts.region and math.isinf(parts.beta_minus))
    said: list[str] = []
    for region, mask in zip(regions, masks, strict=True):
        key = prompt.characters[region.character - 1].key
        if float(mask.max()) < 0.5:
            said.append(f"the box of {key} is smaller than an image token and hardly acts; make it larger")
        elif region.character not in found and barred:
            said.append(f"nothing reads the words of {key}, because others' regions cover its own; move one")
    return said


def acting_steps(parts: BindingParts, steps: int, found: int = 0) -> range:
    """The steps, from 0, in which the parts that need regions act.

    Args:
        parts: whose `start` and `end` are shares of the steps.
        steps: of the run.
        found: the first one before which the regions are known.
    """
    return range(max(found, round(parts.start * steps)), round(parts.end * steps))


def phases(
    binding: Binding,
    prepared: PreparedText,
    pictures: int,
    blocks: int,
    grid: Sequence[float],
    form: Form = "mask",
) -> tuple[tuple[float, PreparedText], ...]:
    """(time from which it holds, prepared text), in order of time: any mask is built once a prompt.

    Args:
        grid: times of the run's steps, from 0 to 1; `BindingParts.start` and `end` are shares of its steps.
    """
    parts = binding.parts
    if not parts.regional or not binding.placed:
        return ((0.0, binding.tell(prepared, pictures, blocks, regional=False, form=form)),)
    acting = binding.tell(prepared, pictures, blocks, regional=True, form=form)
    steps = acting_steps(parts, len(grid) - 1)
    first, last = grid[steps.start], grid[steps.stop]
    if parts.start == 0 and parts.end == 1:
        return ((0.0, acting),)
    resting = binding.tell(prepared, pictures, blocks, regional=False, form=form)
    found = [(0.0, resting)] if first > 0 else []
    return (*found, (first, acting), *([(last, resting)] if parts.end < 1 else []))
