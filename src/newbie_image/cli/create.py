"""The loop behind `newbie create` and create.py: the model stays loaded, prompts come one after another."""

from __future__ import annotations

import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Final

import typer

from newbie_image.cli import lora as adapters
from newbie_image.cli import options
from newbie_image.cli.entry import Entry, PipedEntry, TerminalEntry, is_command
from newbie_image.cli.messages import say_error, say_note, say_warnings
from newbie_image.cli.session import MODEL_SETTINGS, PICTURE_SETTINGS, Session
from newbie_image.errors import NewbieError, RequestError
from newbie_image.request import GenerationRequest

if TYPE_CHECKING:
    from newbie_image.cli.drawing import Drawn
    from newbie_image.cli.loading import LoadedModel

create_app = typer.Typer(add_completion=False)

ACTIONS: Final = {
    "lora": "[FILE[:SCALE]|NAME:SCALE|remove NAME|none] list adapters, put on, scale, take off one or all",
    "again": "draw the last prompt again, with the settings as they are now",
    "weight": "TAG|PATH X [STEP] weigh a tag of the last prompt, draw with its seed, from STEP (1, 2, …) on",
    "save": "[FILE.png|FOLDER/] write the last pictures once more, where you want them",
    "settings": "show what is set",
    "help": "show this",
    "quit": "leave (also Ctrl-D, or Ctrl-C twice)",
}
_OTHER_NAMES: Final = {
    "q": "quit",
    "exit": "quit",
    "h": "help",
    "?": "help",
    "set": "settings",
    "size": "resolution",
}
_PLACES: Final = {
    "out": "FOLDER",
    "preview": "kitty|iterm|sixel|blocks|off",
    "warnings-as-errors": "on|off",
    "show-regions": "on|off",
}


@create_app.command(cls=options.OffloadCommand)
def create(
    steps: options.StepsOption = None,
    cfg: options.CfgOption = None,
    seed: options.SeedOption = "random",
    resolution: options.ResolutionOption = None,
    negative: options.NegativeOption = "",
    sampler: options.SamplerOption = None,
    shift: options.ShiftOption = None,
    grid: options.GridOption = None,
    cfg_trunc: options.CfgTruncationOption = None,
    cfg_renorm: options.CfgRenormOption = None,
    preset: options.PresetOption = None,
    tolerant: options.TolerantOption = False,
    warnings_as_errors: options.WarningsAsErrorsOption = False,
    text_form: options.TextFormOption = "typed",
    binding: options.BindingOption = "auto",
    long_prompt: options.LongPromptOption = "cut",
    tiled: options.TiledOption = False,
    decode: options.DecodeOption = None,
    count: options.CountOption = 1,
    show_regions: options.ShowRegionsOption = False,
    out: Annotated[
        str,
        typer.Option(
            "--out", "-o", metavar="FOLDER", help="Where the pictures go.", rich_help_panel="Output"
        ),
    ] = "outputs",
    model: options.ModelOption = None,
    device: options.DeviceOption = "auto",
    dtype: options.DtypeOption = "auto",
    attention: options.AttentionOption = "auto",
    offload: options.OffloadOption = "none",
    vram: options.VramOption = None,
    vae: options.VaeOption = None,
    transformer: options.TransformerOption = None,
    text_encoder: options.TextEncoderOption = None,
    clip_model: options.ClipModelOption = None,
    quantise: options.QuantiseOption = "none",
    quantise_encoders: options.QuantiseEncodersOption = "none",
    trims: options.TrimsOption = "all",
    lora: adapters.LoraOption = None,
) -> None:
    """Draw one prompt after another; the model stays loaded. Each option is also a :command in the loop."""
    from newbie_image.cli.preview import find_protocol

    width, height = options.read_resolution(resolution) if resolution else (None, None)
    session = Session(
        choice=options.ModelChoice(
            options.read_model(model, transformer),
            device,
            dtype,
            attention,
            options.read_offload(offload),
            vae,
            vram,
            transformer,
            text_encoder,
            clip_model,
            quantise,
            quantise_encoders,
            trims,
        ),
        request=GenerationRequest(
            "",
            negative_prompt=negative,
            width=width,
            height=height,
            steps=steps,
            guidance_scale=cfg,
            cfg_truncation=cfg_trunc,
            cfg_renorm=cfg_renorm,
            sampler=sampler,
            shift=shift,
            grid=grid,
            count=count,
            preset=preset,
            tolerant=tolerant,
            text_form=text_form,
            binding=binding,
            long_prompt=long_prompt,
            tiled=tiled,
            decode=decode,
        ),
        out=out,
        preview=find_protocol(),
        loras=adapters.read_loras(lora),
        warnings_as_errors=warnings_as_errors,
        show_regions=show_regions,
    )
    session.change("seed", seed)
    loop = Loop(session)
    if not loop.run():
        raise typer.Exit(2)


