"""Puts a plan into effect: components that come and go, and blocks that come for their turn.

Weights stay in host memory (pinned where the device is CUDA) and are copied to the device, never back: they
do not change. A streamed block's matrices are copied into one of two places on the device while the block
before it is at work; on CUDA the copies have a stream of their own, elsewhere they are made when needed.
Vectors (norms, biases) are small and come with their component.

Hooks are accelerate's, so that whatever asks diffusers' hooks where a component computes is answered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate.hooks import ModelHook, add_hook_to_module, remove_hook_from_module
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from newbie_image.errors import DeviceError
from newbie_image.memory.plan import SLOTS, TILE
from newbie_image.memory.tensors import copy_into, pinned, room_like
from newbie_image.models.gemma_text import GemmaTextModel
from newbie_image.models.jina_text import JinaTextModel
from newbie_image.models.layers import FeedForward, JointAttention
from newbie_image.models.next_dit import NextDiT


@dataclass(frozen=True)
class Place:
    """Where a module keeps one tensor: a parameter, or a buffer."""

    owner: nn.Module
    name: str

    def get(self) -> Tensor:
        """What is there now."""
        parameter = self.owner._parameters.get(self.name)
        found = self.owner._buffers[self.name] if parameter is None else parameter
        assert found is not None
        return found

    @property
    def saved(self) -> bool:
        """Whether a state dict has it: not so for tables, nor for what was put beside a layer (adapters)."""
        return self.name not in self.owner._non_persistent_buffers_set

    def put(self, value: Tensor) -> None:
        """Put another tensor of that shape there."""
        if self.name in self.owner._buffers:
            self.owner._buffers[self.name] = value
            return
        kept = value if isinstance(value, nn.Parameter) else nn.Parameter(value, requires_grad=False)
        self.owner._parameters[self.name] = kept


def places(module: nn.Module, without: Iterable[nn.Module] = ()) -> Iterator[Place]:
    """Every tensor of a module and of those within it, except for some of these."""
    left_out = {id(part) for each in without for part in each.modules()}
    for part in module.modules():
        if id(part) in left_out:
            continue
        for name, value in (*part._parameters.items(), *part._buffers.items()):
            if value is not None:
                yield Place(part, name)


@dataclass
class _Slot:
    """One place on the device for a block's matrices, and the two events that guard it."""

    tensors: list[Tensor]
    block: int | None = None
    filled: Any = None
    used: Any = None


