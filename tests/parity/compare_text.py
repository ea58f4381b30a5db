"""Gemma beside the whole of transformers' Gemma 3, and our tokenising beside the reference classes.

    PYTHONPATH=src python tests/parity/compare_text.py       Gemma 3 4B's widths, 8 layers; 8 GB of memory

`Gemma3Model` is the class that upstream loads, vision tower and all; its random weights are written by its
own `save_pretrained` and read by our loader. Asked for `hidden_states[-2]`, it runs every layer; ours runs
neither the last one nor the vision tower, which hooks count. Tokens are those of `GemmaTokenizer` and
`XLMRobertaTokenizer` in upstream's one call, with small vocabularies (the published ones are not at hand).
"""

from __future__ import annotations

import functools
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import Gemma3Config, Gemma3Model, GemmaTokenizer, XLMRobertaTokenizer

from newbie_image.bundle import TextSettings
from newbie_image.checkpoints.files import open_source
from newbie_image.checkpoints.foreign import load_part
from newbie_image.text import EncoderInput, tokenize

TOLERANCE = 1e-5
LENGTHS = (512, 77, 8, 1)
TINY: dict[str, Any] = {
    "vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 7,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "query_pre_attn_scalar": 8,
    "sliding_window": 5, "rope_scaling": {"rope_type": "linear", "factor": 8.0},
}  # fmt: skip
WIDE = TINY | {
    "vocab_size": 4096, "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 8,
    "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "query_pre_attn_scalar": 256,
    "sliding_window": 1024,
}  # fmt: skip
TEXTS = (
    "",
    "1girl, pink_hair, twintails, blue_eyes",
    "<character_1>\n<n>momo</n>\n<appearance>red_eyes &amp; <3 >_<</appearance>\n</character_1>",
    "日本の空、月光の下で。ＡＢＣ １２３",
    "一个粉色头发的女孩站在夜空下，右边是黑发男孩",
    "naïve café 🌙  two  spaces \t tab",
    "night sky, stars, " * 700,
)


def full_model(config: dict[str, Any]) -> Gemma3Model:
    """transformers' whole Gemma 3 with random weights; norms away from the zero at which they start."""
    vision = {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "image_size": 28, "patch_size": 14,
    }  # fmt: skip
    torch.manual_seed(0)
    model = Gemma3Model(Gemma3Config(text_config=config, vision_config=vision, mm_tokens_per_image=1)).eval()
    with torch.no_grad():
        for parameter in model.language_model.parameters():
            spread = 0.1 if parameter.ndim == 1 else parameter.shape[1] ** -0.5
            parameter.normal_(std=spread)
    return model


def compare_gemma(config: dict[str, Any], lengths: tuple[int, ...]) -> dict[str, float]:
    """Relative error at valid places, and how often layers ran.

    Args:
        config: of Gemma 3's text model.
        lengths: of the texts, padded into one batch on the right.
    """
    ids = torch.randint(3, config["vocab_size"], (len(lengths), max(lengths)))
    mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    ids = ids.masked_fill(~mask, 0)
    full = full_model(config)
    with tempfile.TemporaryDirectory() as place, torch.no_grad():
        full.save_pretrained(place)
        ran = count_runs(full.language_model.layers)
        states = full(input_ids=ids, attention_mask=mask.long(), output_hidden_states=True).hidden_states
        wanted, last = states[-2], states[-1]
        theirs, layers = sum(ran), len(ran)
        del full, states
        ours = load_part("text_encoder", Path(place), open_source(Path(place)), None)
        ran = count_runs(ours.layers)
        got = ours(ids, mask.long())
    assert not any("vision" in name for name, _ in ours.named_parameters())
    return {
        "error": distance(got[mask], wanted[mask]),
        "from the last layer": distance(got[mask], last[mask]),
        "layers": layers,
        "theirs ran": theirs,
        "ours ran": sum(ran),
        "parameters": sum(parameter.numel() for parameter in ours.parameters()),
    }


def count_runs(layers: Any) -> list[int]:
    """A list in which the runs of each layer are counted."""
    ran = [0] * len(layers)

    def hook(number: int) -> Any:
        def count(_module: nn.Module, _inputs: Any) -> None:
            ran[number] += 1

        return count

    for number, layer in enumerate(layers):
        layer.register_forward_pre_hook(hook(number))
    return ran


