"""Model options of commands that may draw a recorded picture again: the record says what was left out."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from newbie_image.cli import lora as adapters
from newbie_image.cli import options
from newbie_image.provenance import PictureRecord

if TYPE_CHECKING:
    from newbie_image.cli.loading import LoadedModel


@dataclass(frozen=True)
class AskedModel:
    """Model options as they were given; None where they were left out."""

    model: str | None = None
    device: str = "auto"
    dtype: str | None = None
    attention: str | None = None
    offload: str = "none"
    vae: str | None = None
    vram: str | None = None
    transformer: str | None = None
    text_encoder: str | None = None
    clip_model: str | None = None
    quantise: str | None = None
    quantise_encoders: str | None = None
    trims: str | None = None

    def fresh(self) -> options.ModelChoice:
        """What they mean for a prompt."""
        return options.ModelChoice(
            model=options.read_model(self.model, self.transformer),
            device=self.device,
            dtype=self.dtype or "auto",
            attention=self.attention or "auto",
            offload=options.read_offload(self.offload),
            vae=self.vae,
            vram=self.vram,
            transformer=self.transformer,
            text_encoder=self.text_encoder,
            clip_model=self.clip_model,
            quantise=self.quantise or "none",
            quantise_encoders=self.quantise_encoders or "none",
            trims=self.trims or "all",
        )

    def recorded(self, record: PictureRecord) -> options.ModelChoice:
        """What they mean for a picture.

        Raises:
            CheckpointError: it was drawn with parts from elsewhere of which no path is recorded.
        """
        used = record.environment
        vae = self.vae or _recorded_vae(record)
        self._check_parts(record)
        return options.ModelChoice(
            model=self.model or self.transformer or record.bundle.name,
            device=self.device,
            dtype=self.dtype or used.get("dtype", "auto"),
            attention=self.attention or used.get("attention", "auto"),
            offload=options.read_offload(self.offload),
            vae=vae,
            vram=self.vram,
            transformer=self.transformer,
            text_encoder=self.text_encoder,
            clip_model=self.clip_model,
            quantise=self.quantise or used.get("quantise", "none"),
            quantise_encoders=self.quantise_encoders or used.get("quantise_encoders", "none"),
            trims=self.trims or used.get("trims", "all"),
        )

    def _check_parts(self, record: PictureRecord) -> None:
        """Ask for the parts from elsewhere that drew the picture, of which only names are recorded."""
        from newbie_image.errors import CheckpointError

        for part in ("transformer", "text_encoder", "clip_model"):
            recorded = record.environment.get(part)
            if recorded is not None and getattr(self, part) is None:
                raise CheckpointError(
                    f"the picture was drawn with the {part} {recorded.partition(' ')[0]!r}, of which no path "
                    f"is recorded; say where it is with --{part.replace('_', '-')} PATH"
                )


def load_recorded(
    asked: AskedModel, record: PictureRecord, picture: Path, loras: list[str] | None
) -> LoadedModel:
    """The model that drew a picture, with its adapters, computing with as many threads as it did.

    Args:
        asked: the options.
        record: of the picture.
        picture: its path; adapters are also looked for beside it.
        loras: where recorded adapters lie now.
    """
    from newbie_image.cli.loading import load_model

    found = adapters.find_recorded(record.adapters, loras or (), (Path(), picture.parent))
    loaded = load_model(asked.recorded(record), found)
    if any(use.fused for use in record.adapters):
        loaded.pipeline.fuse_lora()
    _take_threads(record)
    return loaded


def _recorded_vae(record: PictureRecord) -> str | None:
    """The VAE from elsewhere that drew the picture, by its name; None for the model's own."""
    from newbie_image.checkpoints.vae_registry import find_vae
    from newbie_image.errors import CheckpointError

    name = record.environment.get("vae")
    if name is not None:
        try:
            find_vae(name)
        except CheckpointError as error:
            raise CheckpointError(
                f"the picture was drawn with the VAE {name!r}, of which no path is recorded; say where it is "
                f"with --vae PATH ({error})"
            ) from None
    return name


def _take_threads(record: PictureRecord) -> None:
    """Compute with the recorded number of threads: sums are split by it, so their last bits depend on it."""
    import torch

    recorded = record.environment.get("threads", "")
    if recorded.isdecimal() and 1 <= int(recorded) <= 8 * (os.cpu_count() or 1):
        torch.set_num_threads(int(recorded))
