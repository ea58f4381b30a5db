"""Writes the trained parts as a bundle in the standard layout: bf16 shards under 16 MiB, settings,
tokenizers, checksums, card."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_dc import AutoencoderDC
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

from newbie_image.binding_modes import Mode
from newbie_image.bundle import COMPONENTS, BundleSettings, Defaults, TextSettings, VaeSettings
from newbie_image.checkpoints.checksums import sums_of, write_sums
from newbie_image.nano.latents import LatentStatistics
from newbie_image.nano.parts import Parts
from newbie_image.nano.tokenizer import TAG_SYSTEM_PROMPT, XML_SYSTEM_PROMPT, build_tokenizer
from newbie_image.pipeline import NewbiePipeline

SHARD_SIZE = "14MB"
LONGEST_TEXT = 112
"""Gemma tokens of the longest captions of up to three people."""
LICENCE = "Apache-2.0: these weights were trained by this project on pictures that it draws itself."


def bundle_settings(
    statistics: LatentStatistics,
    size: int,
    *,
    steps: int,
    guidance: float,
    shift: float,
    trained_tokens: int,
    trained_characters: int,
    auto_binding: Mode,
    trained_bindings: tuple[Mode, ...],
) -> BundleSettings:
    """`newbie.json` of the embedded model."""
    return BundleSettings(
        name="nano",
        licence=LICENCE,
        text=TextSettings(
            system_prompt_xml=XML_SYSTEM_PROMPT,
            system_prompt_tags=TAG_SYSTEM_PROMPT,
            max_tokens=512,
            trained_tokens=trained_tokens,
            trained_characters=trained_characters,
            max_pooled_tokens=512,
            auto_binding=auto_binding,
            trained_bindings=trained_bindings,
        ),
        vae=VaeSettings(latents_mean=statistics.mean, latents_std=statistics.std),
        defaults=Defaults(
            width=size,
            height=size,
            steps=steps,
            guidance_scale=guidance,
            cfg_truncation=1.0,
            cfg_renorm=0.0,
            sampler="euler",
            shift=shift,
        ),
    )


def assemble(
    parts: Parts,
    vae: AutoencoderDC,
    settings: BundleSettings,
) -> NewbiePipeline:
    """A pipeline around trained parts; the parts are used as they are, not copied."""
    pipeline = NewbiePipeline(
        transformer=parts.transformer,
        text_encoder=parts.text_encoder,
        tokenizer=build_tokenizer("gemma"),
        clip_model=parts.clip_model,
        clip_tokenizer=build_tokenizer("jina"),
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=settings.defaults.shift),
    )
    pipeline.settings = settings
    pipeline.vae_settings = pipeline.settings.vae
    return pipeline


def write_bundle(pipeline: NewbiePipeline, folder: Path) -> None:
    """Writes `folder` anew, in bf16; what stood there goes only when the new one is complete."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    pipeline.to(dtype=torch.bfloat16)
    pipeline.save_pretrained(partial, max_shard_size=SHARD_SIZE)
    for config in partial.glob("*/config.json"):  # where a part was loaded from is nobody's business
        entries = json.loads(config.read_text())
        if entries.pop("_name_or_path", None) is not None:
            config.write_text(json.dumps(entries, indent=2) + "\n")
    own = (file for part in COMPONENTS for file in (partial / part).iterdir())
    write_sums(partial, sums_of(partial, own))
    for name in ("README.md", "evaluation.json", "recipe.json"):
        if (folder / name).exists():
            shutil.copy(folder / name, partial / name)
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)
