"""What attention is told: the scores that are added for each pair of tokens.

Every rule says «these queries look at those keys so much more or less», so the whole bias is a sum of few
outer products, at most 2·characters + 5 of them. Written out it is the mask that any kernel takes; as factors
it is appended to queries and keys, so that kernels without a mask (flash attention) compute the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from newbie_image.binding.regions import Box
from newbie_image.binding_modes import BindingParts
from newbie_image.models.prepared_text import IMAGE

BARRED = -1.0e3
"""Added where a query must not see a key: e^−1000 is 0 in float32, and float16 can hold it as a factor."""
BLUR = 0.06
"""Width of a region's soft edge, in sides of the picture."""


@dataclass(frozen=True)
class Factors:
    """An added score as outer products: queries · keysᵀ.

    Attributes:
        queries, keys: (tokens, rank) float32.
    """

    queries: Tensor
    keys: Tensor

    def dense(self) -> Tensor:
        """(tokens, tokens) float32; −inf where a key is barred. No rule bars a token from itself."""
        bias = self.queries @ self.keys.T
        return bias.masked_fill(bias < BARRED / 2, -math.inf)

    def padded(self, valid: Tensor) -> Factors:
        """With keys barred for all that are no tokens.

        Args:
            valid: (tokens,) bool, as long as the factors or longer; what is beyond them has no rules.
        """
        more = len(valid) - len(self.queries)
        queries, keys = (F.pad(each, (0, 1, 0, more)) for each in (self.queries, self.keys))
        queries[:, -1], keys[:, -1] = BARRED, (~valid).float()
        return Factors(queries, keys)


def soft_masks(boxes: Sequence[Box] | Tensor, rows: int, columns: int, blur: float = BLUR) -> Tensor:
    """How much each image token lies in each box.

    Args:
        boxes: (…, 4): left, top, right, bottom in fractions of the picture.
        rows, columns: image tokens downwards and across.
        blur: width of the edge over which it falls from 1 to 0; 0 for a hard edge. The picture's own edge is
            never blurred.
    Returns:
        (…, rows · columns) float32 in [0, 1].
    """
    if not isinstance(boxes, Tensor):
        boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    y = (torch.arange(rows, device=boxes.device) + 0.5) / rows
    x = (torch.arange(columns, device=boxes.device) + 0.5) / columns
    left, top, right, bottom = boxes[..., None].unbind(-2)
    across, down = _inside(x, left, right, blur), _inside(y, top, bottom, blur)
    return (down[..., :, None] * across[..., None, :]).flatten(-2)


def _inside(place: Tensor, low: Tensor, high: Tensor, blur: float) -> Tensor:
    if blur == 0:
        return ((place >= low) & (place < high)).float()
    rise = torch.where(low <= 0, 1.0, ((place - low) / blur + 0.5).clamp(0, 1))
    fall = torch.where(high >= 1, 1.0, ((high - place) / blur + 0.5).clamp(0, 1))
    return rise * fall


def owners(masks: Tensor) -> Tensor:
    """Which region each image token belongs to: (…, tokens) int64, 0 for none, else from 1.

    Args:
        masks: (…, regions, tokens) in [0, 1].
    """
    if masks.shape[-2] == 0:
        return torch.zeros(*masks.shape[:-2], masks.shape[-1], dtype=torch.int64)
    best, which = masks.max(-2)
    return torch.where(best >= 0.5, which + 1, 0)


def binding_factors(
    groups: Sequence[int],
    weights: Sequence[float],
    masks: Tensor,
    image_tokens: int,
    parts: BindingParts,
    *,
    regional: bool = True,
) -> Factors:
    """The added scores of one prompt's sequence [image][caption].

    Args:
        groups: of each caption token, see `GroupedText`; beyond them may be padding of group 0.
        weights: of each caption token, above 0; acted on from 0.1.
        masks: (characters, image tokens); (0, image tokens) where no regions are known.
        image_tokens: rows · columns.
        parts: what is on.
        regional: whether the parts that need regions act now (see `BindingParts.start`).
    """
    text = torch.tensor(groups, dtype=torch.int64)
    group = torch.cat([torch.full((image_tokens,), IMAGE), text])
    image = (group == IMAGE).float()
    caption = 1 - image
    owner = torch.zeros_like(group)
    owner[:image_tokens] = owners(masks)
    regional = regional and masks.shape[0] > 0
    pairs: list[tuple[Tensor, Tensor]] = []
    for number in range(1, int(text.max().clamp_min(0)) + 1 if len(text) else 1):
        said = (group == number).float()
        asks = torch.zeros(len(group))
        if parts.text or parts.sealed:
            asks += BARRED * caption * (group != number)
        if regional and number <= masks.shape[0]:
            asks[:image_tokens] += _towards(masks[number - 1], owner[:image_tokens], number, parts)
        pairs.append((asks, said))
    if regional and (parts.apart or parts.sealed):
        for number in range(1, masks.shape[0] + 1):
            shown = (owner == number).float() * image
            others = image * (owner != number)
            if not parts.sealed:
                others = others * (owner > 0)
            pairs.append((BARRED * others, shown))
    if regional and parts.sealed:
        pairs.append((BARRED * image * (owner > 0), image * (owner == 0)))
    if parts.blind or parts.sealed:
        pairs.append((BARRED * caption, image))
    if parts.weights and any(weight != 1 for weight in weights):
        wished = torch.zeros(len(group))
        wished[image_tokens : image_tokens + len(weights)] = torch.tensor(
            [math.log(min(max(weight, 0.1), 3.0)) for weight in weights]
        )
        pairs.append((image, wished))
    if not pairs:
        pairs.append((torch.zeros(len(group)), torch.zeros(len(group))))
    queries, keys = zip(*pairs, strict=True)
    return Factors(torch.stack(queries, 1).float(), torch.stack(keys, 1).float())


def _towards(mask: Tensor, owner: Tensor, number: int, parts: BindingParts) -> Tensor:
    """What a character's text gains and loses for each image token."""
    gained = torch.zeros_like(mask)
    if parts.region or parts.sealed:
        gained = parts.beta_plus * mask
        lost = 1 - mask
        if parts.sealed or math.isinf(parts.beta_minus):
            gained = gained + BARRED * (owner != number)
        else:
            gained = gained - parts.beta_minus * lost
    if parts.background or parts.sealed:
        gained = gained + BARRED * (owner == 0)
    return gained
