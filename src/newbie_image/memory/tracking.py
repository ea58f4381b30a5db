"""Counts the bytes that a computation holds at its highest, without holding them.

The real classes run on tensors without data (the meta device, or torch's FakeTensorMode); each storage is
counted from its making to its end. What a graphics card does in one kernel is taken as one kernel: attention
makes its result and one number a query, a root-mean-square norm makes its result. Not counted, because no
tensor holds it: kernels' workspaces, the allocator's rounding, and the CUDA context.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from newbie_image.memory import sizes
from newbie_image.memory.offload import Residence, cut_into_chunks, set_tile, stage_components
from newbie_image.memory.plan import Plan, Stage, Workload
from newbie_image.memory.trims import TRIMS
from newbie_image.models.prepared_text import PreparedText

META = torch.device("meta")


class _FusedKernels(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.rms_norm:
            return torch.empty_like(args[0])
        if func is F.scaled_dot_product_attention:
            query, value = args[0], args[2]
            # Kept until the result is there, as the kernel keeps them.
            numbers = query.new_empty(query.shape[:-1], dtype=torch.float32)
            result = query.new_empty((*query.shape[:-1], value.shape[-1]))
            del numbers
            return result
        return func(*args, **(kwargs or {}))


class _EveryOperation(TorchDispatchMode):
    def __init__(self, seen: Callable[[Tensor], None]) -> None:
        super().__init__()
        self._seen = seen

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._seen(leaf)
        return result


class ByteCounter:
    """Counts storages that are made while it is entered; what was there before does not count.

    Args:
        device: only tensors of this kind of device count.
        fused: take attention and norms as one kernel each, which gives results that hold no numbers; False
            where real ones are computed.

    Attributes:
        live: bytes now.
        peak: most bytes since the beginning or the last :meth:`reset`.
    """

    def __init__(self, device: torch.device = META, *, fused: bool = True) -> None:
        self.device = device
        self.live = 0
        self.peak = 0
        self._known: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        every = _EveryOperation(self._count)
        self._modes = (_FusedKernels(), every) if fused else (every,)

    def __enter__(self) -> ByteCounter:
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(kind, error, trace)

    def reset(self) -> int:
        """Begin a new peak; gives the last one."""
        peak, self.peak = self.peak, self.live
        return peak

    def _count(self, tensor: Tensor) -> None:
        if tensor.device.type != self.device.type:
            return
        storage = tensor.untyped_storage()
        if storage in self._known:
            return
        size = storage.nbytes()
        self._known[storage] = size
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._end, size)

    def _end(self, size: int) -> None:
        self.live -= size


def without_data(model: nn.Module, dtype: torch.dtype, device: torch.device = META) -> nn.Module:
    """Gives a model tensors of a dtype that have no data, in place; buffers keep their dtype.

    Made within a :class:`ByteCounter` they are counted. Under FakeTensorMode give the CPU as the device.
    """
    for module in model.modules():
        for name, value in module._parameters.items():
            if value is not None:
                empty = torch.empty(value.shape, dtype=dtype, device=device)
                module._parameters[name] = nn.Parameter(empty, requires_grad=False)
        for name, value in module._buffers.items():
            if value is not None:
                module._buffers[name] = torch.empty(value.shape, dtype=value.dtype, device=device)
    return model


def published_parts(dtype: torch.dtype, device: torch.device = META) -> dict[str, nn.Module]:
    """The published model's four components in their real classes, without data."""
    return {name: without_data(part, dtype, device) for name, part in published_modules().items()}


def published_modules() -> dict[str, nn.Module]:
    """The published model's four components in their real classes: parameters on the meta device in float32,
    buffers as they are made.
    """
    from accelerate import init_empty_weights
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from transformers.models.gemma3.configuration_gemma3 import Gemma3TextConfig

    from newbie_image.models.gemma_text import GemmaTextModel
    from newbie_image.models.jina_text import JinaTextModel
    from newbie_image.models.next_dit import NextDiT

    gemma = Gemma3TextConfig(**sizes.PUBLISHED_GEMMA)
    gemma._attn_implementation = "sdpa"
    vae = {key: value for key, value in sizes.PUBLISHED_VAE.items() if key[0] != "_"}
    count = len(vae["block_out_channels"])
    vae |= {
        "down_block_types": ("DownEncoderBlock2D",) * count,
        "up_block_types": ("UpDecoderBlock2D",) * count,
    }
    with init_empty_weights():
        return {
            "transformer": NextDiT(**sizes.PUBLISHED_TRANSFORMER),
            "text_encoder": GemmaTextModel(gemma),
            "clip_model": JinaTextModel(**sizes.PUBLISHED_JINA),
            "vae": AutoencoderKL(**vae),
        }