def distance(ours: Tensor, theirs: Tensor) -> float:
    return float((ours.double() - theirs.double()).norm() / theirs.double().norm())


@functools.cache  # the trainers order pieces of equal score anew each time
def reference_tokenizers() -> tuple[GemmaTokenizer, XLMRobertaTokenizer]:
    """The classes that upstream's `AutoTokenizer` gives, over vocabularies made from TEXTS."""
    bytes_ = [f"<0x{value:02X}>" for value in range(256)]
    specials = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    pieces = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    pieces.normalizer = normalizers.Replace(" ", "▁")
    pieces.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_previous")
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=[*specials, *bytes_], show_progress=False)
    pieces.train_from_iterator(TEXTS, trainer)
    model = pieces.to_str()
    made = Tokenizer.from_str(model)
    merges = [tuple(pair) for pair in json.loads(model)["model"]["merges"]]
    gemma = GemmaTokenizer(
        vocab=made.get_vocab(), merges=merges, padding_side="right", add_bos_token=True, add_eos_token=False
    )
    unigram = Tokenizer(models.Unigram())
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    trained = trainers.UnigramTrainer(
        vocab_size=150, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False
    )
    unigram.train_from_iterator(TEXTS, trained)
    scored = [
        (piece, score) for piece, score in json.loads(unigram.to_str())["model"]["vocab"] if piece != "<unk>"
    ]
    heads = [(piece, 0.0) for piece in ("<s>", "<pad>", "</s>", "<unk>")]
    jina = XLMRobertaTokenizer(vocab=[*heads, *map(tuple, scored), ("<mask>", 0.0)])
    return gemma, jina


def compare_tokens(
    tokenizer: Any, clip_tokenizer: Any, *, limit: int = 512, pooled_limit: int = 2048
) -> dict[str, bool]:
    """Whether ids and masks of all texts in one batch, and of each alone, are those of upstream's call.

    Args:
        tokenizer, clip_tokenizer: as our loader reads them from the files that the classes wrote.
        limit, pooled_limit: tokens at most.
    """
    references = reference_tokenizers()
    settings = TextSettings(max_tokens=limit, max_pooled_tokens=pooled_limit)
    same: dict[str, bool] = {}
    for name, texts in {
        "one batch": TEXTS,
        **{f"alone {i}": (text,) for i, text in enumerate(TEXTS)},
    }.items():
        gemma = references[0](
            list(texts),
            padding=True,
            pad_to_multiple_of=8,
            max_length=limit,
            truncation=True,
            return_tensors="pt",
        )
        jina = references[1](
            list(texts), padding=True, truncation=True, max_length=pooled_limit, return_tensors="pt"
        )
        ours = tokenize([EncoderInput(text, text) for text in texts], tokenizer, clip_tokenizer, settings)
        same[f"Gemma, {name}"] = torch.equal(ours.ids, gemma.input_ids) and torch.equal(
            ours.mask, gemma.attention_mask
        )
        same[f"Jina, {name}"] = torch.equal(ours.pooled_ids, jina.input_ids) and torch.equal(
            ours.pooled_mask, jina.attention_mask
        )
    return same


def written_and_read(folder: Path) -> tuple[Any, Any]:
    """Both tokenizers through the files that their classes write."""
    from newbie_image.checkpoints.foreign import read_tokenizer

    read = []
    for name, reference in zip(("tokenizer", "clip_tokenizer"), reference_tokenizers(), strict=True):
        reference.save_pretrained(str(folder / name))
        read.append(read_tokenizer(folder / name))
    return read[0], read[1]


def main() -> int:
    with tempfile.TemporaryDirectory() as place:
        same = compare_tokens(*written_and_read(Path(place)))
    print(
        f"tokens: {sum(same.values())} of {len(same)} equal",
        [name for name, good in same.items() if not good],
    )
    good = all(same.values())
    for name, config, lengths in (("tiny", TINY, (40, 17, 1)), ("4B's widths", WIDE, LENGTHS)):
        facts = compare_gemma(config, lengths)
        print(f"{name}: {facts}")
        good &= facts["error"] <= TOLERANCE and facts["ours ran"] == facts["layers"] - 1
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
