"""What an adapter adds to a layer, in the form in which it was saved, and how a file becomes such updates.

An update is never multiplied out to a full matrix to be used: :meth:`Update.forward` gives its part of the
layer's output from the small factors. :meth:`Update.matrix` is the full matrix, for fusing it into a weight.

============  ===========================================  =============================================
kind          matrix                                       scale
============  ===========================================  =============================================
LoRA, LoCon   up · down (arXiv 2106.09685)                 alpha / rank (rsLoRA: alpha / √rank)
LoKr          w1 ⊗ w2, either of them a · b                alpha / rank; 1 where both are whole (LyCORIS)
LoHa          (w1a · w1b) ∘ (w2a · w2b) (arXiv 2108.06098) alpha / rank
full          the change itself                            1
============  ===========================================  =============================================

What alpha is, `adapter_alpha` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from newbie_image.checkpoints.adapter_alpha import Alphas
from newbie_image.checkpoints.adapter_files import AdapterFile
from newbie_image.checkpoints.adapter_keys import Target, find_target, split_key
from newbie_image.errors import CheckpointError


class Update(nn.Module):
    """A change of a linear layer's weight, (rows, in) for its output rows `target.start` … `target.stop`.

    Factors are buffers that no state dict holds, so that they move with the layer and are not saved with it.
    Where something else moves the weights (block offload), :meth:`forward` brings the factors to its inputs.

    Args:
        target: layer and rows.
        factors: the tensors as saved, by their names in the subclass.
        scale: what the file asks for; `strength` is what the user asks for, and both are multiplied.
    """

    def __init__(self, target: Target, factors: Mapping[str, Tensor], scale: float) -> None:
        super().__init__()
        self.target, self.scale, self.strength = target, scale, 1.0
        for name, factor in factors.items():
            self.register_buffer(name, factor, persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """(…, in) → (…, rows), the scale not yet in."""
        raise NotImplementedError

    def matrix(self) -> Tensor:
        """(rows, in) float32, the scale in."""
        raise NotImplementedError

    def copy_to(self, device: torch.device, dtype: torch.dtype | None) -> Self:
        """The same update with copies of its factors on a device and, unless None, in another dtype.

        Copies, because a file's mapped memory may lie unaligned: the CPU's kernels for few rows then add up
        in another order, and the picture would depend on where a factor lies.
        """
        factors = {name: factor.to(device, dtype, copy=True) for name, factor in self.named_buffers()}
        copy = type(self)(self.target, factors, self.scale)
        copy.strength = self.strength
        return copy

    def matrix_shape(self) -> torch.Size:
        """Shape of :meth:`matrix` without computing it.

        Raises:
            RuntimeError: the factors do not fit each other.
        """
        return self.copy_to(torch.device("meta"), None).matrix().shape


class LowRank(Update):
    """up (rows, rank) · down (rank, in)."""

    down: Tensor
    up: Tensor

    def forward(self, inputs: Tensor) -> Tensor:
        return F.linear(F.linear(inputs, self.down.to(inputs)), self.up.to(inputs))

    def matrix(self) -> Tensor:
        return self.up.float() @ self.down.float() * self.scale


class Kronecker(Update):
    """w1 (a, c) ⊗ w2 (b, d) for rows = a·b and in = c·d; each whole, or as a product of `…_a` and `…_b`."""

    def _factor(self, name: str, device: torch.device | None, dtype: torch.dtype) -> Tensor:
        parts = dict(self.named_buffers())
        if name in parts:
            return parts[name].to(device, dtype)
        return parts[name + "_a"].to(device, dtype) @ parts[name + "_b"].to(device, dtype)

    def forward(self, inputs: Tensor) -> Tensor:
        first, second = (self._factor(name, inputs.device, inputs.dtype) for name in ("w1", "w2"))
        cut = inputs.unflatten(-1, (first.shape[1], second.shape[1]))
        return (first @ F.linear(cut, second)).flatten(-2)

    def matrix(self) -> Tensor:
        first, second = (self._factor(name, None, torch.float32) for name in ("w1", "w2"))
        return torch.kron(first, second) * self.scale


class Hadamard(Update):
    """(w1_a · w1_b) ∘ (w2_a · w2_b), each pair (rows, rank) and (rank, in)."""

    w1_a: Tensor
    w1_b: Tensor
    w2_a: Tensor
    w2_b: Tensor

    def forward(self, inputs: Tensor) -> Tensor:
        return F.linear(inputs, (self.w1_a @ self.w1_b * (self.w2_a @ self.w2_b)).to(inputs))

    def matrix(self) -> Tensor:
        return (self.w1_a.float() @ self.w1_b.float()) * (self.w2_a.float() @ self.w2_b.float()) * self.scale


class Whole(Update):
    """The change itself, (rows, in) for a linear layer, (dim,) for a norm or a bias."""

    change: Tensor

    def forward(self, inputs: Tensor) -> Tensor:
        return F.linear(inputs, self.change.to(inputs))

    def matrix(self) -> Tensor:
        return self.change.float() * self.scale


@dataclass(frozen=True)
class AdapterReport:
    """What became of an adapter file's keys.

    Args:
        name: of the adapter.
        layers: paths of the layers that it changes.
        unmatched: keys whose layer or kind the model does not have.
        misshapen: key, then what its shape is and what the layer needs.
        incomplete: keys whose counterpart is missing from the file.
        notices: one line for each assumption made (alpha not given, …).
    """

    name: str
    layers: tuple[str, ...]
    unmatched: tuple[str, ...] = ()
    misshapen: tuple[str, ...] = ()
    incomplete: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """One line for each kind of finding, with every key's name; none where all is well."""
        findings = (
            ("layers that the model does not have", self.unmatched),
            ("misshapen", self.misshapen),
            ("incomplete", self.incomplete),
        )
        said = [f"adapter {self.name}: {kind}, left out: {'; '.join(k)}" for kind, k in findings if k]
        return said + [f"adapter {self.name}: {notice}" for notice in self.notices]