@torch.no_grad()
def track_plan(
    parts: Mapping[str, Any],
    work: Workload,
    plan: Plan,
    dtype: torch.dtype = torch.bfloat16,
    device: torch.device = META,
    trims: Collection[str] = TRIMS,
) -> Plan:
    """Carries a plan out on tensors without data; gives it with the peaks that were counted.

    Args:
        parts: transformer, text_encoder, clip_model and vae, without data (:func:`published_parts`).
        work: what to draw.
        plan: its stages are not looked at.
        dtype: of weights and activations.
        device: the meta device; under FakeTensorMode the CPU.
        trims: those that are at work.
    """
    staged = plan.offload == "blocks"
    cut_into_chunks(parts["transformer"], plan.chunk)
    parts["text_encoder"].run_last_layer = "last-layer" not in trims
    on_host, resident = "tables" in trims, plan.resident or 0
    shelf = stage_components(parts, device, resident=resident, tables_on_host=on_host) if staged else None
    homes = shelf.residences if shelf else {name: Residence(part, device) for name, part in parts.items()}
    everything = ("text_encoder", "clip_model", "transformer", "vae")
    later = everything if plan.offload == "none" else ("transformer", "vae")
    texts = 2 if work.guided else 1
    stages: list[Stage] = []

    def run(name: str, inside: tuple[str, ...], job: Callable[[], Any]) -> None:
        with ByteCounter(device) as counter:
            for part in inside:
                shelf.enter(part) if shelf else homes[part].enter()
            weights = counter.live
            kept = job()
            stages.append(Stage(name, weights, counter.peak - weights))
            del kept
            for part in inside:
                shelf.release() if shelf else homes[part].leave()

    def empty(*shape: int, kind: torch.dtype = dtype) -> Tensor:
        return torch.empty(*shape, dtype=kind, device=device)

    def read(encoder: str) -> Callable[[], Any]:
        def job() -> Any:
            # Jina reads while Gemma's states are already there.
            shape = (texts, work.tokens, parts["transformer"].cap_feat_dim)
            states = empty(*shape) if encoder == "clip_model" else None
            ids, mask = (empty(texts, work.tokens, kind=torch.int64) for _ in range(2))
            return states, parts[encoder](ids, mask)

        return job

    one_at_a_time = plan.offload in ("model", "blocks")
    for encoder in ("text_encoder", "clip_model"):
        run("text", (encoder,) if one_at_a_time else everything, read(encoder))
    run("steps", ("transformer",) if one_at_a_time else later, lambda: _walk(parts, work, plan, empty, trims))
    run("decode", ("vae",) if one_at_a_time else later, lambda: _decode(parts, work, plan, empty))
    if shelf is not None:
        shelf.detach()
    cut_into_chunks(parts["transformer"], None)
    parts["text_encoder"].run_last_layer = False
    text = max(stages[:2], key=lambda stage: stage.bytes)
    return replace(plan, stages=(text, *stages[2:]))


def _walk(
    parts: Mapping[str, Any],
    work: Workload,
    plan: Plan,
    empty: Callable[..., Tensor],
    trims: Collection[str],
) -> Any:
    transformer = parts["transformer"]
    texts = 2 if work.guided else 1
    tokens, pooled = (
        empty(texts, work.tokens, transformer.cap_feat_dim),
        empty(texts, transformer.clip_text_dim),
    )
    mask = empty(texts, work.tokens, kind=torch.bool)
    noise = empty(work.batch, transformer.in_channels, work.height // 8, work.width // 8, kind=torch.float32)
    expanded = [each.repeat_interleave(work.batch, dim=0) for each in (tokens, mask, pooled)]
    size = (work.height // 8, work.width // 8)

    def prepare() -> list[PreparedText]:
        whole = transformer._prepare(*expanded, size, None, static=True)
        if plan.two_passes and work.guided:
            return [whole.rows(0, work.batch), whole.rows(work.batch, 2 * work.batch)]
        return [whole]

    halves = prepare()
    times = [place / work.evaluations for place in range(work.evaluations if "adaln" in trims else 0)]
    schedules = [transformer.prepare_schedule(times, half) for half in halves]
    velocities = []
    for place, schedule in enumerate(schedules):
        half = halves[place] if "refiner" in trims else prepare()[place]
        latents = torch.cat([noise] * (half.batch // work.batch))
        timestep = empty(half.batch, kind=torch.float32)
        velocities.append(transformer.velocity(latents, timestep, half, schedule[0] if schedule else None))
    return tokens, noise, halves, schedules, velocities


def _decode(parts: Mapping[str, Any], work: Workload, plan: Plan, empty: Callable[..., Tensor]) -> Any:
    vae = parts["vae"]
    features = empty(2 if work.guided else 1, work.tokens, parts["transformer"].cap_feat_dim)
    latents = empty(1, parts["transformer"].in_channels, work.height // 8, work.width // 8)
    if plan.tiled:
        vae.enable_tiling()
        set_tile(vae)
    pixels = vae.decode(latents, return_dict=False)[0].float()
    if plan.tiled:
        vae.disable_tiling()
    return features, (pixels * 0.5 + 0.5).clamp_(0.0, 1.0)