class Loop:
    """Reads prompts and commands until there are no more; a mistake never ends it."""

    def __init__(self, session: Session, entry: Entry | None = None) -> None:
        self.session = session
        self._at_terminal = entry is None and sys.stdin.isatty()
        self._entry = entry
        self._loaded: LoadedModel | None = None
        self._stale = False
        self._drawn: list[Drawn] = []
        self._prompt: str | None = None
        self._stopped = False

    def run(self) -> bool:
        """Run until the end of the input; false when a pipe's prompt or command failed.

        Raises:
            NewbieError: the model cannot be loaded at the start.
        """
        self._load()
        entry = self._entry or (self._terminal() if self._at_terminal else PipedEntry())
        clean, asked_to_leave = True, False
        while True:
            try:
                text = entry.read()
                asked_to_leave = False
                if text is None:
                    break
                if self._answer(text.strip("\n")) == "quit":
                    break
                asked_to_leave = self._stopped
            except NewbieError as error:
                say_error(error)
                clean = False
            except _Leave:
                break
            except KeyboardInterrupt:
                if not self._at_terminal:
                    raise
                if asked_to_leave or self._stopped:  # the second may come before the next prompt is there
                    break
                asked_to_leave = True
                say_note("Ctrl-C again leaves")
        return clean or self._at_terminal

    def _terminal(self) -> Entry:
        print(
            "An XML prompt ends with an empty line, tags or a sentence with Enter. :help lists the commands."
        )
        commands = [*PICTURE_SETTINGS, *MODEL_SETTINGS, *_PLACES, *ACTIONS]
        return TerminalEntry(commands, lambda: self.session.toolbar(self._defaults()))

    def _defaults(self) -> object:
        return self._loaded.pipeline.settings.defaults if self._loaded else None

    def _load(self) -> LoadedModel:
        """The model, loaded again only after a setting of it was changed."""
        if self._loaded is None or self._stale:
            from newbie_image.cli.loading import load_model

            self._loaded = None  # the old one's memory is free before the new one needs it
            self._loaded = load_model(self.session.choice, self.session.loras)
            self.session.loras = self._loaded.loras
            say_warnings(self._loaded.warnings)
            self._stale = False
            say_note(f"{self._loaded.name} loaded in {self._loaded.seconds:.1f} s on {self._loaded.reason}")
        return self._loaded

    def _answer(self, text: str) -> str | None:
        self._stopped = False
        if not is_command(text):
            return self._draw(text)
        name, _, rest = text.strip()[1:].partition(" ")
        name, rest = name.lower().replace("_", "-"), rest.strip()
        name = _OTHER_NAMES.get(name, name)
        if name in PICTURE_SETTINGS or name in MODEL_SETTINGS or name in _PLACES:
            return self._set(name, rest)
        match name:
            case "again":
                if self._prompt is None:
                    raise RequestError("there is no prompt yet; give one first")
                return self._draw(self._prompt)
            case "weight":
                return self._weigh(rest)
            case "save":
                return self._save(rest or None)
            case "lora":
                return self._lora(rest)
            case "settings":
                for row in self.session.describe(self._defaults()):
                    print(f"  :{row[0]:<11} {row[1]}")
            case "help":
                print("\n".join(help_lines()))
            case "quit":
                return "quit"
            case _:
                raise RequestError(f"unknown command :{name}; :help lists what there is")
        return None

    def _set(self, name: str, text: str) -> None:
        if not text and name not in ("offload", "tolerant", "tiled", "warnings-as-errors", "show-regions"):
            print(f"{name} {dict(self.session.describe(self._defaults()))[name]}")
            return
        before = self.session.choice
        if self.session.change(name, text):
            self._stale = True
            try:
                self._load()
            except NewbieError:
                self.session.choice = before
                raise
        print(f"{name} {dict(self.session.describe(self._defaults()))[name]}")

    def _lora(self, text: str) -> None:
        pipeline = self._load().pipeline
        self.session.loras, said = adapters.change(pipeline, self.session.loras, text)
        say_warnings(said)
        for lora in self.session.loras:
            print(f"lora {lora.name} scale {lora.scale:g} ({lora.path})")
        if not self.session.loras:
            print("lora none")

    def _weigh(self, text: str) -> None:
        """Draw the last prompt and seed again with another weight, from the start or from a step on."""
        if self._prompt is None or not self._drawn:
            raise RequestError("there is no picture yet; give a prompt first")
        changed, step = reweighed(self._prompt, text, tolerant=self.session.request.tolerant)
        seed = self._drawn[0].request.seed
        if step is None or step == 1:
            self._draw(changed, seed)
        else:
            self._draw(self._prompt, seed, ((step - 1, changed),))

    def _draw(self, prompt: str, seed: int | None = None, changes: tuple[tuple[int, str], ...] = ()) -> None:
        from newbie_image.cli.drawing import (
            Stopped,
            check_prompt,
            draw,
            late_remarks,
            split_count,
            summary,
            write_drawn,
            write_regions,
        )
        from newbie_image.cli.preview import draw_preview

        request = replace(self.session.next_request(prompt), changes=changes)
        if seed is not None:
            request = replace(request, seed=seed)
        strict = self.session.warnings_as_errors
        remarks = check_prompt(request, parsers_own=strict)
        self._prompt = prompt
        loaded = self._load()
        if strict:
            late = late_remarks(loaded.pipeline, request)
            say_warnings(late)
            if remarks or late:
                raise RequestError(
                    "nothing was drawn, because warnings count as errors; mend the prompt, "
                    "or say :warnings-as-errors off"
                )
        seeds = list(range(request.seed, request.seed + request.count))
        paths = options.plan_paths(str(Path(self.session.out)) + "/", seeds)
        before, self._drawn = self._drawn, []
        for number, part in enumerate(split_count(request)):
            label = "drawing" if request.count == 1 else f"{number + 1}/{request.count}"
            try:
                with _stopping() as stop:
                    drawn = draw(loaded.pipeline, part, label=label, warn=number == 0, stopped=stop.is_set)
            except NewbieError:
                self._drawn = self._drawn or before
                raise
            except Stopped:
                self._drawn = self._drawn or before
                self._stopped = True
                say_note("stopped; Ctrl-C again leaves")
                return
            self._drawn.append(drawn)
            written = write_drawn(drawn, paths[number : number + 1])
            sys.stdout.write(draw_preview(drawn.pictures[0].image, self.session.preview))  # type: ignore[arg-type]
            print(written[0].path, flush=True)
            for beside in write_regions(drawn, [written[0].path]) if self.session.show_regions else ():
                print(beside, flush=True)
            say_note(f"seed {drawn.pictures[0].seed}, {summary(drawn.seconds)}")

    def _save(self, place: str | None) -> None:
        from newbie_image.cli.drawing import write_drawn

        if not self._drawn:
            raise RequestError("there is no picture yet; give a prompt first")
        seeds = [drawn.request.seed for drawn in self._drawn]
        for drawn, path in zip(self._drawn, options.plan_paths(place, seeds), strict=True):
            print(write_drawn(drawn, [path])[0].path)