@dataclass(frozen=True)
class AdapterUpdates:
    """An adapter, ready for one model.

    Args:
        linear: updates of linear layers, which can run beside the layer.
        direct: updates of vectors (norm weights, biases) by parameter name, which can only be added.
        report: what became of the keys.
    """

    linear: tuple[Update, ...]
    direct: Mapping[str, Whole]
    report: AdapterReport


def build_updates(
    file: AdapterFile, table: Mapping[str, Target], parameters: Mapping[str, torch.Size], name: str
) -> AdapterUpdates:
    """Find every tensor's layer, check shapes and work out scales.

    Args:
        file: from `read_adapter`.
        table: names of the model's layers, from `target_table`.
        parameters: parameter name → shape.
        name: of the adapter, for the report.

    Returns:
        The updates and the report.

    Raises:
        CheckpointError: not one key matches, a tensor holds NaN or infinity, or the adapter is a DoRA, which
            would be wrong without its magnitudes.
    """
    layers, unmatched = _group(file, table)
    _refuse_unsupported(file, layers, name)
    alphas = Alphas(file)
    linear: list[Update] = []
    direct: dict[str, Whole] = {}
    misshapen: list[str] = []
    incomplete: list[str] = []
    for (path, target), roles in layers.items():
        for role, suffix in (("weight_change", "weight"), ("bias_change", "bias")):
            if role not in roles:
                continue
            key, change = roles[role]
            parameter = f"{target.module}.{suffix}"
            if parameter not in parameters:
                unmatched.append(key)
            elif change.shape != parameters[parameter]:
                misshapen.append(_wrong_shape(key, change.shape, parameters[parameter]))
            elif change.ndim == 1:
                direct[parameter] = Whole(target, {"change": change}, 1.0)
            else:
                linear.append(Whole(target, {"change": change}, 1.0))
        update, missing = _linear_update(path, target, roles, alphas)
        incomplete.extend(missing)
        if update is None:
            continue
        problem = _shape_problem(update, roles, parameters.get(f"{target.module}.weight"))
        misshapen.append(problem) if problem else linear.append(update)
    changed = dict.fromkeys([update.target.module for update in linear])
    changed.update(dict.fromkeys(parameter.rpartition(".")[0] for parameter in direct))
    if not changed:
        raise CheckpointError(_nothing_matched(name, unmatched, misshapen, incomplete))
    report = AdapterReport(
        name, tuple(changed), tuple(unmatched), tuple(misshapen), tuple(incomplete), tuple(alphas.notices())
    )
    return AdapterUpdates(tuple(linear), direct, report)


_FACTORS = ("lora_", "lokr_", "hada_")
Roles = dict[str, tuple[str, Tensor]]
"""Role → (key, tensor) of one layer."""


