"""Latents to pictures."""

from __future__ import annotations

import pytest
import torch

from newbie_image.bundle import VaeSettings
from newbie_image.decoding import decode_latents, to_images
from newbie_image.errors import CheckpointError, NumericsError
from newbie_image.latents import normalise
from tests.tiny import vae

OPEN = VaeSettings()


@torch.no_grad()
def test_decoding_undoes_the_normalisation() -> None:
    torch.manual_seed(0)
    autoencoder = vae()
    latents = torch.randn(2, 16, 2, 4)
    pixels = decode_latents(normalise(latents, autoencoder, OPEN), autoencoder, OPEN)
    raw = torch.cat([autoencoder.decode(latents[i : i + 1]).sample for i in range(2)])
    torch.testing.assert_close(pixels, (raw / 2 + 0.5).clamp(0, 1), rtol=1e-4, atol=1e-5)
    assert pixels.shape == (2, 3, 16, 32)


@torch.no_grad()
def test_a_picture_does_not_depend_on_its_neighbours() -> None:
    autoencoder = vae()
    latents = torch.randn(2, 16, 2, 2)
    both = decode_latents(latents, autoencoder, OPEN)
    assert torch.equal(decode_latents(latents[1:], autoencoder, OPEN)[0], both[1])


@torch.no_grad()
def test_tiles_on_request_only() -> None:
    autoencoder = vae()
    latents = torch.randn(1, 16, 10, 8)
    whole = decode_latents(latents, autoencoder, OPEN)
    tiled = decode_latents(latents, autoencoder, OPEN, tiled=True)
    assert not autoencoder.use_tiling
    assert tiled.shape == whole.shape
    assert not torch.equal(tiled, whole)
    autoencoder.enable_tiling()
    assert torch.equal(decode_latents(latents, autoencoder, OPEN), whole)
    assert autoencoder.use_tiling  # as its owner had set it


@torch.no_grad()
def test_float32_latents_enter_a_bfloat16_autoencoder() -> None:
    pixels = decode_latents(torch.randn(1, 16, 4, 4), vae().to(torch.bfloat16), OPEN)
    assert pixels.dtype == torch.float32
    assert torch.isfinite(pixels).all()


@torch.no_grad()
def test_a_decoder_that_overflows_is_caught() -> None:
    autoencoder = vae()
    autoencoder.decoder.conv_out.bias.fill_(float("inf"))
    with pytest.raises(NumericsError, match="fp32"):
        decode_latents(torch.randn(1, 16, 4, 4), autoencoder, OPEN)


def test_bytes_are_rounded_to_the_nearest() -> None:
    pixels = torch.tensor([0.0, 0.499 / 255, 0.51 / 255, 1.0]).view(1, 1, 2, 2).expand(1, 3, 2, 2)
    image = to_images(pixels)[0]
    assert image.mode == "RGB"
    assert [image.getpixel((x, y))[0] for y in range(2) for x in range(2)] == [0, 0, 1, 255]


def test_an_autoencoder_without_tiles_says_so() -> None:
    class Plain(torch.nn.Module):
        pass

    with pytest.raises(CheckpointError, match="Plain cannot decode in tiles"):
        decode_latents(torch.zeros(1, 16, 2, 2), Plain(), OPEN, tiled=True)
