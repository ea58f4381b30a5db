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
from newbie_image.binding.binding import Binding, acting_steps
from newbie_image.binding.regions import finding_step
from newbie_image.binding.sight import Sight, found_masks
from newbie_image.request import UsedRegions
from newbie_image.sampling.solvers import VelocityFn
from newbie_image.text import TextFeatures


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
        self._found_after = finding_step(self._steps)
        self._acted = False
        self.conditioning = conditioning
        self.take(conditioning)

    def __call__(self, latents: Tensor, t: float) -> Tensor:
        return self._velocity(latents, t)

    def take(self, conditioning: Conditioning) -> None:
        """Goes on under another prompt."""
        before = self.conditioning.binding
        self.conditioning = conditioning
        binding = conditioning.binding
        self._finder = None
        if binding is not None and binding.parts.regional and not binding.placed:
            people = binding.text.characters
            # People who were found already stay where they are.
            if before is not None and before.masks and before.text.characters == people:
                self.conditioning = replace(conditioning, binding=replace(binding, masks=before.masks))
            elif people > 1:
                self._finder = Sight()
        self._rebuild()

    def before_step(self, index: int) -> None:
        """What is due before step number `index`, from 0."""
        for sight in (*self._sights, *([self._finder] if self._finder else [])):
            sight.step = index
        binding = self.conditioning.binding
        if binding is None or not binding.parts.regional:
            return
        finder = self._finder
        if finder is not None and index >= self._found_after and finder.total is not None:
            masks = tuple(
                found_masks(maps, binding.text.groups, self._image_grid, binding.text.characters)
                for maps in finder.maps
            )
            binding = replace(binding, masks=masks)
            self._finder = None
            self.conditioning = replace(self.conditioning, binding=binding)
            self._rebuild()
        self._acted |= binding.placed and index in acting_steps(binding.parts, self._steps)

    def regions(self, pictures: int) -> tuple[UsedRegions, ...]:
        """Where the characters of each picture are to stand; none where no regions have acted (yet)."""
        binding = self.conditioning.binding
        if binding is None or not binding.parts.regional or not binding.placed or not self._acted:
            return ()
        if binding.masks:
            return tuple(UsedRegions((), masks, binding.text.labels) for masks in binding.masks[:pictures])
        boxes = tuple(region.box for region in binding.regions)
        masks = soft_masks(boxes, *self._image_grid).view(len(boxes), *self._image_grid)
        return (UsedRegions(boxes, masks, binding.text.labels),) * pictures

    def _rebuild(self) -> None:
        finder = () if self._finder is None else (self._finder,)
        self._velocity = self._build(self.conditioning, (*self._sights, *finder))
