"""What training tells of regions is what generation tells."""

from __future__ import annotations

import pytest
import torch

from newbie_image.binding.bias import binding_factors, soft_masks
from newbie_image.binding.regions import regions_of
from newbie_image.binding_modes import MODES, BindingParts
from newbie_image.models.prepared_text import IMAGE, group_bias
from newbie_image.nano.captions import sentence_caption, xml_caption
from newbie_image.nano.parts import Parts, TransformerRecipe
from newbie_image.nano.regional import caption_boxes, region_rules, stacked
from newbie_image.nano.world.scene import sample_scene
from newbie_image.prompt import parse

SIDE = 8
TINY = TransformerRecipe(
    dim=32, n_layers=2, n_heads=2, n_kv_heads=2, text_dim=64, text_layers=2, pooled_dim=32, pooled_layers=1
)


@pytest.mark.parametrize("people", range(1, 7))
def test_scores_are_the_engines(people: int) -> None:
    caption = xml_caption(sample_scene(7, people))
    regions, _ = regions_of(parse(caption))
    assert len(regions) == people
    groups = [-1, *range(1, people + 1), 0]
    parts = BindingParts(encode=True, text=True, region=True)
    masks = soft_masks([region.box for region in regions], SIDE, SIDE)
    dense = binding_factors(groups, [1.0] * len(groups), masks, SIDE**2, parts).dense()
    scores = rules(stacked([caption_boxes(caption)]))[0][0]
    told = dense[: SIDE**2, SIDE**2 :].T
    torch.testing.assert_close(scores[: people + 1], told[[-1, *range(1, people + 1)]])
    assert (scores[people + 1 :] == 0).all()


def test_no_region_without_a_place() -> None:
    scene = sample_scene(7, 2)
    assert caption_boxes(xml_caption(scene, positions=False)) == ()
    assert caption_boxes(sentence_caption(scene)) == ()
    assert caption_boxes("") == ()
    for full in (False, True):
        scores, owners = rules(stacked([()]), full)
        assert (scores == 0).all()
        assert (owners == -1).all()


@pytest.mark.parametrize("people", [1, 2, 4, 6])
def test_full_adds_to_every_pair_of_tokens_what_the_engine_adds(people: int) -> None:
    caption = xml_caption(sample_scene(7, people))
    regions, _ = regions_of(parse(caption))
    groups = torch.tensor([[-1, *range(1, people + 1), 0]])
    masks = soft_masks([region.box for region in regions], SIDE, SIDE)
    told = binding_factors(groups[0].tolist(), [1.0] * (people + 2), masks, SIDE**2, MODES["full"]).dense()
    bias = first_bias(groups, rules(stacked([caption_boxes(caption)]), full=True))
    region = first_bias(groups, rules(stacked([caption_boxes(caption)]), full=False))
    torch.testing.assert_close(bias.clamp_min(-500), told.clamp_min(-500))
    assert not torch.equal(bias.clamp_min(-500), region.clamp_min(-500))


def rules(boxes: torch.Tensor, full: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    return region_rules(boxes, torch.full((len(boxes),), full), SIDE)


def first_bias(groups: torch.Tensor, told: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """What the first joint block of a tiny transformer adds to the scores of image and caption."""
    transformer = Parts(TINY).transformer
    seen = []
    transformer.layers[0].register_forward_pre_hook(lambda module, given: seen.append(given))
    length = groups.shape[1]
    with torch.no_grad():
        transformer(
            torch.randn(1, 16, 2 * SIDE, 2 * SIDE), torch.tensor([0.3]), torch.randn(1, length, 64),
            torch.ones(1, length), torch.randn(1, 32), groups, *told,
        )  # fmt: skip
    return next(each for each in seen[0] if hasattr(each, "bias")).bias[0, 0]


def test_the_transformer_adds_them_to_what_the_picture_reads() -> None:
    torch.manual_seed(0)
    parts = Parts(TINY)
    for parameter in parts.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.1)
    seen = []
    block = parts.transformer.layers[0]
    block.register_forward_pre_hook(lambda module, given: seen.append(given))
    groups = torch.tensor([[-1, 1, 2, 0]])
    mask = torch.ones(1, 4, dtype=torch.long)
    ids, pooled = torch.tensor([[2, 5, 6, 7]]), torch.tensor([[0, 5, 2]])
    boxes = stacked([((0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0))])
    latents = torch.randn(1, 16, 2 * SIDE, 2 * SIDE)
    with torch.no_grad():
        text = (ids, mask, groups, pooled, torch.ones(1, 3))
        told = parts(latents, torch.tensor([0.3]), *text, boxes, torch.tensor([False]))
        plain = parts(latents, torch.tensor([0.3]), *text, 0 * boxes, torch.tensor([True]))
    assert not torch.equal(told, plain)
    bias, without = (next(x for x in given if hasattr(x, "bias")).bias for given in seen)
    sequence = torch.cat([torch.full((1, SIDE**2), IMAGE), groups], 1)
    torch.testing.assert_close(without, group_bias(torch.ones_like(sequence) > 0, sequence))
    added = (bias - without).nan_to_num()[0, 0]
    scores = rules(boxes)[0][0]
    torch.testing.assert_close(added[: SIDE**2, SIDE**2 :], scores[[0, 1, 2, 0]].T)
    assert (added[SIDE**2 :] == 0).all()
    assert (added[:, : SIDE**2] == 0).all()
