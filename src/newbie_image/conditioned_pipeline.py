"""What a pipeline does with prompts: bind the characters, encode, and make a velocity of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import torch

from newbie_image.binding.binding import Binding
from newbie_image.binding.encoding import bind_prompt, read_bound
from newbie_image.binding.groups import GroupedText, group_tokens
from newbie_image.binding.sight import Sight
from newbie_image.bundle import BundleSettings, TextSettings
from newbie_image.conditioning import conditioned_velocity, guidance_of
from newbie_image.devices import compute_device
from newbie_image.errors import RequestError
from newbie_image.latents import latent_shape
from newbie_image.long_prompts import read_request
from newbie_image.models.rotary_limits import token_grid
from newbie_image.prompt import TextForm, parse
from newbie_image.quantised_pipeline import QuantisedPipeline
from newbie_image.request import GenerationRequest
from newbie_image.sampling.solvers import VelocityFn
from newbie_image.steering import Conditioning, SteeredVelocity
from newbie_image.text import (
    TextFeatures,
    TokenBatch,
    compose,
    compose_negative,
    encode_tokens,
    people_warnings,
)

# What a caption had in training at most; memory is planned for it unless a prompt is longer.
_USUAL_TOKENS = 512


class ConditionedPipeline(QuantisedPipeline):
    """The part of :class:`newbie_image.pipeline.NewbiePipeline` that deals with prompts."""

    settings: BundleSettings
    tokenizer: Any
    clip_tokenizer: Any
    text_encoder: Any
    clip_model: Any
    vae: Any

    def bind(self, request: GenerationRequest) -> tuple[Binding | None, tuple[str, ...]]:
        """What keeps the characters of a request apart, None where nothing does; and remarks on that and on
        their number.
        """
        prompt = parse(request.prompt, strict=not request.tolerant)
        form = cast("TextForm", request.text_form)
        grid = None
        if request.width is not None and request.height is not None:
            size = latent_shape(self.vae, request.width, request.height)[1:]
            grid = token_grid(size, self.transformer.patch_size, self.transformer.axes_lens)
        settings = self._text_settings(request)
        binding, remarks = bind_prompt(
            request.binding, prompt, settings, self.tokenizer, form, grid=grid, steps=request.steps
        )
        return binding, (*people_warnings(prompt, settings), *remarks)

    def encode(self, request: GenerationRequest, binding: Binding | None = None) -> TextFeatures:
        """Encode a request's prompt and, where guidance will use it, its negative prompt.

        Args:
            request: completed.
            binding: of :meth:`bind`; None encodes the prompt whole.

        Returns:
            Features of one or two texts, the prompt first, on the transformer's device and in its dtype.
        """
        batch, groups = self.read_texts(request, binding)
        features = self.encode_texts(batch, guidance_of(request).active(0.0))
        return replace(features, groups=groups).to(self._device(), self.transformer.dtype)

    def read_texts(
        self, request: GenerationRequest, binding: Binding | None = None
    ) -> tuple[TokenBatch, torch.Tensor | None]:
        """What both encoders read of a request, on the CPU, and the groups (texts, length) that the
        transformer keeps apart, None where it keeps none. Arguments as of :meth:`encode`.
        """
        settings = self._text_settings(request)
        guided = guidance_of(request).active(0.0)
        tokenizers = (self.tokenizer, self.clip_tokenizer)
        if binding is None:
            return read_request(request, settings, *tokenizers, guided=guided), None
        return read_bound(binding, request, settings, *tokenizers, guided=guided)

    def encode_texts(self, batch: TokenBatch, negatives: bool) -> TextFeatures:
        """Features of tokens, where and as the encoders give them.

        Args:
            batch: of :meth:`read_texts`.
            negatives: whether the second half of its texts are negative prompts.
        """
        if self._release_encoders:
            device = self._device()
            self.text_encoder.to(device)
            self.clip_model.to(device)
        features = encode_tokens(batch, self.text_encoder, self.clip_model, negatives=negatives)
        if self._release_encoders:
            self.text_encoder.to("cpu")
            self.clip_model.to("cpu")
        return features

    def planned_tokens(self, request: GenerationRequest) -> int:
        """The caption's length that a completed request's memory is planned for.

        What training had, or for a longer prompt all that the model takes: in two steps, so that prompts of
        many lengths share a plan.

        Raises:
            PromptError: a prompt cannot be read.
        """
        settings = self._text_settings(request)
        usual = min(settings.trained_tokens or settings.max_tokens, settings.max_tokens, _USUAL_TOKENS)
        strict, form = not request.tolerant, cast("TextForm", request.text_form)
        prompts = [request.prompt, *(prompt for _, prompt in request.changes)]
        texts = [compose(parse(prompt, strict=strict), settings, form=form) for prompt in prompts]
        if guidance_of(request).active(0.0):
            negative = parse(request.negative_prompt, strict=strict)
            texts.append(compose_negative(negative, settings, form=form))
        longest = max(len(self.tokenizer(text.tokens_text, verbose=False)["input_ids"]) for text in texts)
        return usual if longest <= usual else settings.max_tokens

    def words(self, request: GenerationRequest) -> GroupedText:
        """The prompt's tokens as the transformer reads them, with their characters and tags: what a
        :class:`Sight` has collected is by these tokens.

        Args:
            request: completed.

        Raises:
            RequestError: more tokens than the bundle takes; of a text that is cut or read by group nothing is
                known by tag.
        """
        binding, _ = self.bind(request)
        if binding is not None:
            return binding.text
        prompt = parse(request.prompt, strict=not request.tolerant)
        form = cast("TextForm", request.text_form)
        return group_tokens(prompt, self._text_settings(request), self.tokenizer, apart=False, form=form)

    def condition(self, request: GenerationRequest) -> Conditioning:
        """Everything that a completed request's prompt asks for."""
        binding, remarks = self.bind(request)
        features = self.encode(request, binding)
        said = (*(str(report) for report in features.reports), *features.warnings, *remarks)
        return Conditioning(features, binding, said)

    def steered(
        self,
        request: GenerationRequest,
        conditioning: Conditioning,
        pictures: int,
        size: tuple[int, int],
        grid: Sequence[float],
        times: Sequence[float],
        sights: Sequence[Sight] = (),
    ) -> SteeredVelocity:
        """The velocity of a run of `pictures` pictures of `size` (height/8, width/8) along `grid`.

        Args:
            times: when the solver will ask.
            sights: collectors of what the pictures read.
        """

        def build(now: Conditioning, looking: Sequence[Sight]) -> VelocityFn:
            return conditioned_velocity(
                self.transformer,
                now.features.expand(pictures),
                guidance_of(request),
                size,
                times=times,
                in_one_batch=self.guidance_in_one_batch,
                binding=now.binding,
                grid=grid,
                sights=looking,
                trims=self.trims,
            )

        image_grid = token_grid(size, self.transformer.patch_size, self.transformer.axes_lens)
        return SteeredVelocity(conditioning, build, grid, image_grid, sights)

    def _text_settings(self, request: GenerationRequest) -> TextSettings:
        """The bundle's, with the request's preset, within the transformer's rotary table."""
        settings = self.settings.text_for(request.preset)
        room = self.transformer.axes_lens[0] - 1
        return settings.model_copy(update={"max_tokens": min(room, settings.max_tokens)})

    def _device(self) -> torch.device:
        return compute_device(self.transformer) or torch.device("cpu")


def check_changes(request: GenerationRequest) -> None:
    """Refuses prompts of later steps that could not act, before any work is done.

    Raises:
        PromptError: one cannot be read.
        RequestError: one of a step that the run does not have.
    """
    steps = cast("int", request.steps)
    for at, prompt in request.changes:
        parse(prompt, strict=not request.tolerant)
        if at >= steps:
            raise RequestError(
                f"the prompt is to change from step {at + 1} on, but the picture has {steps}; give an "
                "earlier step, or more steps"
            )
