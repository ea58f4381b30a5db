"""The part of the pipeline that keeps weights in fewer bits, and what cannot be done to such weights."""

from __future__ import annotations

from importlib import metadata
from typing import Any, Self

import torch

from newbie_image.adapted_pipeline import AdaptedPipeline
from newbie_image.devices import cast_module
from newbie_image.errors import DeviceError, RequestError
from newbie_image.memory.quantisation import check_model, check_quantisation, quantisation_of, quantise_model
from newbie_image.memory.sizes import ModelSizes


class QuantisedPipeline(AdaptedPipeline):
    """A pipeline whose transformer and text encoders may have quantised weights.

    They move under every kind of offloading and take adapters beside them. They cannot be cast, written, or
    have adapters fused into them, because what was rounded away is not there any more.
    """

    @property
    def quantisation(self) -> str:
        """Format of the transformer's matrices: none, fp8, int8 or int4."""
        return quantisation_of(self.components["transformer"])

    @property
    def encoder_quantisation(self) -> str:
        """Format of both text encoders' matrices."""
        return quantisation_of(self.components["text_encoder"])

    @property
    def quantised_with(self) -> dict[str, str]:
        """What a picture's record says of it; empty where nothing is quantised."""
        kinds = {"quantise": self.quantisation, "quantise_encoders": self.encoder_quantisation}
        said = {name: kind for name, kind in kinds.items() if kind != "none"}
        return {**said, "torchao": metadata.version("torchao")} if said else {}

    def quantise(self, transformer: str = "none", encoders: str = "none") -> None:
        """Quantise weights in place; what was rounded away comes back only by loading the model again.

        Args:
            transformer: ``none``, ``fp8``, ``int8`` or ``int4`` for the matrices of its blocks.
            encoders: the same for the layers of both text encoders.

        Raises:
            RequestError: an unknown format, weights that are quantised already or hold a fused adapter, rows
                that the format cannot divide, or a picture is being drawn.
            DeviceError: the format does not work on this device or with this dtype.
            MissingDependencyError: torchao is not installed.
        """
        check_quantisation(transformer)
        check_quantisation(encoders)
        if transformer == encoders == "none":
            return
        with self._adapters_at_rest() as stack:
            if stack.fused and transformer != "none":
                raise RequestError(
                    "adapters are fused into the weights, from which they could not be taken off again; "
                    "unfuse_lora() first, or write them in for good with `newbie weights merge`"
                )
            kinds = {"transformer": transformer, "text_encoder": encoders, "clip_model": encoders}
            for act in (check_model, quantise_model):  # all or nothing
                for name, kind in kinds.items():
                    act(self.components[name], kind)

    def sizes(self) -> ModelSizes:
        """Numbers of weights of the components and their formats."""
        return super().sizes().quantised(self.quantisation, self.encoder_quantisation)

    def check_savable(self) -> None:
        """Refuse to write weights that no layout has a place for, or of which it could not be said what they
        are.

        Raises:
            RequestError: quantised weights, or adapters that run beside the weights.
        """
        if self.quantised_with:
            raise RequestError(
                "the weights are quantised, which no layout here holds; save the model before, and quantise "
                "it when it is loaded"
            )
        super().check_savable()

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move and cast, as diffusers' pipelines do: ``to("cuda")``, ``to(torch.bfloat16)``, ``to(device,
        dtype)``.

        Raises:
            DeviceError: a device that this machine does not have.
            RequestError: another dtype for weights that are quantised.
        """
        kwargs.setdefault("silence_dtype_warnings", True)
        dtype = kwargs.pop("dtype", None)
        rest = [argument for argument in args if not isinstance(argument, torch.dtype)]
        dtype = dtype or next((argument for argument in args if isinstance(argument, torch.dtype)), None)
        if dtype is not None:
            self._cast(dtype)
        try:
            super().to(*rest, **kwargs)
        except (AssertionError, RuntimeError) as error:
            if "CUDA" in str(error) and not torch.cuda.is_available():
                raise DeviceError(
                    f"cannot move to {rest or kwargs.get('device')}: torch sees no CUDA device"
                ) from None
            raise
        return self

    def _cast(self, dtype: torch.dtype) -> None:
        if self.quantised_with and dtype != self.components["transformer"].dtype:
            raise RequestError("quantised weights cannot be cast; load the model again with torch_dtype=…")
        for component in self.components.values():
            cast_module(component, dtype)
        self.refresh_adapters()
