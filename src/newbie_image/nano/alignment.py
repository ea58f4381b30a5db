"""Oracle alignment: a head in the middle of the transformer names what each image token is to show.

The renderer knows which character covers a token and all its labels. At high noise the picture does not
tell them, so the head can only be right if the token has read the caption's tags of *its* character: a
loud, dense gradient for exactly the paths that flow matching finds late, when an attribute is a small
part of the latent's variance. The head is thrown away after training.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from newbie_image.nano.readers import HIDDEN, SCENE_HEADS, character_targets, scene_targets
from newbie_image.nano.world import attributes as a
from newbie_image.nano.world.render import CharacterBoxes, geometry
from newbie_image.nano.world.scene import Scene

LABELS: Final[dict[str, tuple[Any, ...]]] = {**a.CHARACTER_FIELDS, **SCENE_HEADS}
"""Every label a token may have, with its values: those of a character, then those of the scene."""
HEAD_LABELS: Final = frozenset(
    ("gender", "hair_style", "hair_color", "eye_color", "expression", "glasses", "headwear", "headwear_color")
)
BODY_LABELS: Final = frozenset(
    (
        "gender",
        "hair_style",
        "hair_color",
        "top",
        "top_color",
        "bottom",
        "bottom_color",
        "legwear",
        "held",
        "pose",
    )
)


def token_labels(scene: Scene, side: int) -> np.ndarray:
    """What each token of a `side` × `side` grid shows: int16 (side·side, len(LABELS)), HIDDEN where nothing.

    Tokens inside a head carry that character's head labels, other tokens of its figure its body labels, the
    rest the scene's. Where figures overlap the nearer centre wins.
    """
    found = np.full((side * side, len(LABELS)), HIDDEN, dtype=np.int16)
    people = [character_targets(character)[1:] for character in scene.characters]
    around = scene_targets(scene)
    boxes = geometry(scene)
    names = list(LABELS)
    for token in range(side * side):
        x, y = (token % side + 0.5) / side, (token // side + 0.5) / side
        owner, on_head = _owner(boxes, x, y, 0.25 / side)
        if owner is None:
            found[token, len(a.CHARACTER_FIELDS) :] = around
            continue
        wanted = HEAD_LABELS if on_head else BODY_LABELS
        for column, value in enumerate(people[owner]):
            if names[column] in wanted:
                found[token, column] = value
    return found


def _owner(boxes: tuple[CharacterBoxes, ...], x: float, y: float, slack: float) -> tuple[int | None, bool]:
    best, distance, on_head = None, 1e9, False
    for index, box in enumerate(boxes):
        left, top, right, bottom = box.figure
        if not (left < x < right and top - slack < y < bottom + slack):
            continue
        away = abs(x - (left + right) / 2)
        if away < distance:
            best, distance = index, away
            on_head = y < box.head[3] + slack
    return best, on_head


class AlignmentHead(nn.Module):
    """One linear classifier over the states that a block of the transformer gives its image tokens.

    Args:
        dim: width of the states.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.outputs = nn.Linear(dim, sum(len(values) for values in LABELS.values()))
        self.states: Tensor | None = None

    def watch(self, block: nn.Module) -> torch.utils.hooks.RemovableHandle:
        """Keeps what `block` puts out at each forward until `forward` here has used it."""

        def keep(_module: nn.Module, _arguments: Any, output: Tensor) -> None:
            self.states = output

        return block.register_forward_hook(keep)

    def forward(self, labels: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy over the labels of the watched states, and which labels were right.

        Args:
            labels: (batch, tokens, len(LABELS)) int64.
            weight: (batch,), how much each picture counts.
        Returns:
            The loss, a mean over labels; hits (len(LABELS), 2): right and asked.
        """
        assert self.states is not None, "watch() a block and run it first"
        states, self.states = self.states[:, : labels.shape[1]], None
        scores = self.outputs(self.norm(states.float())).split([len(v) for v in LABELS.values()], dim=-1)
        losses, hits = [], []
        for column, score in enumerate(scores):
            truth = labels[..., column]
            asked = truth != HIDDEN
            each = F.cross_entropy(
                score.flatten(0, 1), truth.flatten(), ignore_index=HIDDEN, reduction="none"
            ).view_as(truth)
            losses.append((each * weight[:, None]).sum() / (asked * weight[:, None]).sum().clamp_min(1.0))
            with torch.no_grad():
                right = (score.argmax(-1) == truth) & asked
                hits.append(torch.stack([right.sum(), asked.sum()]))
        return torch.stack(losses).mean(), torch.stack(hits)