class BlockStream:
    """Blocks of one shape whose matrices come to the device for their turn.

    Args:
        blocks: modules that are called one after the other, in any order that repeats itself.
        device: where they compute.
        without: parts of them that are not this stream's.
        slots: places on the device.

    Raises:
        DeviceError: blocks of different shapes.
    """

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        device: torch.device,
        *,
        without: Sequence[nn.Module] = (),
        slots: int = SLOTS,
    ) -> None:
        self.blocks = list(blocks)
        self.device = device
        # What differs from block to block, such as an adapter beside some of them, comes with the component.
        self._places = [
            [p for p in places(block, without) if p.get().ndim > 1 and p.saved] for block in self.blocks
        ]
        shapes = {tuple((p.get().shape, p.get().dtype) for p in each) for each in self._places}
        if len(shapes) > 1:
            raise DeviceError(f"{len(shapes)} shapes of blocks cannot share one stream; give each its own")
        self._host = [[p.get() for p in each] for each in self._places]
        self._count = min(slots, len(self.blocks))
        self._slots: list[_Slot] = []
        self._turn = 0
        self._after = {index: (index + 1) % len(self.blocks) for index in range(len(self.blocks))}
        self._last: int | None = None
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._handles: list[RemovableHandle] = []
        for index, block in enumerate(self.blocks):
            self._handles.append(block.register_forward_pre_hook(self._before(index)))
            self._handles.append(block.register_forward_hook(self._behind(index)))

    @property
    def covers(self) -> list[Place]:
        """The tensors that the stream looks after."""
        return [place for each in self._places for place in each]

    def pin(self) -> None:
        """Move the host's copies to pinned memory, from which a device reads without waiting."""
        for index, held in enumerate(self._host):
            self._host[index] = [pinned(tensor) for tensor in held]
            self._restore(index)

    def open(self) -> None:
        """Make room on the device; nothing is copied yet."""
        if not self._slots and self.blocks:
            like = self._host[0]
            self._slots = [
                _Slot([room_like(tensor, self.device) for tensor in like]) for _ in range(self._count)
            ]

    def close(self) -> None:
        """Put every block back onto the host's tensors and give the room back."""
        if self._copies is not None:
            self._copies.synchronize()
        for index in range(len(self.blocks)):
            self._restore(index)
        self._slots, self._last, self._turn = [], None, 0

    def detach(self) -> None:
        """Close, and leave the blocks as they were."""
        self.close()
        for handle in self._handles:
            handle.remove()

    def _before(self, index: int) -> Callable[[nn.Module, Any], None]:
        def hook(module: nn.Module, arguments: Any) -> None:
            self.open()
            slot = self._slot_of(index) or self._fill(index, None)
            if slot.filled is not None:
                torch.cuda.current_stream(self.device).wait_event(slot.filled)
            for place, tensor in zip(self._places[index], slot.tensors, strict=True):
                place.put(tensor)
            if self._last is not None and self._last != index:
                self._after[self._last] = index
            self._last = index
            # What followed last time will follow again: its copy runs while this block computes.
            coming = self._after[index]
            if self._copies is not None and self._slot_of(coming) is None and len(self._slots) > 1:
                self._fill(coming, slot)

        return hook

    def _behind(self, index: int) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, arguments: Any, result: Any) -> None:
            slot = self._slot_of(index)
            if self._copies is not None and slot is not None:
                slot.used = torch.cuda.current_stream(self.device).record_event()

        return hook

    def _slot_of(self, index: int) -> _Slot | None:
        return next((slot for slot in self._slots if slot.block == index), None)

    def _fill(self, index: int, spared: _Slot | None) -> _Slot:
        slot = self._slots[self._turn]
        if slot is spared:
            self._turn = (self._turn + 1) % len(self._slots)
            slot = self._slots[self._turn]
        self._turn = (self._turn + 1) % len(self._slots)
        if slot.block is not None:
            self._restore(slot.block)
        slot.block = index
        if self._copies is None:
            for tensor, source in zip(slot.tensors, self._host[index], strict=True):
                copy_into(tensor, source)
            return slot
        with torch.cuda.stream(self._copies):
            if slot.used is not None:
                self._copies.wait_event(slot.used)
            else:
                # Fresh room may still be read by what had it before.
                self._copies.wait_stream(torch.cuda.current_stream(self.device))
            for tensor, source in zip(slot.tensors, self._host[index], strict=True):
                copy_into(tensor, source, non_blocking=True)
            slot.filled = self._copies.record_event()
        return slot

    def _restore(self, index: int) -> None:
        for place, tensor in zip(self._places[index], self._host[index], strict=True):
            place.put(tensor)


@dataclass
class Residence:
    """One component: what of it comes as a whole, what is streamed, and what never leaves the host.

    Args:
        module: the component.
        device: where it computes.
        streams: blocks that come for their turn.
        tables: embeddings that are read on the host; only the rows that were asked for come over.
        unused: parts that no forward runs, which stay where they are.
    """

    module: nn.Module
    device: torch.device
    streams: Sequence[BlockStream] = ()
    tables: Sequence[nn.Embedding] = ()
    unused: Sequence[nn.Module] = ()
    _host: list[tuple[Place, Tensor]] = field(default_factory=list)
    _handles: list[RemovableHandle] = field(default_factory=list)

    def __post_init__(self) -> None:
        streamed = {(id(p.owner), p.name) for stream in self.streams for p in stream.covers}
        own = places(self.module, (*self.tables, *self.unused))
        self._host = [(p, p.get()) for p in own if (id(p.owner), p.name) not in streamed]
        for table in self.tables:
            held = next(table.parameters()).device
            self._handles.append(
                table.register_forward_pre_hook(lambda _, given, held=held: (given[0].to(held),))
            )
            self._handles.append(
                table.register_forward_hook(lambda _, given, rows: rows.to(self.device, non_blocking=True))
            )

    def pin(self) -> None:
        """Move the host's copies to pinned memory."""
        self._host = [(place, pinned(tensor)) for place, tensor in self._host]
        self.leave()
        for stream in self.streams:
            stream.pin()

    def enter(self) -> None:
        """Come to the device."""
        for place, tensor in self._host:
            place.put(copy_into(room_like(tensor, self.device), tensor, non_blocking=True))
        for stream in self.streams:
            stream.open()

    def leave(self) -> None:
        """Go back to the host; nothing is copied, since weights do not change."""
        for stream in self.streams:
            stream.close()
        for place, tensor in self._host:
            place.put(tensor)

    def detach(self) -> None:
        """Leave, and be as before."""
        self.leave()
        for stream in self.streams:
            stream.detach()
        for handle in self._handles:
            handle.remove()


