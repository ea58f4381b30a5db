"""The model card of the embedded bundle, written from what the run logged and what the evaluation
measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from newbie_image.nano.captions import COUNT_WORDS


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _on(run: dict[str, Any]) -> str:
    """The hardware of a run that a later one went on from."""
    return f" ({run['hardware']})" if "hardware" in run else ""


def _minutes(run: dict[str, Any]) -> str:
    minutes = run.get("minutes", 0)
    return f"{minutes:.0f} minutes" if minutes >= 10 else f"{minutes:.1f} minutes"


def _scores(evaluation: dict[str, Any]) -> list[str]:
    rows = [
        "| pictures | one character | two characters | all right, one | all right, two |",
        "|---|---|---|---|---|",
    ]
    names = {
        "generated": "drawn by the model",
        "round_trip": "real renders through the autoencoder",
        "renders": "real renders",
    }
    for key, words in names.items():
        if key in evaluation:
            one, two = evaluation[key]["1_characters"], evaluation[key]["2_characters"]
            cells = (one["mean"], two["mean"], one["all_right"], two["all_right"])
            rows.append(f"| {words} | " + " | ".join(_percent(cell) for cell in cells) + " |")
    return rows


def _attributes(evaluation: dict[str, Any]) -> list[str]:
    made, real = evaluation["generated"], evaluation.get("renders", evaluation["generated"])
    rows = ["| attribute | one | two | real renders, one | two |", "|---|---|---|---|---|"]
    for name in made["2_characters"]["attributes"]:
        cells = [
            part[f"{count}_characters"]["attributes"].get(name, float("nan"))
            for part in (made, real)
            for count in (1, 2)
        ]
        rows.append(f"| {name} | " + " | ".join(_percent(cell) for cell in cells) + " |")
    for name, value in made["scene"].items():
        rows.append(
            f"| {name} (whole scene) | {_percent(value)} | | {_percent(real['scene'].get(name, 0))} | |"
        )
    return rows


def _taught(recipe: dict[str, Any]) -> list[str]:
    """How captions were encoded, and what was held out."""
    transformer = recipe["transformer"]
    apart = transformer.get("apart", 0.0)
    lines: list[str] = []
    if apart:
        regional = transformer.get("regional", 0.0)
        placed = f", of which {100 * regional:.0f} of 100 with regions (binding `region`)" if regional else ""
        full = transformer.get("full", 0.0)
        placed += f", {100 * full:.0f} of 100 of these with all that `full` does" if regional and full else ""
        lines.append(
            f"- {100 * apart:.0f} of 100 captions in XML were encoded by character (binding `text`){placed}."
        )
    if unplaced := transformer.get("unplaced", 0.0):
        lines.append(
            f"- {100 * unplaced:.0f} of 100 complete captions in XML do not say where anybody stands; their "
            "people are named from left to right."
        )
    return lines


def _held_out(recipe: dict[str, Any], runs: list[dict[str, Any]]) -> list[str]:
    """In how many samples nobody had one of the benchmark's held-out pairs; the last run is the recipe's."""
    if not recipe.get("hold_out_pairs"):
        return []
    *before, last = runs
    without = last.get("seen", 0) + sum(run.get("seen", 0) for run in before if run.get("hold_out_pairs"))
    return [
        f"- In {without:,} of {sum(run.get('seen', 0) for run in runs):,} samples nobody had one of the "
        "benchmark's held-out attribute pairs (`nano/world/held_out.py`); the others, if any, showed them."
    ]


def _binding(file: Path) -> list[str]:
    """The binding benchmark of this and the former edition, where it was run."""
    if not file.exists():
        return []
    held = json.loads(file.read_text())
    counts = sorted({number for each in held["rows"] for number in each["people"]}, key=int)
    lines = [
        "## Binding",
        "",
        held["words"],
        "Attributes right / all right in the whole picture, in percent, by people:",
        "",
        "| pictures | " + " | ".join(counts) + " |",
        "|---" * (1 + len(counts)) + "|",
    ]
    for each in held["rows"]:
        cells = []
        for number in counts:
            found = each["people"].get(number)
            cells.append("–" if found is None else f"{_percent(found[0])} / {_percent(found[1])}")
        lines.append(f"| {each['name']} | " + " | ".join(cells) + " |")
    return [*lines, "", f"Made by `{held['command']}`.", ""]


def write_card(bundle: Path) -> Path:
    """Writes `README.md` of a bundle from its `recipe.json` and `evaluation.json`.

    Raises:
        FileNotFoundError: where one of the two is missing; run the stage `export` and `newbie nano
        evaluate` first.
    """
    history = json.loads((bundle / "recipe.json").read_text())
    evaluation = json.loads((bundle / "evaluation.json").read_text())
    recipe, run = history["recipe"], history["transformer"]
    vae = [each for each in (*history.get("autoencoder_before", []), history["autoencoder"]) if each]
    transformer = recipe["transformer"]
    runs = [*history.get("transformer_before", []), run]
    curve = history.get("curve", [])
    most = COUNT_WORDS[recipe.get("people", 3)]
    made = evaluation["generated"]
    reached = {**made["2_characters"]["attributes"], **made["scene"]}
    lines = [
        "---",
        "license: apache-2.0",
        "---",
        "# nano: the embedded model of newbie-image",
        "",
        "A small NextDiT with its own small Gemma 3 text model, Jina text tower and autoencoder, "
        "trained by this project",
        "on pictures that it draws itself. It is in the same file layout and runs through the same "
        "code as the published",
        "3.5B model. It knows the tags of its world (`src/newbie_image/nano/world/attributes.py`) "
        "and nothing else.",
        "",
        "## Recipe",
        "",
        f"- {history['pictures']:,} renders of {recipe['size']}×{recipe['size']} with one to {most} "
        "characters; latents at 1/8 with 16 channels.",
        *_taught(recipe),
        *_held_out(recipe, runs),
        f"- Transformer: {transformer['n_layers']} blocks of width {transformer['dim']}, "
        f"{transformer['n_refiner_layers']} "
        f"+ {transformer['n_refiner_layers']} refiners; text model {transformer['text_layers']} "
        "layers of width "
        f"{transformer['text_dim']} (the last one is never run), pooled text {transformer['pooled_dim']}.",
        "- Autoencoder: "
        + ", then ".join(f"{_minutes(each)}, {each.get('step', 0):,} steps{_on(each)}" for each in vae)
        + ".",
        "- Transformer and text encoders together: "
        + ", then ".join(
            f"{_minutes(each)}, {each.get('seen', 0):,} samples in {each.get('step', 0):,} steps{_on(each)}"
            for each in runs
        )
        + f" of {transformer['batch']}, seed {transformer['seed']}"
        + ("; the settings are those of the last run." if len(runs) > 1 else "."),
        f"- Hardware{' of the last run' if len(runs) > 1 else ''}: {history['hardware']}.",
        "- Commands: in docs/nano.md; every setting of the last run is in `recipe.json`.",
        "",
        "## Scores",
        "",
        f"{evaluation['prompts']} held-out prompts in XML, half with one and half with two characters "
        f"(sha256 of the prompts {evaluation['prompts_sha256'][:16]}…), one picture each, no "
        "selection. Attributes are read",
        f"back by classifiers trained on {evaluation['reader_pictures']:,} renders with other seeds; a "
        "missing character counts as wrong in everything.",
        "Percent right:",
        "",
        *_scores(evaluation),
        "",
        f"Autoencoder on the same scenes: {evaluation.get('psnr', 0):.1f} dB (mean of the pictures' PSNR).",
        "",
        "By attribute, percent right:",
        "",
        *_attributes(evaluation),
        "",
        "Made by `newbie nano evaluate --out bundles/nano/evaluation.json`.",
        "",
    ]
    if curve:
        lines += [
            "Against samples seen (the averaged weights of that moment, the same prompts, fewer of them):",
            "",
            "| samples | one character | two characters |",
            "|---|---|---|",
            *(f"| {p['seen']:,} | {_percent(p['one'])} | {_percent(p['two'])} |" for p in curve),
            "",
        ]
    lines += _binding(bundle / "binding.json")
    followed = [name for name, value in reached.items() if value >= 0.8]
    missed = [name for name, value in reached.items() if value < 0.8]
    lines += [
        "## Limits",
        "",
        f"- It follows the prompt (80 % or more, two characters) in: {', '.join(followed) or 'nothing'}.",
        f"- It does not yet in: {', '.join(missed) or 'nothing else'}.",
        "- It draws its own world and nothing else; an unknown word is read as bytes and mostly ignored.",
        f"- More than {most} characters, other sizes than the trained one and free sentences are outside "
        "what it learnt.",
        "",
        "## Licence",
        "",
        "Apache-2.0, like the code.",
    ]
    target = bundle / "README.md"
    target.write_text("\n".join(lines) + "\n")
    return target
