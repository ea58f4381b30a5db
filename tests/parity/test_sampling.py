"""Our sampling loop against upstream's own, on a toy velocity: grid, shift, solver, guidance, all at once.

The numbers in data/sampling.json come from upstream's code. To make them again, give its checkout (and have
torchdiffeq importable):

    PYTHONPATH=... python tests/parity/test_sampling.py /path/to/NewBie-image-Exp0.1

It prints the relative error of each case before it writes the file.
"""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import pytest
import torch

from newbie_image.sampling import Guidance, guided_velocity, make_solver, one_batch, time_grid

DATA = Path(__file__).parent / "data" / "sampling.json"
TOLERANCE = 1e-5

# solver, upstream's num_steps (points, one more than intervals), shift, scale, truncation, renorm
CASES = [
    ("euler", 11, 1.0, 1.0, 1.0, 0.0),
    ("euler", 11, 6.0, 5.0, 1.0, 0.0),
    ("euler", 19, 6.0, 5.0, 0.25, 0.0),  # a grid point lies exactly on the truncation limit
    ("euler", 19, 6.0, 4.0, 1.0, 1.0),
    ("midpoint", 18, 6.0, 5.0, 0.25, 0.0),  # the demo's settings
    ("midpoint", 9, 3.0, 7.0, 0.5, 0.7),
    ("midpoint", 9, 6.0, 3.0, 1.0, 2.0),
]


def toy_velocity(x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """Not linear, other for each text. x: (batch, 4, height, width), t: (batch,), text: (batch, 4)."""
    t, text = t[:, None, None, None], text[:, :, None, None]
    return torch.sin(1.3 * x + text) - 0.4 * x + torch.cos(2.0 * t) * text + x.roll(1, dims=-1) * t


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    """Noise (1, 4, 4, 6) and the two texts (2, 4), conditional first."""
    noise = torch.sin(torch.arange(96, dtype=torch.float32) * 1.7 + 0.3).reshape(1, 4, 4, 6) * 1.4
    return noise, torch.tensor([[0.7, -0.2, 1.1, 0.4], [-0.5, 0.3, -0.1, 0.9]])


def ours(case: tuple, *, batched: bool) -> torch.Tensor:
    name, points, shift, scale, truncation, renorm = case
    noise, texts = inputs()

    def call(text: torch.Tensor):
        return lambda x, t: toy_velocity(x, torch.full((len(x),), t), text)

    halves = {"paired": one_batch(call(texts))} if batched else {"unconditional": call(texts[1:])}
    velocity = guided_velocity(Guidance(scale, truncation, renorm), call(texts[:1]), **halves)
    *_, last = make_solver(name).run(velocity, noise, time_grid(points - 1, shift))
    return last.latents


def stub(module: str, *names: str) -> None:
    """Stand in for a package that upstream imports and these runs never call."""
    made = sys.modules.setdefault(module, types.ModuleType(module))
    for name in names:
        setattr(made, name, None)


def theirs(case: tuple, upstream: Path) -> torch.Tensor:
    stub("flash_attn", "flash_attn_varlen_func")
    stub("flash_attn.bert_padding", "index_first_axis", "pad_input", "unpad_input")
    stub("scipy")
    stub("scipy.integrate", "solve_ivp")
    if str(upstream) not in sys.path:
        sys.path.insert(0, str(upstream))
    from models.model import NextDiT_CLIP
    from transport import Sampler, create_transport

    name, points, shift, scale, truncation, renorm = case
    noise, texts = inputs()
    toy = types.SimpleNamespace(in_channels=4, forward=lambda x, t, text, *_: toy_velocity(x, t, text))
    sample = Sampler(create_transport("Linear", "velocity")).sample_ode(
        sampling_method=name, num_steps=points, time_shifting_factor=shift
    )
    options = {"cfg_scale": scale, "cfg_trunc": truncation, "renorm_cfg": renorm}

    def model(x, t, **kwargs):
        return NextDiT_CLIP.forward_with_cfg(toy, x, t, **kwargs)

    doubled = noise.repeat(2, 1, 1, 1)
    with torch.no_grad():
        return sample(doubled, model, cap_feats=texts, cap_mask=torch.ones(2, 4), **options)[-1][:1]


def relative_error(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("batched", [True, False], ids=["one batch", "two passes"])
@pytest.mark.parametrize("index", range(len(CASES)), ids=["-".join(map(str, case)) for case in CASES])
def test_equals_upstream(index: int, batched: bool) -> None:
    record = json.loads(DATA.read_text())[index]
    assert record["case"] == list(CASES[index])
    expected = torch.tensor(record["latents"]).reshape(1, 4, 4, 6)
    assert relative_error(ours(CASES[index], batched=batched), expected) < TOLERANCE


def main(upstream: Path) -> None:
    records = []
    for case in CASES:
        reference = theirs(case, upstream)
        error = relative_error(ours(case, batched=True), reference)
        print(f"{error:.1e}", *case)
        assert error < TOLERANCE
        records.append({"case": list(case), "latents": reference.flatten().tolist()})
    DATA.parent.mkdir(exist_ok=True)
    DATA.write_text("[\n" + ",\n".join(json.dumps(record) for record in records) + "\n]\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