def _group(
    file: AdapterFile, table: Mapping[str, Target]
) -> tuple[dict[tuple[str, Target], Roles], list[str]]:
    layers: dict[tuple[str, Target], Roles] = {}
    unmatched: list[str] = []
    for key, tensor in file.tensors.items():
        cut = split_key(key)
        target = find_target(cut[0], table) if cut else None
        if cut is None or target is None:
            unmatched.append(key)
            continue
        if not bool(torch.isfinite(tensor.float()).all()):
            raise CheckpointError(
                f"{key} in {file.path} holds NaN or infinity; its training failed, or the file is damaged"
            )
        # Linear layers' factors come as 1×1 convolutions from some trainers.
        flat = tensor.flatten(1) if tensor.ndim == 4 and tensor.shape[2:] == (1, 1) else tensor
        layers.setdefault((cut[0], target), {})[cut[1]] = (key, flat)
    return layers, unmatched


def _refuse_unsupported(file: AdapterFile, layers: Mapping[tuple[str, Target], Roles], name: str) -> None:
    if file.config.get("use_dora") or any("magnitude" in roles for roles in layers.values()):
        raise CheckpointError(
            f"adapter {name} is a DoRA, whose magnitudes are not supported; merge it with its trainer, "
            "or train a plain LoRA, LoKr or LoHa"
        )
    start = str(file.config.get("init_lora_weights"))
    if start.startswith(("pissa", "olora", "corda", "loftq")):
        raise CheckpointError(
            f"adapter {name} was started with {start}, which changes the model's weights under it; save it "
            "again with peft's path_initial_model_for_weight_conversion, which makes a plain LoRA of it"
        )


def _linear_update(
    path: str, target: Target, roles: Roles, alphas: Alphas
) -> tuple[Update | None, list[str]]:
    """The update that a layer's factors make, or the keys that lack a counterpart."""
    tensors = {role: tensor for role, (_, tensor) in roles.items()}
    flat = all(tensor.ndim == 2 for role, tensor in tensors.items() if role.startswith(_FACTORS))
    if not flat or ("alpha" in tensors and tensors["alpha"].numel() != 1):
        return Update(target, {}, 0.0), []  # has no matrix, so that its shape is refused

    def scale(rank: int | None) -> float:
        return alphas.scale((target.module, path), tensors.get("alpha"), rank)

    if {"lora_down", "lora_up"} <= tensors.keys() and "lora_mid" not in tensors:
        down, up = tensors["lora_down"], tensors["lora_up"]
        return LowRank(target, {"down": down, "up": up}, scale(down.shape[0])), []
    lokr = {role.removeprefix("lokr_"): t for role, t in tensors.items() if role.startswith("lokr_")}
    if all(w in lokr or {f"{w}_a", f"{w}_b"} <= lokr.keys() for w in ("w1", "w2")) and "t2" not in lokr:
        halves = [w for w in ("w1", "w2") if w not in lokr]
        return Kronecker(target, lokr, scale(lokr[halves[0] + "_b"].shape[0] if halves else None)), []
    hada = {role.removeprefix("hada_"): t for role, t in tensors.items() if role.startswith("hada_")}
    if hada.keys() == {"w1_a", "w1_b", "w2_a", "w2_b"}:
        return Hadamard(target, hada, scale(hada["w1_b"].shape[0])), []
    left = [key for role, (key, _) in roles.items() if role.startswith(_FACTORS)]
    return None, left or ([roles["alpha"][0]] if set(roles) == {"alpha"} else [])


def _shape_problem(update: Update, roles: Roles, needed: torch.Size | None) -> str | None:
    """One line where an update does not fit its layer's weight (out, in)."""
    key = next(key for role, (key, _) in roles.items() if role != "alpha")
    if needed is None or len(needed) != 2:
        return f"{key} is for a linear layer, which {update.target.module} is not"
    stop = needed[0] if update.target.stop is None else update.target.stop
    try:
        shape = update.matrix_shape()
    except (RuntimeError, NotImplementedError):
        shapes = ", ".join(f"{k} {tuple(t.shape)}" for _, (k, t) in roles.items())
        return f"{shapes}: the factors do not fit each other"
    rows = torch.Size((stop - update.target.start, needed[1]))
    return None if shape == rows else _wrong_shape(key, shape, rows)


def _wrong_shape(key: str, got: torch.Size, needed: torch.Size) -> str:
    return f"{key} makes {'×'.join(map(str, got))}, the layer needs {'×'.join(map(str, needed))}"


def _nothing_matched(name: str, unmatched: list[str], misshapen: list[str], incomplete: list[str]) -> str:
    found = unmatched[:4] + misshapen[:4] + incomplete[:4]
    count = len(unmatched) + len(misshapen) + len(incomplete)
    return (
        f"adapter {name} changes no layer of this model: none of its {count} keys fits ({'; '.join(found)}"
        f"{', …' if count > len(found) else ''}); give an adapter that was trained for this model"
    )
