"""Settings of the published model, for checkpoints whose layout has no place for ``newbie.json``.

Sources: upstream's ``finetune.py`` (system prompts, token limits), ``demo.py`` (preset ``upstream``),
ComfyUI's template (``comfyui``) and diffusers pull request 12803 (``diffusers``).
"""

from __future__ import annotations

from newbie_image.bundle import BundleSettings, Defaults, Preset, TextSettings

_ROLE = "You are an assistant designed to generate high-quality"
_XML = f"{_ROLE} anime images based on xml format prompts. <Prompt Start> "
_TAGS = (
    f"{_ROLE} anime images with the highest degree of image-text alignment based on textual prompts. "
    "<Prompt Start> "
)
_DEMO = f"{_ROLE} images based on user prompts."

LICENCE = (
    "NewBie-image's weights are for non-commercial use only; Gemma's terms of use, Jina CLIP's "
    "CC BY-NC 4.0 and the non-commercial licence of FLUX.1-dev's VAE apply besides."
)


def published_settings() -> BundleSettings:
    """What NewBie-image-Exp0.1 was trained with, and three presets."""
    return BundleSettings(
        name="NewBie-image-Exp0.1",
        licence=LICENCE,
        text=TextSettings(
            system_prompt_xml=_XML,
            system_prompt_tags=_TAGS,
            max_tokens=1023,
            trained_tokens=512,
            max_pooled_tokens=2048,
        ),
        defaults=Defaults(steps=28, guidance_scale=5.0, sampler="midpoint", shift=6.0),
        presets={
            "upstream": Preset(
                steps=17,
                guidance_scale=5.0,
                cfg_truncation=0.25,
                cfg_renorm=0.0,
                sampler="midpoint",
                shift=6.0,
                system_prompt_xml=_DEMO,
                system_prompt_tags=_DEMO,
                max_tokens=512,
            ),
            "comfyui": Preset(
                width=1024,
                height=1536,
                steps=20,
                guidance_scale=5.5,
                sampler="res_multistep",
                shift=6.0,
                grid="simple",
                negative_system_prompt="always",
            ),
            "diffusers": Preset(
                width=1024,
                height=1024,
                steps=30,
                guidance_scale=4.0,
                cfg_renorm=1.0,
                sampler="euler",
                shift=6.0,
                max_tokens=512,
            ),
        },
    )
