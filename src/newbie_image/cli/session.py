"""What is set in the loop: the same settings as the options, changed by `:commands` while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from newbie_image.cli import options
from newbie_image.cli.lora import LoraChoice
from newbie_image.cli.options import ModelChoice
from newbie_image.cli.preview import PROTOCOLS
from newbie_image.errors import RequestError
from newbie_image.request import GRIDS, LONG_PROMPTS, MAX_SEED, TEXT_FORMS, GenerationRequest


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise RequestError(f"{text!r} is not a whole number") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise RequestError(f"{text!r} is not a number") from None


def _switch(text: str) -> bool:
    if text.lower() in ("", "on", "yes", "true"):
        return True
    if text.lower() in ("off", "no", "false"):
        return False
    raise RequestError(f"{text!r} is neither on nor off")


@dataclass(frozen=True)
class Setting:
    """One setting of the loop.

    Args:
        value: what may be given, for `:help`.
        help: what it does.
        read: its value from a text.
        names: the fields of :class:`GenerationRequest` or :class:`ModelChoice` that it sets.
    """

    value: str
    help: str
    read: Callable[[str], Any]
    names: tuple[str, ...]


PICTURE_SETTINGS: Final = {
    "steps": Setting("N", "intervals of the time grid", _whole, ("steps",)),
    "cfg": Setting("X", "guidance scale; 1 switches it off", _number, ("guidance_scale",)),
    "seed": Setting("N|random", "the seed", options.read_seed, ("seed",)),
    "resolution": Setting("WxH", "pixels, multiples of 16", options.read_resolution, ("width", "height")),
    "negative": Setting("TEXT", "what to steer away from", str, ("negative_prompt",)),
    "sampler": Setting("NAME", "solver of the flow", str, ("sampler",)),
    "shift": Setting("X", "time shift", _number, ("shift",)),
    "grid": Setting("|".join(GRIDS), "how times are spread before the shift", str, ("grid",)),
    "cfg-trunc": Setting("X", "guide only while t is below this", _number, ("cfg_truncation",)),
    "cfg-renorm": Setting("X", "limit of the guided velocity's norm; 0 is off", _number, ("cfg_renorm",)),
    "preset": Setting("NAME", "named settings of the bundle", str, ("preset",)),
    "count": Setting("N", "pictures a prompt", _whole, ("count",)),
    "tiled": Setting("on|off", "decode in tiles, for large pictures", _switch, ("tiled",)),
    "decode": Setting("NAME", "decode stage: plain, edges, or a package's", str, ("decode",)),
    "text-form": Setting("|".join(TEXT_FORMS), "the encoders' text: as typed, or flat", str, ("text_form",)),
    "binding": Setting("auto|off|full|…", "how characters are kept apart", str, ("binding",)),
    "long-prompt": Setting(
        "|".join(LONG_PROMPTS), "what becomes of a prompt beyond an encoder's limit", str, ("long_prompt",)
    ),
    "tolerant": Setting("on|off", "repair broken prompts", _switch, ("tolerant",)),
}
MODEL_SETTINGS: Final = {
    "model": Setting("NAME|PATH", "the bundle", str, ("model",)),
    "vae": Setting("NAME|PATH", "another autoencoder", str, ("vae",)),
    "transformer": Setting("PATH", "the transformer from elsewhere", str, ("transformer",)),
    "text-encoder": Setting("PATH", "Gemma 3 from elsewhere", str, ("text_encoder",)),
    "clip-model": Setting("PATH", "Jina CLIP v2 from elsewhere", str, ("clip_model",)),
    "device": Setting("auto|cuda|mps|cpu", "where to run", str, ("device",)),
    "dtype": Setting("auto|bf16|fp16|fp32", "number format", str, ("dtype",)),
    "attention": Setting("auto|sdpa|flash|math", "attention kernel", str, ("attention",)),
    "offload": Setting(
        "[none|encoders|model|blocks|auto]",
        "what waits outside the device",
        options.read_offload,
        ("offload",),
    ),
    "quantise": Setting("none|fp8|int8|int4", "format of the transformer's matrices", str, ("quantise",)),
    "quantise-encoders": Setting(
        "none|fp8|int8|int4", "format of the text encoders' matrices", str, ("quantise_encoders",)
    ),
    "trims": Setting("all|none|NAME,…", "work that is left out because it changes nothing", str, ("trims",)),
    "vram": Setting("SIZE", "memory that :offload auto and blocks plan for", str, ("vram",)),
}
_MAY_BE_NONE: Final = ("vae", "transformer", "text-encoder", "clip-model", "vram")
_BLANK: Final = GenerationRequest("")
_DEFAULT_WORDS: Final = ("default", "none")


@dataclass
class Session:
    """The settings of the loop as they are now.

    Args:
        choice: the model and where it runs.
        request: the settings of the next picture; its prompt is not used.
        fixed_seed: None while each picture draws a new seed.
        out: folder of the pictures.
        preview: how pictures are shown, one of :data:`newbie_image.cli.preview.PROTOCOLS`.
        loras: the adapters on the model, in order.
        warnings_as_errors: draw nothing where there is a warning about the prompt.
        show_regions: also write each picture with its characters' regions.
    """

    choice: ModelChoice = field(default_factory=ModelChoice)
    request: GenerationRequest = _BLANK
    fixed_seed: int | None = None
    out: str = "outputs"
    preview: str = "off"
    loras: tuple[LoraChoice, ...] = ()
    warnings_as_errors: bool = False
    show_regions: bool = False

    def change(self, name: str, text: str) -> bool:
        """Change a setting by its name; true when the model has to be loaded again.

        Raises:
            RequestError, DeviceError: the value is not allowed; nothing was changed.
        """
        if name in MODEL_SETTINGS:
            setting = MODEL_SETTINGS[name]
            open_ = name in _MAY_BE_NONE and text in ("", *_DEFAULT_WORDS)
            value = None if open_ else setting.read(text)
            before, self.choice = self.choice, replace(self.choice, **{setting.names[0]: value})
            return self.choice != before
        if name == "seed":
            self.fixed_seed = None if text.strip().lower() == "random" else options.read_seed(text)
        elif name == "out":
            self.out = text or "outputs"
        elif name == "warnings-as-errors":
            self.warnings_as_errors = _switch(text)
        elif name == "show-regions":
            self.show_regions = _switch(text)
        elif name == "preview":
            if text not in PROTOCOLS:
                raise RequestError(f"unknown preview {text!r}; choose one of {', '.join(PROTOCOLS)}")
            self.preview = text
        else:
            self._change_picture(name, text)
        return False

    def _change_picture(self, name: str, text: str) -> None:
        setting = PICTURE_SETTINGS[name]
        if text in _DEFAULT_WORDS:
            values = {field_name: getattr(_BLANK, field_name) for field_name in setting.names}
        else:
            try:
                read = setting.read(text)
            except RequestError as error:
                raise RequestError(f"{error}; give :{name} {setting.value}") from None
            values = dict(zip(setting.names, read if len(setting.names) > 1 else (read,), strict=True))
        self.request = replace(self.request, **values)

    def next_request(self, prompt: str) -> GenerationRequest:
        """The request for a prompt, with a new seed unless one was fixed."""
        seed = options.read_seed("random") if self.fixed_seed is None else self.fixed_seed
        if seed + self.request.count - 1 > MAX_SEED:
            raise RequestError(
                f"seed {seed} leaves no room for {self.request.count} pictures; give a smaller one"
            )
        return replace(self.request, prompt=prompt, seed=seed)

    def describe(self, defaults: Any = None) -> list[tuple[str, str]]:
        """Each setting with its value; what is open is shown with the bundle's default."""
        rows = []
        for name, setting in PICTURE_SETTINGS.items():
            values = [getattr(self.request, field_name) for field_name in setting.names]
            if name == "seed":
                shown = "random" if self.fixed_seed is None else str(self.fixed_seed)
            elif values[0] is None and defaults is not None and hasattr(defaults, setting.names[0]):
                shown = (
                    "x".join(f"{getattr(defaults, field_name)}" for field_name in setting.names)
                    + " (default)"
                )
            else:
                shown = "x".join("none" if value in (None, "") else str(value) for value in values)
            rows.append((name, shown))
        for name, setting in MODEL_SETTINGS.items():
            unset = "the device's" if name == "vram" else "the bundle's"
            rows.append((name, str(getattr(self.choice, setting.names[0]) or unset)))
        adapters = ", ".join(f"{lora.name or lora.path.name}:{lora.scale:g}" for lora in self.loras)
        rows += [("lora", adapters or "none"), ("out", self.out), ("preview", self.preview)]
        rows.append(("warnings-as-errors", str(self.warnings_as_errors)))
        return [*rows, ("show-regions", str(self.show_regions))]

    def toolbar(self, defaults: Any = None) -> str:
        """The settings that change most, in one line."""
        rows = dict(self.describe(defaults))
        shown = ("model", "resolution", "steps", "cfg", "seed")
        return "  ".join(f"{name} {rows[name].removesuffix(' (default)')}" for name in shown) + "   :help"
