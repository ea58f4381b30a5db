"""Lets the reference programs write their checkpoints and reads these with ours, tensor by tensor.

    PYTHONPATH=src python tests/parity/compare_layouts.py --upstream UPSTREAM [--trainer TRAINER]
        [--nodes NODES] [--comfyui COMFYUI] [--write-fixtures]

UPSTREAM, TRAINER, NODES and COMFYUI are checkouts of NewBie-image-Exp0.1, NewbieLoraTrainer,
ComfyUI-Newbie-Nodes and ComfyUI. Of each, the lines that save run as they stand:

training   `finetune.py`: its FSDP wrapping and the block that saves a checkpoint, taken from the file by its
           syntax tree and run in one process on the CPU (gloo); fairscale's ranks are 0 of 1
published  TRAINER's `convert_newbie_to_diffusers.py`, whole, on that checkpoint; its model's factory makes a
           small one, Gemma 3 and the VAE are small and random, and in the place of Jina's remote code stands
           a file of the published names
single     NODES' `convert_fixed.py`, whole, on that checkpoint; the same factory
comfyui    COMFYUI's `save_checkpoint`, on a model that its own class loaded from our `comfyui` layout; needs
           `pip install torchsde einops`, torchvision is replaced by an empty module

flash_attn is replaced as in compare_upstream.py. Weights are random; nothing is downloaded.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import functools
import importlib
import importlib.machinery
import io
import json
import logging
import os
import shutil
import sys
import tempfile
import types
import warnings
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from compare_upstream import build, import_upstream
from safetensors.torch import save_file
from torch import Tensor, nn

from newbie_image.checkpoints.convert import convert
from newbie_image.checkpoints.files import open_source
from newbie_image.checkpoints.inspection import verify
from newbie_image.checkpoints.opening import open_model
from newbie_image.checkpoints.recognise import Checkpoint, read_part, recognise
from newbie_image.checkpoints.single_part import verify_part
from newbie_image.models.next_dit import NextDiT

FIXTURES = Path(__file__).parent / "fixtures" / "layouts"
# Three equal rotary axes, as the published heads have: a training checkpoint says nothing of them.
SMALL: dict[str, Any] = {
    "patch_size": 2,
    "in_channels": 16,
    "dim": 12,
    "n_layers": 1,
    "n_refiner_layers": 1,
    "n_heads": 2,
    "n_kv_heads": 1,
    "multiple_of": 8,
    "ffn_dim_multiplier": None,
    "norm_eps": 1e-5,
    "cap_feat_dim": 8,
    "axes_dims": [2, 2, 2],
    "axes_lens": [1024, 512, 512],
    "clip_text_dim": 8,
}
# The programs write the published axes into their configs, whatever the model: heads of 96.
WIDE = SMALL | {
    "dim": 192,
    "multiple_of": 64,
    "axes_dims": [32, 32, 32],
    "cap_feat_dim": 32,
    "clip_text_dim": 16,
}
RESULTS: list[tuple[str, str, str]] = []


def main() -> int:
    parser = argparse.ArgumentParser()
    for name in ("upstream", "trainer", "nodes", "comfyui"):
        parser.add_argument(f"--{name}", type=Path, required=name == "upstream")
    parser.add_argument("--write-fixtures", action="store_true")
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    upstream = import_upstream(given.upstream.resolve())
    FIXTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        trained = check_training(given.upstream, upstream, work / "training", WIDE)
        small = check_training(given.upstream, upstream, work / "small", SMALL)
        if given.trainer is not None:
            check_trainer(given.trainer.resolve(), upstream, work / "training", trained, work)
        if given.nodes is not None:
            check_nodes(given.nodes.resolve(), upstream, work / "training", trained, work)
        if given.comfyui is not None:
            check_comfyui(given.comfyui.resolve(), work, trained, WIDE)
            written = check_comfyui(given.comfyui.resolve(), work, small, SMALL)
            if given.write_fixtures:
                shutil.copy(written, FIXTURES / "comfyui.safetensors")
        if given.write_fixtures:
            for name in ("consolidated_ema.00-of-01.pth", "model_args.pth", "resume_step.txt"):
                shutil.copy(work / "small" / name, FIXTURES / name)
            (FIXTURES / "expected.json").write_text(json.dumps(facts(small), indent=1) + "\n")
    width = max(len(row[0]) for row in RESULTS)
    for what, read, found in RESULTS:
        print(f"{what:<{width}}  {read:<34}  {found}")
    return 0 if all(found.startswith("to the bit") for *_, found in RESULTS) else 1


def check_training(checkout: Path, upstream: type[nn.Module], folder: Path, config: dict[str, Any]) -> Any:
    """The averaged weights that upstream's own lines saved; both files read."""
    model = build(upstream, config)
    with torch.no_grad():
        ema = deepcopy(model)
        for weight in ema.parameters():
            weight.add_(0.01 * torch.randn_like(weight))
    wanted = {"model": state_of(model), "model_ema": state_of(ema)}
    code = SavingCode(checkout / "finetune.py")
    with one_process():
        code.save(model, ema, folder)
    for stem, key in (("consolidated", "model"), ("consolidated_ema", "model_ema")):
        report(f"finetune.py: {stem}", {"transformer": folder / f"{stem}.00-of-01.pth"}, wanted[key])
    found = recognise(folder)
    assert found.layout == "training"
    assert found.parts["transformer"].name.startswith("consolidated_ema")
    assert verify_part(found.parts["transformer"]).wrong == ()
    return wanted["model_ema"]


