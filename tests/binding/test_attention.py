"""What each part cuts: gradients are exactly zero on the paths that it cuts and not zero elsewhere."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from newbie_image.binding.bias import binding_factors, owners, soft_masks
from newbie_image.binding.binding import Binding, phases
from newbie_image.binding.groups import GroupedText, TagSpan
from newbie_image.binding.regions import Region
from newbie_image.binding_modes import MODES, BindingParts, read_binding
from newbie_image.models.gemma_text import PREFIX
from newbie_image.models.next_dit import NextDiT

GROUPS = (PREFIX, 1, 1, 2, 2, 0)
HALVES = (Region(1, (0.0, 0.0, 0.5, 1.0)), Region(2, (0.5, 0.0, 1.0, 1.0)))
NARROW = (Region(1, (0.0, 0.0, 0.25, 1.0)), Region(2, (0.75, 0.0, 1.0, 1.0)))


def model(layers: int = 1, refiners: int = 0) -> NextDiT:
    torch.manual_seed(0)
    made = NextDiT(
        dim=32, n_layers=layers, n_refiner_layers=refiners, n_heads=2, n_kv_heads=1, multiple_of=16,
        cap_feat_dim=16, axes_dims=[8, 4, 4], axes_lens=[64, 16, 16], clip_text_dim=8,
    )  # fmt: skip
    for parameter in made.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    return made.eval()


def text(*weights: float) -> GroupedText:
    spans = tuple(TagSpan("tag", "", 1, 1, 2, weight) for weight in weights)
    return GroupedText(tuple(range(len(GROUPS))), GROUPS, spans, "", 2)


def gradients(
    made: NextDiT, parts: BindingParts, regions: tuple[Region, ...] = HALVES, form: str = "mask"
) -> tuple[Tensor, Tensor, Tensor]:
    """Velocity (1, 16, 8, 8) with graph, and what it came from: text tokens and latents."""
    torch.manual_seed(1)
    tokens = torch.randn(1, len(GROUPS), 16, requires_grad=True)
    latents = torch.randn(1, 16, 8, 8, requires_grad=True)
    groups = torch.tensor([GROUPS]) if parts.text else None
    prepared = made.prepare_text(tokens, torch.ones(1, len(GROUPS)), torch.randn(1, 8), (8, 8), groups)
    told = Binding(parts, text(), regions).tell(
        prepared,
        1,
        len(made.layers),
        regional=True,
        form=form,  # pyright: ignore[reportArgumentType]
    )
    return made.velocity(latents, torch.tensor([0.3]), told), tokens, latents


def flow(output: Tensor, source: Tensor) -> Tensor:
    """How much of `source` reaches `output`, as the gradient of a random projection, absolute."""
    torch.manual_seed(2)
    (found,) = torch.autograd.grad(
        (output * torch.randn_like(output)).sum(), source, retain_graph=True, allow_unused=True
    )
    return torch.zeros_like(source) if found is None else found.abs()


def right(velocity: Tensor) -> Tensor:
    return velocity[..., 4:]


def test_plain_everything_reaches_everything() -> None:
    velocity, tokens, latents = gradients(model(), MODES["off"])
    assert flow(right(velocity), tokens).sum(-1).min() > 0
    assert flow(right(velocity), latents)[..., :4].max() > 0


def test_region_without_end_cuts_the_other_characters_text() -> None:
    parts = read_binding("off,region=on,beta_minus=inf")
    assert parts is not None
    velocity, tokens, latents = gradients(model(), parts)
    reached = flow(right(velocity), tokens)[0].sum(-1)
    assert reached[1:3].max() == 0
    assert reached[3:].min() > 0
    assert reached[0] > 0
    assert flow(right(velocity), latents)[..., :4].max() > 0  # pictures still read each other


def test_apart_cuts_the_other_characters_picture() -> None:
    parts = read_binding("off,apart=on")
    assert parts is not None
    velocity, tokens, latents = gradients(model(), parts)
    assert flow(right(velocity), latents)[..., :4].max() == 0
    assert flow(right(velocity), latents)[..., 4:].max() > 0
    assert flow(right(velocity), tokens)[0, 1:3].max() > 0  # its text is still read


def test_background_reads_no_characters_text() -> None:
    parts = read_binding("off,background=on")
    assert parts is not None
    velocity, tokens, _ = gradients(model(), parts, NARROW)
    middle = velocity[..., 2:6]
    reached = flow(middle, tokens)[0].sum(-1)
    assert reached[1:5].max() == 0
    assert reached[5] > 0
    assert reached[0] > 0
    assert flow(velocity[..., :2], tokens)[0, 1:5].max() > 0


def test_text_keeps_texts_apart() -> None:
    made = model(refiners=1)
    torch.manual_seed(1)
    tokens = torch.randn(1, len(GROUPS), 16, requires_grad=True)
    arguments = (tokens, torch.ones(1, len(GROUPS)), torch.randn(1, 8), (8, 8))
    apart = made.prepare_text(*arguments, torch.tensor([GROUPS])).text
    assert flow(apart[:, 3:5], tokens)[0, 1:3].max() == 0
    assert flow(apart[:, 5], tokens)[0, 1:5].max() == 0  # the general text reads no character
    assert flow(apart[:, 3:5], tokens)[0, 5].max() > 0
    assert flow(made.prepare_text(*arguments).text[:, 3:5], tokens)[0, 1:3].max() > 0


def test_blind_text_carries_no_picture() -> None:
    # Pictures apart and other texts cut: what is left is picture → general text → other picture.
    seeing = read_binding("off,text=on,region=on,beta_minus=inf,apart=on")
    blind = read_binding("off,text=on,region=on,beta_minus=inf,apart=on,blind=on")
    assert seeing is not None
    assert blind is not None
    made = model(layers=2)
    velocity, _, latents = gradients(made, seeing)
    assert flow(right(velocity), latents)[..., :4].max() > 0
    velocity, _, latents = gradients(made, blind)
    assert flow(right(velocity), latents)[..., :4].max() == 0


@pytest.mark.parametrize("form", ["mask", "appended"])
@pytest.mark.parametrize("regions", [HALVES, NARROW])
def test_sealed_lets_nothing_through(form: str, regions: tuple[Region, ...]) -> None:
    velocity, tokens, latents = gradients(model(layers=3, refiners=2), MODES["sealed"], regions, form)
    mine = velocity[..., 4:] if regions is HALVES else velocity[..., 6:]
    others = slice(0, 4) if regions is HALVES else slice(0, 6)
    assert flow(mine, tokens)[0, 1:3].max() == 0
    assert flow(mine, latents)[..., others].max() == 0
    assert flow(mine, tokens)[0, 3:].sum(-1).min() > 0
    # With the plain mask the same network leaks.
    velocity, tokens, _ = gradients(model(layers=3, refiners=2), MODES["off"], regions, form)
    assert flow(velocity[..., 6:], tokens)[0, 1:3].max() > 0


@pytest.mark.parametrize("mode", ["text", "region", "full", "sealed"])
@pytest.mark.parametrize("backend", ["sdpa", "math"])
def test_appended_equals_written_out(mode: str, backend: str) -> None:
    made = model(layers=2, refiners=1)
    made.attention_backend = backend
    written, _, _ = gradients(made, MODES[mode], NARROW)
    appended, _, _ = gradients(made, MODES[mode], NARROW, "appended")
    plain, _, _ = gradients(made, MODES["off"], NARROW)
    torch.testing.assert_close(appended, written, atol=1e-4, rtol=1e-4)
    assert (written - plain).abs().max() > 1e-3


def test_weights_move_only_what_the_picture_reads() -> None:
    masks = torch.zeros(0, 16)
    parts = replace(MODES["off"], weights=True)
    factors = binding_factors(GROUPS, (1, 2, 2, 1, 1, 1), masks, 16, parts).dense()
    assert factors[:16, 17:19].min() == pytest.approx(0.6931, abs=1e-3)
    assert factors[16:].abs().max() == 0
    assert factors[:16, :17].abs().max() == 0
    for weight, acts in ((0.05, 0.1), (5.0, 3.0)):
        found = binding_factors(GROUPS, (1, weight, 1, 1, 1, 1), masks, 16, parts).dense()[0, 17].exp()
        assert found.item() == pytest.approx(acts, rel=1e-4)


def test_the_negative_prompt_gets_no_rules() -> None:
    made = model(layers=2, refiners=1)
    torch.manual_seed(3)
    tokens, pooled = torch.randn(2, len(GROUPS), 16), torch.randn(2, 8)
    mask = torch.ones(2, len(GROUPS))
    mask[1, 4:] = 0
    latents = torch.randn(2, 16, 8, 8)
    with torch.no_grad():
        prepared = made.prepare_text(tokens, mask, pooled, (8, 8))
        plain = made.velocity(latents, torch.tensor([0.3, 0.3]), prepared)
        told = Binding(MODES["full"], text(), HALVES).tell(prepared, 1, 2, regional=True)
        bound = made.velocity(latents, torch.tensor([0.3, 0.3]), told)
    torch.testing.assert_close(bound[1], plain[1], atol=1e-5, rtol=1e-5)
    assert (bound[0] - plain[0]).abs().max() > 1e-3


@pytest.mark.parametrize("form", ["mask", "appended"])
@pytest.mark.parametrize("separate", [False, True])
def test_sealed_holds_for_the_negative_prompt_too(form: str, separate: bool) -> None:
    made = model(layers=3, refiners=2)
    torch.manual_seed(3)
    tokens, pooled = torch.randn(2, len(GROUPS), 16), torch.randn(2, 8)
    latents = torch.randn(2, 16, 8, 8, requires_grad=True)
    prepared = made.prepare_text(
        tokens, torch.ones(2, len(GROUPS)), pooled, (8, 8), torch.tensor([GROUPS] * 2)
    )
    pictures, row = (0, 0) if separate else (1, 1)
    if separate:  # guidance in two passes: the negative rows come alone
        prepared, given = prepared.rows(1, 2), latents[1:]
    else:
        given = latents
    binding = Binding(MODES["sealed"], text(), HALVES)
    told = binding.tell(prepared, pictures, 3, regional=True, form=form)  # pyright: ignore[reportArgumentType]
    velocity = made.velocity(given, torch.full((len(given),), 0.3), told)[row]
    reached = flow(velocity[..., 4:], latents)[1]
    assert reached[..., :4].max() == 0
    assert reached[..., 4:].max() > 0


def test_a_characters_text_reaches_nobodys_picture_by_way_of_another_text() -> None:
    barred = read_binding("off,region=on,beta_minus=inf")
    assert barred is not None
    # A's picture is kept out of it (blind), so that what B's picture has of A's text came through B's text.
    through = replace(barred, blind=True, apart=True)
    velocity, tokens, _ = gradients(model(layers=2), through)
    assert flow(right(velocity), tokens)[0, 1:3].max() > 0
    velocity, tokens, _ = gradients(model(layers=2), replace(through, text=True))
    assert flow(right(velocity), tokens)[0, 1:3].max() == 0
    assert flow(right(velocity), tokens)[0, 3:5].sum(-1).min() > 0


def test_windows_and_layers() -> None:
    made = model(layers=3)
    torch.manual_seed(1)
    tokens = torch.randn(1, len(GROUPS), 16)
    prepared = made.prepare_text(tokens, torch.ones(1, len(GROUPS)), torch.randn(1, 8), (8, 8))
    parts = read_binding("off,region=on,window=0.25-0.5,layers=middle")
    assert parts is not None
    grid = [0.0, 0.1, 0.3, 0.6, 1.0]
    found = phases(Binding(parts, text(), HALVES), prepared, 1, 3, grid)
    assert [since for since, _ in found] == [0.0, 0.1, 0.3]
    resting, acting, after = (each for _, each in found)
    assert resting.inner is None
    assert after.inner is None
    assert acting.inner == (1, 2)
    told = acting.padding_at(1)
    assert told is not None
    assert told.bias is not None
    assert told.bias.abs().max() > 0
    calm = acting.padding_at(0)
    assert calm is not None
    assert calm.bias is not None
    assert calm.bias.abs().max() == 0


def test_masks_are_soft_inside_the_picture_and_hard_at_its_edge() -> None:
    masks = soft_masks([(0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)], 8, 32)
    first = masks[0].view(8, 32)
    assert first[:, 0].min() == 1
    assert first[:, -1].max() == 0
    assert 0 < first[0, 15] < 1
    assert torch.allclose(masks.sum(0), torch.ones(256))
    assert owners(masks).view(8, 32)[0, [0, 31]].tolist() == [1, 2]