class StagedComponents:
    """Components of which one at a time is on the device.

    Args:
        residences: by name.
    """

    def __init__(self, residences: Mapping[str, Residence]) -> None:
        self.residences = dict(residences)
        self._inside: str | None = None
        for name, residence in self.residences.items():
            if residence.device.type == "cuda":
                residence.pin()
            add_hook_to_module(residence.module, _Turn(self, name, residence.device))

    def enter(self, name: str) -> None:
        """Bring one in; the one before leaves first."""
        if self._inside == name:
            return
        self.release()
        self.residences[name].enter()
        self._inside = name

    def release(self) -> None:
        """Free the device."""
        if self._inside is not None:
            self.residences[self._inside].leave()
            self._inside = None

    def detach(self) -> None:
        """Free the device and leave all components as they were."""
        self._inside = None
        for residence in self.residences.values():
            residence.detach()
            if hasattr(residence.module, "_hf_hook"):
                remove_hook_from_module(residence.module)


class _Turn(ModelHook):
    """Tells where a component computes, and brings it in before it does."""

    def __init__(self, staged: StagedComponents, name: str, device: torch.device) -> None:
        self.staged, self.name, self.execution_device = staged, name, device

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        self.staged.enter(self.name)
        return args, kwargs


def stage_components(
    components: Mapping[str, Any],
    device: torch.device,
    *,
    resident: int = 0,
    stream_modulation: bool = True,
    tables_on_host: bool = True,
) -> StagedComponents:
    """Mode ``blocks`` of a plan, put into effect.

    Args:
        components: a pipeline's; those that are modules count. Their weights lie in host memory.
        device: where to compute.
        resident: how many of the transformer's modulated blocks stay during the steps.
        stream_modulation: whether AdaLN weights come only while the schedule is prepared.
        tables_on_host: whether token tables are read on the host.
    """
    residences: dict[str, Residence] = {}
    for name, module in components.items():
        if not isinstance(module, nn.Module):
            continue
        if isinstance(module, NextDiT):
            residences[name] = _transformer(module, device, resident, stream_modulation)
        elif isinstance(module, GemmaTextModel):
            tables = (module.embed_tokens,) if tables_on_host else ()
            layers = list(module.layers)
            unused = () if module.run_last_layer else (*layers[-1:], module.norm)
            stream = BlockStream(layers if module.run_last_layer else layers[:-1], device)
            residences[name] = Residence(module, device, (stream,), tables, unused)
        elif isinstance(module, JinaTextModel):
            tables = (module.embeddings.word_embeddings,) if tables_on_host else ()
            stream = BlockStream(list(module.encoder.layers), device)
            residences[name] = Residence(module, device, (stream,), tables)
        else:
            residences[name] = Residence(module, device)
    return StagedComponents(residences)


def cut_into_chunks(transformer: nn.Module, tokens: int | None) -> None:
    """Projections and feed-forward for so many tokens at a time; None for all at once."""
    for module in transformer.modules():
        if isinstance(module, (JointAttention, FeedForward)):
            module.token_chunk = tokens


def set_tile(vae: Any, pixels: int = TILE) -> None:
    """The side of a tile, where an autoencoder lets it be set; diffusers' own is its training size."""
    if hasattr(vae, "tile_sample_min_size"):
        vae.tile_sample_min_size = pixels
        vae.tile_latent_min_size = pixels // 8


def streamed_blocks(count: int, resident: int) -> list[int]:
    """Which of ``count`` blocks are streamed: evenly spread, so that each copy has work to hide behind."""
    streamed = max(0, count - resident)
    return [place * count // streamed for place in range(streamed)]


def _transformer(module: NextDiT, device: torch.device, resident: int, stream_modulation: bool) -> Residence:
    modulated: list[Any] = [*module.noise_refiner, *module.layers]
    away = [modulated[index] for index in streamed_blocks(len(modulated), resident)]
    adaptive = [block.adaLN_modulation for block in modulated]
    streams = [BlockStream([*module.context_refiner, *away], device, without=adaptive)]
    if stream_modulation:
        streams.append(BlockStream(adaptive, device))
    return Residence(module, device, streams)