class SavingCode:
    """Upstream's wrapping and its block that saves, out of `finetune.py`."""

    def __init__(self, file: Path) -> None:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
        kept = [functions["setup_fsdp_sync"]]
        blocks = [
            node
            for node in ast.walk(functions["main"])
            if isinstance(node, ast.If)
            and "model_args.pth" in ast.unparse(node)
            and "step == 0" in ast.unparse(node.test)
        ]
        assert len(blocks) == 1, "finetune.py has changed: its block that saves was not found"
        imports = [
            node for node in tree.body if "torch" in ast.unparse(node) and "import" in ast.unparse(node)
        ]
        wanted = [
            node
            for node in imports
            if "torchvision" not in ast.unparse(node) and "tensorboard" not in ast.unparse(node)
        ]
        body = [*(node for node in wanted if isinstance(node, (ast.Import, ast.ImportFrom))), *kept]
        body = [
            node for node in body if not (isinstance(node, ast.ImportFrom) and node.module == "__future__")
        ]
        self.head = compile(ast.Module(body, []), str(file), "exec")
        self.block = compile(ast.Module([blocks[0]], []), str(file), "exec")

    def save(self, model: nn.Module, ema: nn.Module, folder: Path) -> None:
        ranks = types.SimpleNamespace(
            get_data_parallel_rank=lambda: 0,
            get_model_parallel_rank=lambda: 0,
            get_model_parallel_world_size=lambda: 1,
            get_data_parallel_group=lambda: dist.group.WORLD,
        )
        args = argparse.Namespace(
            data_parallel="fsdp", precision="fp32", grad_precision=None, ckpt_every=1, max_steps=1,
            model="NextDiT_3B_GQA_patch2_Adaln_Refiner_WHIT_CLIP", qk_norm=True,
        )  # fmt: skip
        space: dict[str, Any] = {
            "functools": functools, "argparse": argparse, "os": os, "args": args,
            "logger": logging.getLogger("finetune"), "fs_init": ranks, "step": 0,
            "checkpoint_dir": str(folder.parent),
        }  # fmt: skip
        exec(self.head, space)

        class OneProcess(space["FSDP"]):
            """torch refuses to send rank 0's weights to the others from a CPU; there are no others."""

            def __init__(self, module: nn.Module, **options: Any) -> None:
                super().__init__(module, **options | {"sync_module_states": False})

        space["FSDP"] = OneProcess
        space["model"] = space["setup_fsdp_sync"](model, args)
        space["model_ema"] = space["setup_fsdp_sync"](ema, args)
        space["opt"] = torch.optim.AdamW(space["model"].parameters())
        space["scheduler"] = torch.optim.lr_scheduler.ConstantLR(space["opt"])
        exec(self.block, space)
        (folder.parent / "0000001").rename(folder)


