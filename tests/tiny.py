"""A whole bundle of random weights, in the real classes at sizes that a test can run in milliseconds.

The prompts of the tests are read by tokenizers trained here on a few lines of the language, with byte
fallback, so that any text is accepted. Nothing in it has learnt anything: pictures are noise, but every path
is the real one.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast
from transformers.models.gemma3.configuration_gemma3 import Gemma3TextConfig

from newbie_image.bundle import BundleSettings, Defaults, Preset, TextSettings, write_settings
from newbie_image.models.gemma_text import GemmaTextModel
from newbie_image.models.jina_text import JinaTextModel
from newbie_image.models.next_dit import NextDiT

XML_PROMPT = """<character_1>
<n>momo</n>
<gender>1girl</gender>
<appearance>pink_hair, twintails, blue_eyes</appearance>
<position>center_left</position>
</character_1>
<character_2>
<gender>1boy</gender>
<appearance>black_hair, glasses</appearance>
</character_2>
<general_tags>
<count>1girl, 1boy</count>
<background>night sky</background>
</general_tags>"""
TAGS_PROMPT = "1girl, pink_hair, twintails, blue_eyes, night sky"
SENTENCE_PROMPT = "A girl with pink hair stands under the night sky."
CORPUS = [XML_PROMPT, TAGS_PROMPT, SENTENCE_PROMPT, "You read xml. ", "You read tags. "]

SETTINGS = BundleSettings(
    name="tiny",
    licence="Random weights, for tests.",
    text=TextSettings(
        system_prompt_xml="You read xml. ",
        system_prompt_tags="You read tags. ",
        max_tokens=512,
        max_pooled_tokens=512,
    ),
    defaults=Defaults(
        width=64,
        height=48,
        steps=3,
        guidance_scale=2.0,
        sampler="euler",
        shift=2.0,
    ),
    presets={"quick": Preset(steps=2, sampler="midpoint")},
)


def gemma_tokenizer() -> PreTrainedTokenizerFast:
    """Pieces with byte fallback; BOS before, nothing after, padding on the right."""
    tokenizer = _train(["<pad>", "<eos>", "<bos>", "<unk>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", tokenizer.token_to_id("<bos>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        padding_side="right",
    )


def jina_tokenizer() -> PreTrainedTokenizerFast:
    """As XLM-RoBERTa's: `<s>` before, `</s>` after, pad has id 1."""
    tokenizer = _train(["<s>", "<pad>", "</s>", "<unk>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        padding_side="right",
    )


def text_encoder(vocabulary: int, *, layers: int = 3, width: int = 32) -> GemmaTextModel:
    """A small Gemma 3 with windowed and full attention."""
    config = Gemma3TextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=width // 4,
        query_pre_attn_scalar=width // 4,
        sliding_window=64,
        max_position_embeddings=1024,
        layer_types=["sliding_attention", *["full_attention"] * (layers - 1)],
    )
    config._attn_implementation = "sdpa"
    return GemmaTextModel(config).eval()


def clip_model(vocabulary: int, *, width: int = 16) -> JinaTextModel:
    """A small Jina tower of two layers."""
    return JinaTextModel(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        initializer_range=0.2,
    ).eval()


def transformer(*, text_width: int = 32, pooled_width: int = 16, channels: int = 16) -> NextDiT:
    """A small Next-DiT whose fresh weights are made large enough to move the latents."""
    model = NextDiT(
        patch_size=2,
        in_channels=channels,
        dim=64,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=4,
        n_kv_heads=2,
        multiple_of=32,
        cap_feat_dim=text_width,
        axes_dims=[8, 4, 4],
        axes_lens=[1024, 64, 64],
        clip_text_dim=pooled_width,
    )
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    return model.eval()


def vae(*, channels: int = 16) -> AutoencoderKL:
    """An AutoencoderKL at an eighth of the resolution, with FLUX's scale and shift."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        latent_channels=channels,
        norm_num_groups=4,
        sample_size=64,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
    ).eval()


def write_bundle(
    folder: Path, *, seed: int = 0, settings: BundleSettings = SETTINGS, dtype: torch.dtype = torch.float32
) -> Path:
    """Write the whole bundle as its own classes write themselves, and give back the folder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer, clip_tokenizer = gemma_tokenizer(), jina_tokenizer()
        parts = {
            "transformer": transformer().to(dtype),
            "text_encoder": text_encoder(len(tokenizer)).to(dtype),
            "clip_model": clip_model(len(clip_tokenizer)).to(dtype),
            "vae": vae().to(dtype),
            "scheduler": FlowMatchEulerDiscreteScheduler(shift=settings.defaults.shift),
            "tokenizer": tokenizer,
            "clip_tokenizer": clip_tokenizer,
        }
    for name, part in parts.items():
        part.save_pretrained(str(folder / name))
    index = {
        "_class_name": ["newbie_image", "NewbiePipeline"],
        "transformer": ["newbie_image", "NextDiT"],
        "text_encoder": ["newbie_image", "GemmaTextModel"],
        "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
        "clip_model": ["newbie_image", "JinaTextModel"],
        "clip_tokenizer": ["transformers", "PreTrainedTokenizerFast"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    write_settings(folder, settings)
    return folder


def _train(specials: list[str]) -> Tokenizer:
    bytes_ = [f"<0x{value:02X}>" for value in range(256)]
    tokenizer = Tokenizer(models.BPE(unk_token=specials[3], byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=len(specials) + 256 + 120, special_tokens=[*specials, *bytes_], show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer
