"""The way from a request to pictures: encode, walk the time grid, decode.

:meth:`NewbiePipeline.stream` is the one generator underneath everything: progress bars, previews, servers and
:meth:`NewbiePipeline.__call__` read its events. Closing it between two steps cancels the picture and leaves
no memory behind.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from diffusers.utils.outputs import BaseOutput
from torch import Tensor

from newbie_image.binding.sight import Sight
from newbie_image.bundle import BundleSettings, content_hash, write_settings
from newbie_image.checkpoints.components import check_fit
from newbie_image.checkpoints.files import writing_folder
from newbie_image.checkpoints.opening import open_model
from newbie_image.conditioned_pipeline import ConditionedPipeline, check_changes
from newbie_image.decode_stages import DecodeStage, find_stage, run_stage, stage_name
from newbie_image.decoding import asks_for_tiles, decode_latents, to_images
from newbie_image.devices import bring_to_device, dtype_name
from newbie_image.errors import OutOfMemoryError, RequestError
from newbie_image.latents import check_noise, check_noise_count, drawn_noise, latent_shape, seeded_noise
from newbie_image.memory.trims import TRIMS, trims_text
from newbie_image.memory_use import is_out_of_memory, memory_advice, peak_memory, reset_peak_memory
from newbie_image.models.attention import check_backend
from newbie_image.models.rotary_limits import token_grid
from newbie_image.prompt import parse
from newbie_image.request import (
    MAX_SEED,
    Event,
    GeneratedImage,
    GenerationRequest,
    PictureDone,
    StepDone,
    TextEncoded,
    UsedRegions,
)
from newbie_image.sampling import check_finite, make_solver, time_grid

Reply = Tensor | str | None
"""Other latents to go on from, or another prompt to go on under."""


@dataclass
class NewbiePipelineOutput(BaseOutput):
    """What :meth:`NewbiePipeline.__call__` returns.

    Args:
        images: by ``output_type`` a list of PIL pictures (pil), an array (count, height, width, 3) (np), or a
            tensor (count, 3, height, width) (pt) or (count, channels, height/8, width/8) (latent).
    """

    images: Any


class NewbiePipeline(ConditionedPipeline):
    """A model's components together.

    Args:
        transformer: :class:`newbie_image.models.next_dit.NextDiT`.
        text_encoder, tokenizer: Gemma's side.
        clip_model, clip_tokenizer: Jina's side.
        vae: a diffusers autoencoder; `decode_stage` may be set to what decodes with it (docs/vae.md).
        scheduler: kept for the standard layout; the time grid and the solvers are the project's own.

    Raises:
        CheckpointError: components that do not belong together, and which.
    """

    model_cpu_offload_seq = "text_encoder->clip_model->transformer->vae"
    _callback_tensor_inputs = ["latents"]  # noqa: RUF012 (diffusers reads a list)

    def __init__(
        self,
        transformer: Any,
        text_encoder: Any,
        tokenizer: Any,
        clip_model: Any,
        clip_tokenizer: Any,
        vae: Any,
        scheduler: Any,
    ) -> None:
        super().__init__()
        self.register_modules(
            transformer=transformer,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            clip_model=clip_model,
            clip_tokenizer=clip_tokenizer,
            vae=vae,
            scheduler=scheduler,
        )
        check_fit(self.components)
        self.settings = BundleSettings(name="unnamed")
        self.vae_settings = self.settings.vae
        self.vae_name: str | None = None
        self.vae_hash: str | None = None
        self.part_hashes: Mapping[str, str] = {}
        self.bundle_folder: Path | None = None
        self.decode_stage: DecodeStage = decode_latents
        self._attention = "auto"
        self._content_hash: str | None = None

    @classmethod
    def from_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        torch_dtype: torch.dtype | None = None,
        vae: Any = None,
        parts: Mapping[str, str | Path] | None = None,
        attention: str = "auto",
        quantisation: str = "none",
        encoder_quantisation: str = "none",
    ) -> NewbiePipeline:
        """Load a model, strictly, onto the CPU. Nothing is downloaded and no code beside the weights is run.

        Args:
            pretrained_model_name_or_path: an embedded model's name (``nano``), or a folder or file in any
                layout that is known: a bundle, the published folder, ComfyUI's files, diffusers', a training
                checkpoint.
            torch_dtype: of the models' weights; None keeps the files'.
            vae: another autoencoder: a name in the registry (docs/vae.md), its folder or file, a model's
                folder or name, or the object itself.
            parts: ``transformer``, ``text_encoder``, ``clip_model`` or ``vae`` → file or folder elsewhere.
            attention: ``auto``, ``sdpa``, ``flash`` or ``math``.
            quantisation: of the transformer's blocks: ``none``, ``fp8``, ``int8`` or ``int4``.
            encoder_quantisation: the same for the layers of both text encoders.

        Raises:
            CheckpointError, ConfigError: one line that names what is wrong.
            RequestError, DeviceError, MissingDependencyError: a quantisation that cannot be.
        """
        opened = open_model(pretrained_model_name_or_path, torch_dtype, vae=vae, parts=parts)
        pipeline = cls(**opened.components)
        pipeline.settings, pipeline.vae_settings = opened.settings, opened.vae_settings
        pipeline.vae_name, pipeline.vae_hash = opened.vae_name, opened.vae_hash
        pipeline.bundle_folder, pipeline.part_hashes = opened.path, opened.part_hashes
        pipeline.attention = attention
        pipeline.quantise(quantisation, encoder_quantisation)
        return pipeline

    def save_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, save_directory: str | Path, *, max_shard_size: int | str | None = None
    ) -> None:
        """Write the bundle: every component, ``model_index.json`` and ``newbie.json``.

        Args:
            save_directory: made where it is missing.
            max_shard_size: largest weight file, as ``"15MB"`` or bytes.

        Raises:
            RequestError: quantised weights, or adapters that run beside the weights; fused ones are written,
                and named in the bundle's name.
            OutputError: the folder cannot be written, or the disk is full.
        """
        self.check_savable()
        name = "+".join([self.settings.name, *self.get_active_adapters()])
        settings = self.settings.model_copy(update={"vae": self.vae_settings, "name": name})
        with writing_folder(Path(save_directory)):
            super().save_pretrained(str(save_directory), max_shard_size=max_shard_size)
            write_settings(Path(save_directory), settings)

    @property
    def attention(self) -> str:
        """The attention backend asked for."""
        return self._attention

    @attention.setter
    def attention(self, backend: str) -> None:
        self._attention = check_backend(backend)

    @property
    def content_hash(self) -> str | None:
        """The bundle's :func:`newbie_image.bundle.content_hash`, read once; None without a folder."""
        if self._content_hash is None and self.bundle_folder is not None:
            self._content_hash = content_hash(self.bundle_folder)
        return self._content_hash

    def complete(self, request: GenerationRequest) -> GenerationRequest:
        """The request with everything filled that it leaves to the bundle."""
        return self.settings.complete(request)

    def stream(
        self,
        request: GenerationRequest,
        *,
        latents: Tensor | None = None,
        decode: bool = True,
        sights: Sequence[Sight] = (),
    ) -> Generator[Event, Reply, None]:
        """Make the pictures of a request, telling what happens.

        Close the generator between two events to cancel. A reader that wants the sampling to go on from other
        latents sends them back in answer to a :class:`StepDone`; one that wants it to go on under another
        prompt (another weight, another tag) sends that prompt, which the picture's settings then hold.

        Args:
            request: what is asked for; what it leaves open comes from the bundle.
            latents: (count, channels, height/8, width/8), the noise to begin with instead of the seeds'.
            decode: whether to decode; without, the last event has latents only.
            sights: collectors of which words the pictures read (docs/binding.md).

        Yields:
            One :class:`TextEncoded`, a :class:`StepDone` for each interval of each batch, one
            :class:`PictureDone`; and a further :class:`TextEncoded` before the step from which another prompt
            holds.

        Raises:
            PromptError, RequestError: what was asked for cannot be done.
            NumericsError: NaN or infinity; names the step.
            OutOfMemoryError: says what to change.
        """
        request = self.complete(request)
        request = replace(request, tiled=request.tiled or asks_for_tiles(self.vae))
        if request.seed + request.count - 1 > MAX_SEED:
            raise RequestError(
                f"seed {request.seed} and {request.count} pictures go beyond {MAX_SEED}; lower the seed"
            )
        self._stage(request)  # an unknown one is said before the work
        check_changes(request)
        for sight in sights:
            sight.check(len(self.transformer.layers), cast("int", request.steps))
        token_grid(self._latent_shape(request)[1:], self.transformer.patch_size, self.transformer.axes_lens)
        solver = make_solver(cast("str", request.sampler))
        grid = time_grid(cast("int", request.steps), cast("float", request.shift), cast("str", request.grid))
        work = self.work_of(request, len(solver.asked_times(grid)), self.planned_tokens(request))
        request = self._within_plan(request, work)
        shortage: str | None = None
        self._drawing += 1
        try:
            yield from self._run(request, latents, decode, sights)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            shortage = memory_advice(request, error, self.advice(request, work))
        finally:
            self._drawing -= 1
            self.maybe_free_model_hooks()
        # Raised out here, so that the failed run's tensors are not kept alive by the exception's context.
        if shortage is not None:
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            raise OutOfMemoryError(shortage)

    @torch.no_grad()
    def _run(
        self, request: GenerationRequest, noise: Tensor | None, decode: bool, sights: Sequence[Sight]
    ) -> Generator[Event, Reply, None]:
        seconds = {"text": 0.0, "sampling": 0.0, "decoding": 0.0}
        device = self._device()
        reset_peak_memory(device)
        shape = self._latent_shape(request)
        initial = seeded_noise(request.seed, request.count, shape) if noise is None else noise.float()
        check_noise(initial, (request.count, *shape))

        began = time.perf_counter()
        conditioning = self.condition(request)
        bound = conditioning.binding is not None
        seconds["text"] = time.perf_counter() - began
        said = set(conditioning.warnings)
        yield TextEncoded(conditioning.warnings, seconds["text"])

        # After the text encoders: an offloaded transformer comes in here, and can refuse a backend.
        bring_to_device(self.transformer)
        self.transformer.attention_backend = self._attention
        done: list[Tensor] = []
        regions: list[UsedRegions] = []
        changed_by: list[tuple[tuple[int, str], ...]] = []
        steps = cast("int", request.steps)
        batches = [initial[start : start + request.batch] for start in range(0, request.count, request.batch)]
        for number, batch in enumerate(batches):
            grid = time_grid(steps, cast("float", request.shift), cast("str", request.grid))
            solver = make_solver(cast("str", request.sampler))
            velocity = self.steered(
                request,
                conditioning,
                len(batch),
                (batch.shape[2], batch.shape[3]),
                grid.tolist(),
                solver.asked_times(grid),
                sights,
            )
            walk = solver.run(velocity, batch.to(device), grid)
            reply: Tensor | None = None
            final = batch
            for index in range(steps):
                for changed in (prompt for at, prompt in request.changes if at == index):
                    began = time.perf_counter()
                    now = self.condition(replace(request, prompt=changed))
                    bound = bound or now.binding is not None
                    velocity.take(now)
                    took = time.perf_counter() - began
                    seconds["text"] += took
                    yield TextEncoded(tuple(line for line in now.warnings if line not in said), took)
                    said.update(now.warnings)
                began = time.perf_counter()
                velocity.before_step(index)
                step = next(walk) if reply is None else walk.send(reply)
                # The check waits for the device, which also makes the seconds true.
                check_finite(
                    step.latents, step=index + 1, steps=steps, t=step.t, dtype=self.transformer.dtype
                )
                took = time.perf_counter() - began
                seconds["sampling"] += took
                final = step.latents
                event = StepDone(
                    number * steps + index + 1, len(batches) * steps, step.t, final, step.prediction, took
                )
                answer = yield event
                if isinstance(answer, str) and index + 1 == steps:
                    raise RequestError(f"a prompt came after step {steps}, the last one; send it before")
                if isinstance(answer, str):
                    parse(answer, strict=not request.tolerant)  # a broken one is refused at once
                    earlier = tuple(change for change in request.changes if change[0] <= index)
                    request = replace(request, changes=(*earlier, (index + 1, answer)))
                reply = answer if isinstance(answer, Tensor) else None
                if reply is not None:
                    final = reply.to(device=device, dtype=torch.float32)
            done.append(final)
            changed_by += [request.changes] * len(batch)
            regions += velocity.regions(len(batch))
            del walk, velocity
        latents = torch.cat(done)
        del done

        began = time.perf_counter()
        pixels = None
        if decode:
            stage = self._stage(request)
            pixels = run_stage(stage, latents, self.vae, self.vae_settings, tiled=request.tiled)
        kept = latents.float().cpu()
        used = request if bound else replace(request, binding="off")
        images = () if pixels is None else self._pictures(used, pixels, kept, changed_by)
        seconds["decoding"] = time.perf_counter() - began
        yield PictureDone(images, seconds, peak_memory(device), kept, pixels, tuple(regions))

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str],
        negative_prompt: str | None = None,
        *,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        cfg_truncation: float | None = None,
        cfg_renorm: float | None = None,
        sampler: str | None = None,
        shift: float | None = None,
        preset: str | None = None,
        long_prompt: str = "cut",
        tiled: bool = False,
        num_images_per_prompt: int = 1,
        seed: int = 0,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        latents: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[[Any, int, float, dict[str, Any]], dict[str, Any] | None]
        | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> NewbiePipelineOutput | tuple[Any]:
        """Make pictures, with the signature that diffusers' users expect; what is worth knowing of a prompt
        (an end that was cut off, a repair) comes as a Python warning.

        Args:
            prompt: one prompt or several; pictures come prompt by prompt.
            negative_prompt: one for all; None for an empty one.
            height, width, guidance_scale, cfg_truncation, cfg_renorm, sampler, shift, preset, long_prompt,
                tiled, seed: as in :class:`GenerationRequest`; `vae.enable_tiling()` asks for tiles too.
            num_inference_steps: intervals of the time grid.
            num_images_per_prompt: computed side by side; picture i has seed + i.
            generator: draws the noise instead of the seed; one for all, or one a picture.
            latents: (prompts · num_images_per_prompt, channels, height/8, width/8), the noise itself.
            output_type: ``pil``, ``np``, ``pt`` or ``latent``.
            return_dict: False for a plain tuple.
            callback_on_step_end: called as (pipeline, step from 0, t, {"latents": …}) after each step; may
                give back a dictionary with other latents.
            callback_on_step_end_tensor_inputs: only ``latents`` is there to be had.
        """
        if output_type not in ("pil", "np", "pt", "latent"):
            raise RequestError(f"unknown output_type {output_type!r}; choose one of pil, np, pt, latent")
        unknown = [name for name in callback_on_step_end_tensor_inputs if name != "latents"]
        if unknown:
            raise RequestError(f"callback tensor input {unknown[0]!r} is not known; only 'latents' is")
        prompts: list[Any] = list(prompt) if isinstance(prompt, (list, tuple)) else [prompt]
        count = num_images_per_prompt
        if latents is not None:
            check_noise_count(latents, len(prompts) * count)
        results: list[Any] = []
        for number, text in enumerate(prompts):
            request = GenerationRequest(
                text,
                "" if negative_prompt is None else negative_prompt,
                width=width,
                height=height,
                steps=num_inference_steps,
                guidance_scale=guidance_scale,
                cfg_truncation=cfg_truncation,
                cfg_renorm=cfg_renorm,
                sampler=sampler,
                shift=shift,
                seed=seed,
                count=count,
                preset=preset,
                long_prompt=long_prompt,
                tiled=tiled,
                batch=min(count, 64),
            )
            noise = None if latents is None else latents[number * count : (number + 1) * count]
            if generator is not None and noise is None:
                noise = drawn_noise(generator, number * count, count, self._latent_shape(request))
            done = self._drain(request, noise, output_type != "latent", callback_on_step_end)
            if output_type == "pil":
                results.extend(picture.image for picture in done.images)
            else:
                results.append(done.latents if output_type == "latent" else done.pixels)
        images: Any = results
        if output_type != "pil":
            images = torch.cat(results)
            if output_type == "np":
                images = images.permute(0, 2, 3, 1).numpy()
        return NewbiePipelineOutput(images=images) if return_dict else (images,)

    def _drain(
        self,
        request: GenerationRequest,
        noise: Tensor | None,
        decode: bool,
        callback: Callable[[Any, int, float, dict[str, Any]], dict[str, Any] | None] | None,
    ) -> PictureDone:
        events = self.stream(request, latents=noise, decode=decode)
        reply: Reply = None
        try:
            while True:
                event = next(events) if reply is None else events.send(reply)
                reply = None
                if isinstance(event, TextEncoded):
                    for said in event.warnings:
                        warnings.warn(said, stacklevel=4)  # past _drain, __call__ and its no_grad
                if isinstance(event, PictureDone):
                    return event
                if isinstance(event, StepDone) and callback is not None:
                    answer = callback(self, event.index - 1, event.t, {"latents": event.latents}) or {}
                    changed = answer.get("latents", event.latents)
                    reply = None if changed is event.latents else changed
        finally:
            events.close()

    def _latent_shape(self, request: GenerationRequest) -> tuple[int, int, int]:
        request = self.complete(request)
        return latent_shape(self.vae, cast("int", request.width), cast("int", request.height))

    def _pictures(
        self,
        request: GenerationRequest,
        pixels: Tensor,
        latents: Tensor,
        changes: Sequence[tuple[tuple[int, str], ...]],
    ) -> tuple[GeneratedImage, ...]:
        """The pictures with what each was made with; a reader's prompts reach only the batches after them."""
        base = {
            **asdict(request),
            "bundle": self.settings.name,
            "bundle_hash": self.content_hash,
            "vae": self.vae_name,
            "vae_hash": self.vae_hash,
            **self.part_hashes,
            "decode": stage_name(self._stage(request)),
            "device": str(self._device()),
            "dtype": dtype_name(self.transformer.dtype),
            "attention": self._attention,
            **self.quantised_with,
            **({} if self.trims == TRIMS else {"trims": trims_text(self.trims)}),
            "adapters": self.adapters_at_work,
        }
        return tuple(
            GeneratedImage(
                image, request.seed + i, latents[i], {**base, "seed": request.seed + i, "changes": changes[i]}
            )
            for i, image in enumerate(to_images(pixels))
        )

    def _stage(self, request: GenerationRequest) -> DecodeStage:
        return self.decode_stage if request.decode is None else find_stage(request.decode)
