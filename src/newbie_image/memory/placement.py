"""The part of the pipeline that decides where its components are: by a mode, or by a plan for each
request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from newbie_image.errors import DeviceError, OutOfMemoryError, RequestError
from newbie_image.memory.offload import StagedComponents, cut_into_chunks, set_tile, stage_components
from newbie_image.memory.plan import (
    OFFLOAD_MODES,
    Plan,
    Workload,
    choose_plan,
    fit_blocks,
    predict,
    smallest_plan,
)
from newbie_image.memory.sizes import ModelSizes, sizes_from_configs
from newbie_image.memory.trims import TRIMS, check_trims
from newbie_image.models.gemma_text import GemmaTextModel
from newbie_image.request import GenerationRequest

OFFLOADS = ("auto", *OFFLOAD_MODES)


class PlacedPipeline(DiffusionPipeline):
    """A pipeline whose components come to the device by mode, by plan, or all at once.

    Attributes:
        plan: what is in effect; None where a mode was asked for that needs none.
    """

    plan: Plan | None = None
    guidance_in_one_batch: bool | None = None
    _release_encoders = False
    _planned_by: str | None = None
    _memory: int | None = None
    _target: torch.device | None = None
    _staged: StagedComponents | None = None
    _trims: tuple[str, ...] = TRIMS
    _drawing = 0

    @property
    def trims(self) -> tuple[str, ...]:
        """Which of :mod:`newbie_image.memory.trims` are at work; all, unless others were set.

        Raises:
            RequestError: when set: an unknown name, or a picture is being drawn.
        """
        return self._trims

    @trims.setter
    def trims(self, names: Iterable[str]) -> None:
        chosen = check_trims(names)
        if self._drawing:
            raise RequestError(
                "trims cannot change while a picture is being drawn; finish its stream or close() it first"
            )
        encoder = self.components["text_encoder"]
        with self._unstaged():
            self._trims = chosen
            if isinstance(encoder, GemmaTextModel):
                encoder.run_last_layer = "last-layer" not in chosen
        if self.plan is not None:
            self._cut(self.plan)

    def offload(
        self, mode: str, device: torch.device | str | None = None, *, memory: int | None = None
    ) -> None:
        """Choose what stays on the device.

        Args:
            mode: ``none``: everything; ``encoders``: the text encoders come for the text and leave again;
                ``model``: one component at a time; ``blocks``: one at a time, and of it as many blocks as
                fit, the others for their turn; ``auto``: what fits each request
                (``newbie_image.memory.plan``).
            device: where to compute; None for where the pipeline is, or CUDA.
            memory: bytes that ``auto`` and ``blocks`` may take; None for what a CUDA device has free.

        Raises:
            RequestError: an unknown mode.
            DeviceError: ``model`` without an accelerator.
        """
        if mode not in OFFLOADS:
            raise RequestError(f"unknown offload mode {mode!r}; choose one of {', '.join(OFFLOADS)}")
        target = torch.device(device) if device is not None else self._target
        if target is None and mode in ("auto", "blocks", "model") and torch.cuda.is_available():
            target = torch.device("cuda")
        self._clear(target)
        if mode in ("auto", "blocks"):
            if memory is None and target is not None and target.type == "cuda":
                memory = torch.cuda.mem_get_info(target)[0]
            self._planned_by, self._memory = mode, memory
            if mode == "blocks" or memory is not None:
                # Weights wait on the host until a request says what there is to plan for.
                self.to("cpu")
                return
        self._place(mode, target)

    def apply_plan(self, plan: Plan, device: torch.device | str | None = None) -> None:
        """Put a plan into effect; it holds until :meth:`offload` or another plan.

        Args:
            plan: from :func:`newbie_image.memory.plan.choose_plan`, or written by hand.
            device: where to compute; None for where the pipeline is.
        """
        planned_by, memory = self._planned_by, self._memory
        self._clear(torch.device(device) if device is not None else self._target)
        self._planned_by, self._memory, self.plan = planned_by, memory, plan
        self._cut(plan)
        self.guidance_in_one_batch = False if plan.two_passes else None
        if plan.tiled:
            set_tile(self.components["vae"])
        if plan.offload != "blocks":
            self._place(plan.offload, self._target)
            return
        self.to("cpu")
        self._stage_blocks(plan.resident or 0)

    def sizes(self) -> ModelSizes:
        """Numbers of weights of the components, for plans."""
        names = ("transformer", "text_encoder", "clip_model", "vae")
        configs = [_as_dict(self.components[name].config) for name in names]
        configs[-1].setdefault("_class_name", type(self.components["vae"]).__name__)
        vae = sum(parameter.numel() for parameter in self.components["vae"].parameters())
        return sizes_from_configs("this model", *configs, files=4 * vae)

    def work_of(self, request: GenerationRequest, evaluations: int, tokens: int) -> Workload:
        """What a completed request asks of the memory; ``tokens`` is the caption's length to plan for."""
        assert request.width is not None
        assert request.height is not None
        guided = request.guidance_scale != 1.0 or bool(request.cfg_renorm)
        return Workload(
            width=request.width,
            height=request.height,
            batch=min(request.batch, request.count),
            guided=guided and request.cfg_truncation != 0.0,
            tokens=tokens,
            evaluations=evaluations,
            item=self.components["transformer"].dtype.itemsize,
        )

    def advice(self, request: GenerationRequest, work: Workload) -> str | None:
        """The plan that would fit, in a sentence; None where it is not known how much memory there is."""
        memory = self._memory
        if memory is None and self._target is not None and self._target.type == "cuda":
            memory = torch.cuda.get_device_properties(self._target).total_memory
        if memory is None:
            return None
        plan = choose_plan(self.sizes(), work, memory, self.trims)
        now = None if self.plan is None else replace(self.plan, stages=())
        if plan is None or replace(plan, stages=()) == now:
            plan = smallest_plan(self.sizes(), work, self.trims)
        tiled = " --tiled" if plan.tiled and not request.tiled else ""
        return (
            f"--offload {'auto' if plan.offload == 'blocks' else plan.offload}{tiled}: {plan.describe()}, "
            f"predicted to need {plan.needed / 1e9:.1f} of {memory / 1e9:.1f} GB"
        )

    def _within_plan(self, request: GenerationRequest, work: Workload) -> GenerationRequest:
        """Plans for a request where that was asked for; gives the request with what the plan changes in
        it."""
        if self._planned_by is not None and (self._planned_by == "blocks" or self._memory is not None):
            plan = self._plan_for(work)
            now = None if self.plan is None else replace(self.plan, stages=())
            if replace(plan, stages=()) == now:
                self.plan = plan
            else:
                self.apply_plan(plan)
        if self.plan is not None and self.plan.tiled:
            return replace(request, tiled=True)
        return request

    def _plan_for(self, work: Workload) -> Plan:
        sizes = self.sizes()
        if self._planned_by == "blocks":
            if self._memory is None:
                return predict(sizes, work, Plan("blocks", 0), self.trims)
            return fit_blocks(sizes, work, self._memory, Plan("blocks", 0), self.trims)
        assert self._memory is not None
        plan = choose_plan(sizes, work, self._memory, self.trims)
        if plan is None:
            least = smallest_plan(sizes, work, self.trims).needed
            raise OutOfMemoryError(
                f"{work.width}×{work.height}, batch {work.batch}, needs at least {least / 1e9:.1f} GB by any "
                f"plan, and {self._memory / 1e9:.1f} GB are there; take a smaller resolution or batch"
            )
        return plan

    def _place(self, mode: str, target: torch.device | None) -> None:
        self._release_encoders = mode == "encoders"
        if mode == "model":
            if target is None or target.type == "cpu":
                raise DeviceError("offload 'model' needs a GPU to compute on; on the CPU leave it out")
            self.enable_model_cpu_offload(device=target)
            return
        if target is not None:
            self.to(target)
        if self._release_encoders:
            self.components["text_encoder"].to("cpu")
            self.components["clip_model"].to("cpu")

    def _stage_blocks(self, resident: int) -> None:
        target = self._target or torch.device("cpu")
        on_host = "tables" in self.trims
        self._staged = stage_components(self.components, target, resident=resident, tables_on_host=on_host)

    def _cut(self, plan: Plan) -> None:
        cut_into_chunks(self.components["transformer"], plan.chunk if "chunks" in self.trims else None)

    @contextmanager
    def _unstaged(self) -> Iterator[None]:
        """As long as it lasts, streamed weights are all in host memory and may change."""
        if self._staged is None or self.plan is None:
            yield
            return
        self._staged.detach()
        self._staged = None
        try:
            yield
        finally:
            self._stage_blocks(self.plan.resident or 0)

    def _clear(self, target: torch.device | None) -> None:
        self.remove_all_hooks()
        if self.plan is not None:
            cut_into_chunks(self.components["transformer"], None)
            self.guidance_in_one_batch = None
        self.plan, self._planned_by, self._memory = None, None, None
        self._target, self._release_encoders = target, False

    def remove_all_hooks(self) -> None:
        """Undo every kind of offloading."""
        if self._staged is not None:
            self._staged.detach()
            self._staged = None
        super().remove_all_hooks()

    def maybe_free_model_hooks(self) -> None:
        """After a picture: what comes and goes leaves the device."""
        super().maybe_free_model_hooks()
        if self._staged is not None:
            self._staged.release()


def _as_dict(config: Any) -> dict[str, Any]:
    return config.to_dict() if hasattr(config, "to_dict") else dict(config)