@contextlib.contextmanager
def one_process() -> Iterator[None]:
    """torch.distributed with one process, and no CUDA where upstream asks for its device."""
    kept = torch.cuda.current_device, torch.cuda.synchronize
    torch.cuda.current_device = lambda: torch.device("cpu")  # type: ignore[assignment,return-value]
    torch.cuda.synchronize = lambda *_: None  # type: ignore[assignment]
    with tempfile.TemporaryDirectory() as place:
        dist.init_process_group("gloo", init_method=f"file://{place}/store", rank=0, world_size=1)
        try:
            yield
        finally:
            dist.destroy_process_group()
            torch.cuda.current_device, torch.cuda.synchronize = kept


def check_trainer(
    checkout: Path, upstream: type[nn.Module], checkpoint: Path, wanted: dict[str, Tensor], work: Path
) -> None:
    from tests.tiny import gemma_tokenizer, write_bundle

    bundle = write_bundle(work / "bundle")
    convert(recognise(bundle), work / "parts", "published")
    write_gemma(work / "gemma", len(gemma_tokenizer()))
    gemma_tokenizer().save_pretrained(str(work / "gemma"))
    module = import_beside(checkout, "convert_newbie_to_diffusers", upstream)
    clip = open_source(work / "parts" / "clip_model")
    names = {name: clip.get(name) for name in clip.shapes}

    class JinaFiles:
        """Saves the published names, as Jina's remote code does."""

        def save_pretrained(self, folder: Path, **_: Any) -> None:
            save_file(names, folder / "model.safetensors", {"format": "pt"})

    tokenizer = open_model(bundle).components["clip_tokenizer"]
    module.load_clip_model = lambda *_: (JinaFiles(), tokenizer, None)
    target = work / "by_trainer"
    run_program(
        module,
        ["--checkpoint", str(checkpoint / "consolidated_ema.00-of-01.pth"), "--gemma3", str(work / "gemma")],
        ["--vae", str(bundle / "vae"), "--model_name", "small", "--dtype", "fp32", "--output", str(target)],
    )
    found = recognise(target)
    assert found.layout == "published", found.layout
    report("convert_newbie_to_diffusers.py", dict(found.parts), wanted)
    faults = list(verify(found))
    assert faults == [], faults
    opened = open_model(target).components
    text = "1girl, 日本"
    assert opened["tokenizer"](text).input_ids == gemma_tokenizer()(text).input_ids


def check_nodes(
    checkout: Path, upstream: type[nn.Module], checkpoint: Path, wanted: dict[str, Tensor], work: Path
) -> None:
    module = import_beside(checkout, "convert_fixed", upstream)
    file, target = checkpoint / "consolidated_ema.00-of-01.pth", work / "by_nodes"
    with contextlib.redirect_stdout(io.StringIO()):
        module.convert_model_with_inferred_params(str(file), str(target), "bf16")
    rounded = {name: value.to(torch.bfloat16) for name, value in wanted.items()}
    report("convert_fixed.py (folder)", {"transformer": target}, rounded)
    report("convert_fixed.py (file)", {"transformer": target / "newbie_dit.safetensors"}, rounded)
    faults = verify_part(target).wrong
    assert faults == (), faults


def check_comfyui(checkout: Path, work: Path, wanted: dict[str, Tensor], config: dict[str, Any]) -> Path:
    import_comfyui(checkout)
    import comfy.model_patcher
    import comfy.sd
    import comfy.supported_models

    ours = work / f"ours_{config['dim']}"
    model = NextDiT(**config)
    model.load_state_dict(wanted)
    model.save_pretrained(str(ours / "source" / "transformer"))
    alone = Checkpoint(ours / "source", "newbie", {"transformer": ours / "source" / "transformer"}, {})
    convert(alone, ours / "comfyui", "comfyui")
    file = next((ours / "comfyui").rglob("*.safetensors"))
    fields = {"image_model": "lumina2", "qk_norm": True, "rope_theta": 1e4, **config}
    made = comfy.supported_models.Lumina2(fields | {"ffn_dim_multiplier": 4.0})  # as it finds by the names
    made.set_inference_dtype(torch.bfloat16, None)
    their = made.get_model({}, device="cpu")
    state = comfy.utils.load_torch_file(str(file))
    prefix = "model.diffusion_model."
    bare = {name.removeprefix(prefix) for name in state}
    missing = their.diffusion_model.state_dict().keys() - bare
    unknown = bare - their.diffusion_model.state_dict().keys()
    assert missing <= {"norm_final.weight"}, missing
    their.load_model_weights(state, prefix)
    target = work / f"by_comfyui_{config['dim']}.safetensors"
    patcher = comfy.model_patcher.ModelPatcher(their, torch.device("cpu"), torch.device("cpu"))
    comfy.sd.save_checkpoint(str(target), patcher)
    rounded = {name: value.to(torch.bfloat16) for name, value in wanted.items() if name not in unknown}
    report(f"ComfyUI's save_checkpoint ({config['dim']})", {"transformer": target}, rounded)
    faults = verify_part(target).wrong
    assert faults == (), faults
    return target


