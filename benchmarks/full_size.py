"""The published sizes with random weights on the CPU: writing, verifying, loading, one small picture.

    PYTHONPATH=src python benchmarks/full_size.py FOLDER [--dtype bfloat16] [--size 256] [--steps 2]

FOLDER gets a bundle in the project's own layout: the 3.5B transformer, Gemma 3's 3.9B text model, Jina's
0.56B text tower and FLUX's 16-channel autoencoder, all random, cut into shards of 2 GB (16.4 GB in
bfloat16), with the embedded model's tokenizers (their ids are within the tables). Each measurement runs
in a process of its own, which says its seconds and its highest resident memory; pages of memory-mapped
files count into that, and can be dropped by the system, which is why the anonymous part stands beside it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from safetensors.torch import save_file
from torch import nn
from transformers.models.gemma3.configuration_gemma3 import Gemma3TextConfig

from newbie_image.bundle import find_bundle, write_settings
from newbie_image.checkpoints.published import published_settings
from newbie_image.models.gemma_text import GemmaTextModel
from newbie_image.models.jina_text import JinaTextModel
from newbie_image.models.next_dit import NextDiT

SHARD = 2 * 10**9
PROMPT = "<character_1><appearance>blue_hair, twintails</appearance></character_1>"
LOADING = """
import json, resource, sys, time
import torch
from newbie_image import GenerationRequest, NewbiePipeline
folder, dtype, size, steps = sys.argv[1], getattr(torch, sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
def anonymous():
    for line in open("/proc/self/status"):
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 2**20
began = time.perf_counter()
pipe = NewbiePipeline.from_pretrained(folder, torch_dtype=dtype)
told = {"load_s": time.perf_counter() - began, "anonymous_after_load_GiB": anonymous()}
told["parameters"] = {n: sum(p.numel() for p in getattr(pipe, n).parameters())
                      for n in ("transformer", "text_encoder", "clip_model", "vae")}
if steps:
    request = GenerationRequest(sys.argv[5], width=size, height=size, steps=steps, sampler="euler", seed=1)
    last = list(pipe.stream(request))[-1]
    told["picture_s"] = dict(last.seconds)
told["peak_GiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
told["anonymous_GiB"] = anonymous()
print(json.dumps(told))
"""


def parts() -> dict[str, nn.Module]:
    """The four models without data."""
    gemma = Gemma3TextConfig(
        vocab_size=262_208,
        hidden_size=2560,
        intermediate_size=10_240,
        num_hidden_layers=34,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=256,
        query_pre_attn_scalar=256,
        sliding_window=1024,
        max_position_embeddings=131_072,
    )
    with torch.device("meta"):
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            latent_channels=16,
            scaling_factor=0.3611,
            shift_factor=0.1159,
            use_quant_conv=False,
            use_post_quant_conv=False,
        )
        text = GemmaTextModel(gemma)
        return {"transformer": NextDiT(), "text_encoder": text, "clip_model": JinaTextModel(), "vae": vae}


def write(folder: Path, dtype: torch.dtype) -> int:
    """Writes the bundle shard by shard; returns its weights' bytes."""
    total = 0
    generator = torch.Generator().manual_seed(0)
    for name, model in parts().items():
        target = folder / name
        target.mkdir(parents=True)
        if isinstance(model, GemmaTextModel):
            model.config.save_pretrained(target)
            stem = "model"
        else:
            model.save_config(target)  # pyright: ignore[reportAttributeAccessIssue, reportCallIssue]
            stem = "diffusion_pytorch_model"
        shards: list[list[tuple[str, torch.Size]]] = [[]]
        filled = 0
        for key, value in model.state_dict().items():
            bytes_ = value.numel() * dtype.itemsize
            if filled + bytes_ > SHARD and shards[-1]:
                shards.append([])
                filled = 0
            shards[-1].append((key, value.shape))
            filled += bytes_
        where: dict[str, str] = {}
        for place, shard in enumerate(shards, start=1):
            file = f"{stem}-{place:05d}-of-{len(shards):05d}.safetensors"
            tensors = {}
            for key, shape in shard:
                value = torch.empty(shape, dtype=dtype)
                if len(shape) == 1:
                    value.fill_(0.0 if key.endswith("bias") else 1.0)
                else:
                    value.normal_(0, shape[-1] ** -0.5, generator=generator)
                tensors[key] = value
                where[key] = file
            save_file(tensors, target / file, metadata={"format": "pt"})
            total += (target / file).stat().st_size
        index = {"metadata": {"total_size": total}, "weight_map": where}
        (target / f"{stem}.safetensors.index.json").write_text(json.dumps(index))
    nano = find_bundle("nano")
    for name in ("tokenizer", "clip_tokenizer"):
        shutil.copytree(nano / name, folder / name)
    FlowMatchEulerDiscreteScheduler(shift=6.0).save_pretrained(folder / "scheduler")
    told = json.loads((nano / "model_index.json").read_text())
    told["vae"] = ["diffusers", "AutoencoderKL"]
    (folder / "model_index.json").write_text(json.dumps(told, indent=2))
    write_settings(folder, published_settings())
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float16", "float32"))
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=2)
    options = parser.parse_args()
    if not options.folder.exists():
        began = time.perf_counter()
        total = write(options.folder, getattr(torch, options.dtype))
        print(f"wrote {total / 1e9:.1f} GB in {time.perf_counter() - began:.0f} s", flush=True)
    newbie = [sys.executable, "-m", "newbie_image"]
    for command in (["weights", "inspect", str(options.folder)], ["weights", "verify", str(options.folder)]):
        began = time.perf_counter()
        done = subprocess.run([*newbie, *command], capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - began
        print(f"newbie {' '.join(command[:2])}: {seconds:.1f} s, exit code {done.returncode}", flush=True)
        print((done.stdout + done.stderr).strip(), flush=True)
    for steps in (0, options.steps):
        arguments = [str(options.folder), options.dtype, str(options.size), str(steps), PROMPT]
        done = subprocess.run(
            [sys.executable, "-c", LOADING, *arguments], capture_output=True, text=True, check=False
        )
        print(done.stdout.strip() or done.stderr.strip().splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
