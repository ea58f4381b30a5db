"""A run's velocity that can change between two steps: another prompt or weight, regions that were found.

A solver walks along one function of latents and time. What stands behind that function may change while it
walks: the prompt, because a reader of the stream or the request says so, and the binding, because where the
characters stand is only seen once they begin to appear.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from newbie_image.binding.bias import soft_masks
from newbie_image.binding.binding import Binding
from newbie_image.binding.sight import Sight, found_masks
from newbie_image.request import UsedRegions
from newbie_image.sampling.solvers import VelocityFn
from newbie_image.text import TextFeatures

FINDING_SHARE = 0.2
"""Part of the steps after which regions are looked for, where no position says them."""


@dataclass(frozen=True)
class Conditioning:
    """What one prompt asks for: its features, its binding, and what had to be said of both."""

    features: TextFeatures
    binding: Binding | None
    warnings: tuple[str, ...]


class SteeredVelocity:
    """See the module.

    Args:
        conditioning: of the first prompt.
        build: (conditioning, sights) → velocity.
        grid: times of the steps.
        image_grid: image tokens downwards and across.
        sights: collectors of the reader.
    """

    def __init__(
        self,
        conditioning: Conditioning,
        build: Callable[[Conditioning, Sequence[Sight]], VelocityFn],
        grid: Sequence[float],
        image_grid: tuple[int, int],
        sights: Sequence[Sight],
    ) -> None:
        self._build = build
        self._steps = len(grid) - 1
        self._image_grid = image_grid
        self._sights = tuple(sights)
        self._finder: Sight | None = None
        self._found_after = max(1, round(FINDING_SHARE * self._steps))
        self.take(conditioning)

    def __call__(self, latents: Tensor, t: float) -> Tensor:
        return self._velocity(latents, t)

    def take(self, conditioning: Conditioning) -> None:
        """Goes on under another prompt."""
        self.conditioning = conditioning
        binding = conditioning.binding
        lost = binding is not None and binding.parts.regional and not binding.placed
        self._finder = Sight() if lost and binding is not None and binding.text.characters > 1 else None
        self._rebuild()

    def before_step(self, index: int) -> None:
        """What is due before step number `index`, from 0."""
        for sight in (*self._sights, *([self._finder] if self._finder else [])):
            sight.step = index
        if self._finder is None or index < self._found_after or self._finder.total is None:
            return
        binding = self.conditioning.binding
        assert binding is not None
        masks = tuple(
            found_masks(maps, binding.text.groups, self._image_grid, binding.text.characters)
            for maps in self._finder.maps
        )
        self._finder = None
        self.conditioning = replace(self.conditioning, binding=replace(binding, masks=masks))
        self._rebuild()

    def regions(self, pictures: int) -> tuple[UsedRegions, ...]:
        """Where the characters of each picture are to stand; none where no regions act (yet)."""
        binding = self.conditioning.binding
        if binding is None or not binding.parts.regional or not binding.placed:
            return ()
        if binding.masks:
            return tuple(UsedRegions((), masks) for masks in binding.masks[:pictures])
        boxes = tuple(region.box for region in binding.regions)
        masks = soft_masks(boxes, *self._image_grid).view(len(boxes), *self._image_grid)
        return (UsedRegions(boxes, masks),) * pictures

    def _rebuild(self) -> None:
        finder = () if self._finder is None else (self._finder,)
        self._velocity = self._build(self.conditioning, (*self._sights, *finder))
