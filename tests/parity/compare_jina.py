"""Runs ComfyUI's Jina CLIP v2 text tower beside ours at full size, on the same random weights.

    PYTHONPATH=src python tests/parity/compare_jina.py comfy/text_encoders/jina_clip_2.py

The file is ComfyUI's, unchanged; what it imports of the rest of ComfyUI is replaced: its layers by
torch's, its attention by `scaled_dot_product_attention`, its tokenizer wrappers by nothing. 5 GB of
memory. Texts are random ids of uneven lengths, as Chinese, Japanese and English texts would give them
(the tower knows ids only). Says the relative error of the last hidden states at valid places and of the
pooled vector.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from newbie_image.models.jina_text import JinaTextModel

TOLERANCE = 1e-5
LENGTHS = (77, 31, 8, 3)


def reference_tower(file: Path) -> nn.Module:
    """ComfyUI's tower with its stand-ins."""

    def attention(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None, **_: Any) -> Tensor:
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return out.transpose(1, 2).flatten(2)

    names = ("comfy", "comfy.model_management", "comfy.ops", "comfy.sd1_clip")
    names += ("encoders", "encoders.spiece_tokenizer")
    made: dict[str, Any] = {name: types.ModuleType(name) for name in names}
    comfy = made["comfy"]
    comfy.model_management, comfy.ops, comfy.sd1_clip = (made[name] for name in names[1:4])
    for name in ("SDTokenizer", "SD1Tokenizer", "SDClipModel", "SD1ClipModel"):
        setattr(comfy.sd1_clip, name, object)
    found = types.SimpleNamespace(optimized_attention_for_device=lambda *_, **__: attention)
    comfy.ldm = types.SimpleNamespace(modules=types.SimpleNamespace(attention=found))
    made["encoders"].__path__ = [str(file.parent)]
    made["encoders.spiece_tokenizer"].SPieceTokenizer = object
    sys.modules.update(made)
    spec = importlib.util.spec_from_file_location("encoders.jina_clip_2", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["encoders.jina_clip_2"] = module
    spec.loader.exec_module(module)
    with torch.device("meta"):
        tower = module.XLMRobertaModel({}, torch.float32, None, nn).model
    for block in tower.encoder.layers:  # its frequencies are no weights, so they would stay on meta
        mixer = block.mixer
        mixer.rotary_emb = module.RotaryEmbedding(mixer.head_dim, module.XLMRobertaConfig().rotary_emb_base)
    return tower.eval()


def main() -> int:
    torch.manual_seed(0)
    ours = JinaTextModel().eval()
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            if parameter.ndim == 1:  # biases and norms, which would start at 0 and 1
                parameter.add_(0.1 * torch.randn_like(parameter))
            elif "word_embeddings" not in name:
                parameter.mul_(1.5)
    theirs = reference_tower(Path(sys.argv[1]).resolve())
    theirs.load_state_dict(ours.state_dict(), strict=True, assign=True)
    ids = torch.randint(3, 250002, (len(LENGTHS), max(LENGTHS)))
    mask = torch.arange(max(LENGTHS))[None] < torch.tensor(LENGTHS)[:, None]
    ids = ids.masked_fill(~mask, 1)
    ids[:, 0] = 0
    ids[torch.arange(len(LENGTHS)), torch.tensor(LENGTHS) - 1] = 2
    with torch.no_grad():
        states, _, pooled = theirs(ids, mask.long())
        mine, vector = ours.hidden_states(ids, mask), ours(ids, mask)
    parameters = sum(p.numel() for p in ours.parameters())
    worst = 0.0
    for row, length in enumerate(LENGTHS):
        a, b = mine[row, :length], states[row, :length]
        errors = (
            float((a - b).norm() / b.norm()),
            float((vector[row] - pooled[row]).norm() / pooled[row].norm()),
        )
        worst = max(worst, *errors)
        print(f"{length} tokens: states {errors[0]:.1e}, pooled {errors[1]:.1e}")
    print(f"{parameters} parameters, worst {worst:.1e}, allowed {TOLERANCE:.0e}")
    return int(worst >= TOLERANCE)


if __name__ == "__main__":
    raise SystemExit(main())