def import_comfyui(checkout: Path) -> None:
    import transformers
    from transformers import AutoTokenizer, CLIPTokenizer, T5TokenizerFast  # noqa: F401

    assert transformers.utils.is_torchvision_available() in (True, False)  # asked before it is replaced

    class Empty(types.ModuleType):
        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return type(name, (), {"__init__": lambda self, *_, **__: None})

    for name in ("torchvision", "torchvision.transforms"):
        if name not in sys.modules:
            stand_in = Empty(name)
            stand_in.__path__ = []
            stand_in.__spec__ = importlib.machinery.ModuleSpec(name, None)
            sys.modules[name] = stand_in
    if str(checkout) not in sys.path:
        sys.path.insert(0, str(checkout))
    logging.disable(logging.WARNING)
    kept, sys.argv = sys.argv, sys.argv[:1]
    try:
        import comfy.cli_args

        comfy.cli_args.args.cpu = True
    finally:
        sys.argv = kept


def import_beside(checkout: Path, name: str, upstream: type[nn.Module]) -> Any:
    """A script of a checkout, with its own `models` package, whose 3B factories make the wide small model."""
    for loaded in [each for each in sys.modules if each.split(".")[0] == "models"]:
        del sys.modules[loaded]
    own = import_upstream(checkout)
    assert own is not upstream
    sys.path.insert(0, str(checkout))
    try:
        module = importlib.import_module(name)
    finally:
        sys.path.remove(str(checkout))

    def small(**asked: Any) -> nn.Module:
        return own(**(WIDE | {"qk_norm": True, "in_channels": asked["in_channels"]}))

    sys.modules["models"].small = small  # type: ignore[attr-defined]
    module.NextDiT_3B_GQA_patch2_Adaln_Refiner_WHIT_CLIP = small
    return module


def run_program(module: Any, *arguments: list[str]) -> None:
    kept, sys.argv = sys.argv, [module.__name__, *(word for words in arguments for word in words)]
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            module.main()
    finally:
        sys.argv = kept


def write_gemma(folder: Path, vocabulary: int) -> None:
    """A small whole Gemma 3, vision tower and all, as its own class saves it."""
    from transformers import Gemma3Config, Gemma3Model

    config = Gemma3Config(
        text_config={
            "vocab_size": vocabulary, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
            "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "sliding_window": 16,
        },
        vision_config={
            "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "image_size": 28, "patch_size": 14,
        },
        mm_tokens_per_image=1,
    )  # fmt: skip
    Gemma3Model(config).save_pretrained(str(folder))


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def report(what: str, parts: dict[str, Path], wanted: dict[str, Tensor]) -> None:
    """Read the transformer's tensors under our names and say how they compare."""
    source = open_source(parts["transformer"])
    plan = read_part("transformer", parts["transformer"], source.shapes)
    found = {name: source.make(piece) for name, piece in plan.pieces.items()}
    differing = [name for name in wanted if name not in found or not torch.equal(found[name], wanted[name])]
    extra = [*(name for name in found if name not in wanted), *plan.unused]
    good = "to the bit" if not differing and not extra else f"differ: {differing[:3]} extra: {extra[:3]}"
    RESULTS.append((what, f"{len(found)} tensors, {plan.layout} names", good))


def facts(state: dict[str, Tensor]) -> dict[str, Any]:
    """What the stored files have to give: each tensor's sum of numbers and of magnitudes."""
    return {
        name: [float(v.double().sum()), float(v.double().abs().sum())] for name, v in sorted(state.items())
    }


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    sys.exit(main())