def reweighed(text: str, asked: str, *, tolerant: bool) -> tuple[str, int | None]:
    """A prompt with one tag weighed otherwise, and the step, from 1, from which that is to hold.

    Args:
        text: the prompt.
        asked: `TAG X` or `TAG X STEP`; TAG is a tag as it is written, or its path.
        tolerant: as the prompt was read.

    Raises:
        RequestError: not of that form, a weight or step out of range, no such tag, or several.
        PromptError: the prompt cannot be read.
    """
    from newbie_image.prompt import grammar, parse

    number = r"[-+−]?\d*\.?\d+"
    span = f"{grammar.MIN_WEIGHT:g} to {grammar.MAX_WEIGHT:g}"
    form = (
        "give :weight TAG X or :weight TAG X STEP, as in :weight blue_hair 1.5 or :weight blue_hair 0 6 "
        f"(X is {span}, steps count from 1)"
    )
    match = re.fullmatch(rf"(.+?)\s+({number})(?:\s+([1-9]\d*))?", asked.strip())
    if match is None:
        raise RequestError(f":weight {asked!r} is not understood; {form}")
    tag, step = match[1], None if match[3] is None else int(match[3])
    prompt = parse(text, strict=not tolerant)
    found = [each.path for each in prompt.tags if tag in (each.path, each.text)]
    if not found and re.fullmatch(rf".+\s+{number}", tag):
        raise RequestError(f":weight {asked!r}: {match[2]!r} is no step; {form}")
    value = float(match[2].replace("−", "-"))
    if not grammar.MIN_WEIGHT <= value <= grammar.MAX_WEIGHT:
        raise RequestError(
            f":weight {asked!r}: the weight {match[2]} is outside {span}; give one within, 0 to leave "
            "the tag out"
        )
    if len(found) != 1:
        several = (
            f"stands at {', '.join(found)}; give one of these paths" if found else "is not in the prompt"
        )
        raise RequestError(f"tag {tag!r} {several}")
    return prompt.with_weight(found[0], value).source, step


def help_lines() -> list[str]:
    """What `:help` shows."""
    rows = [(f"{name} {setting.value}", setting.help) for name, setting in PICTURE_SETTINGS.items()]
    rows += [(f"{name} {setting.value}", setting.help) for name, setting in MODEL_SETTINGS.items()]
    rows += [(f"{name} {value}", "") for name, value in _PLACES.items()]
    rows += list(ACTIONS.items())
    return [
        "A prompt in XML ends with an empty line, tags or a sentence with Enter.",
        *(f"  :{left:<32} {right}".rstrip() for left, right in rows),
        "A setting without a value shows it; the value `default` is the bundle's own.",
    ]


class _Leave(KeyboardInterrupt):
    """Ctrl-C came a second time while a picture was being drawn."""


@contextmanager
def _stopping() -> Iterator[threading.Event]:
    """While it lasts, the first Ctrl-C asks to stop after the step and the second one leaves at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def interrupted(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise _Leave
        stop.set()

    before = signal.signal(signal.SIGINT, interrupted)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


def main() -> None:
    """What create.py runs."""
    from newbie_image.cli.main import main as newbie

    newbie(["create", *sys.argv[1:]])
