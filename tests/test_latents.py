"""Shapes, scales and noise of latents."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_dc import AutoencoderDC

from newbie_image.bundle import VaeSettings
from newbie_image.errors import CheckpointError, RequestError
from newbie_image.latents import (
    check_noise,
    denormalise,
    drawn_noise,
    latent_scale,
    latent_shape,
    normalise,
    seeded_noise,
)
from tests.tiny import vae

OPEN = VaeSettings()


def deep_compression() -> AutoencoderDC:
    """Small, with a scaling factor and no shift, as the embedded model's."""
    return AutoencoderDC(
        latent_channels=16,
        encoder_block_types="ResBlock",
        decoder_block_types="ResBlock",
        encoder_block_out_channels=(4, 4, 8, 8),
        decoder_block_out_channels=(4, 4, 8, 8),
        encoder_layers_per_block=(0, 1, 1, 1),
        decoder_layers_per_block=(0, 1, 1, 1),
        encoder_qkv_multiscales=((),) * 4,
        decoder_qkv_multiscales=((),) * 4,
        scaling_factor=0.5,
    ).eval()


def test_flux_scale_and_shift_come_from_the_autoencoder() -> None:
    latents = torch.randn(1, 16, 2, 2)
    torch.testing.assert_close(normalise(latents, vae(), OPEN), (latents - 0.1159) * 0.3611)


def test_an_absent_shift_is_nothing() -> None:
    latents = torch.randn(1, 16, 2, 2)
    torch.testing.assert_close(normalise(latents, deep_compression(), OPEN), latents * 0.5)


def test_the_bundle_may_say_otherwise_and_a_channel_at_a_time() -> None:
    settings = VaeSettings(
        scaling_factor=2.0,
        shift_factor=1.0,
        latents_mean=tuple(float(i) for i in range(16)),
        latents_std=tuple(1.0 + i for i in range(16)),
    )
    latents = torch.randn(2, 16, 2, 2)
    made = normalise(latents, vae(), settings)
    torch.testing.assert_close(made[:, 3], ((latents[:, 3] - 3) / 4 - 1) * 2)
    torch.testing.assert_close(denormalise(made, vae(), settings), latents, rtol=1e-4, atol=1e-4)


def test_a_wrong_number_of_statistics_is_refused() -> None:
    settings = VaeSettings(latents_mean=(0.0,), latents_std=(1.0,))
    with pytest.raises(CheckpointError, match="1 and 1 values for latents of 16"):
        normalise(torch.zeros(1, 16, 2, 2), vae(), settings)


def test_an_eighth_of_the_resolution_in_both_classes() -> None:
    for autoencoder in (vae(), deep_compression()):
        assert latent_scale(autoencoder) == 8
        assert latent_shape(autoencoder, 64, 48) == (16, 6, 8)
        assert all(isinstance(side, int) for side in latent_shape(autoencoder, 64, 48))


def test_picture_i_has_the_noise_of_seed_plus_i() -> None:
    noise = seeded_noise(7, 3, (16, 2, 2))
    assert torch.equal(noise[2], seeded_noise(9, 1, (16, 2, 2))[0])
    assert not torch.equal(noise[0], noise[1])
    assert noise.dtype == torch.float32
    seeded_noise(2**63 - 1, 1, (16, 2, 2))


def test_noise_by_the_callers_generators() -> None:
    shape = (16, 2, 2)
    one = drawn_noise(torch.Generator().manual_seed(3), 0, 2, shape)
    assert torch.equal(one, torch.randn(2, *shape, generator=torch.Generator().manual_seed(3)))
    many = [torch.Generator().manual_seed(seed) for seed in (1, 2, 3)]
    assert torch.equal(drawn_noise(many, 1, 2, shape), seeded_noise(2, 2, shape))
    with pytest.raises(RequestError, match="3 generators"):
        drawn_noise(many, 2, 2, shape)


def test_noise_of_another_shape_is_refused() -> None:
    with pytest.raises(RequestError, match=r"\(1, 4, 2, 2\).*\(1, 16, 2, 2\)"):
        check_noise(torch.zeros(1, 4, 2, 2), (1, 16, 2, 2))
