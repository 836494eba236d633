"""What a run needs to go on exactly where it was: one safetensors file, replaced whole, with no pickle in it.

Weights, the optimizer's state by the name of its parameter, its groups, the schedule, the loss scale, the random number
generators and the step. What is drawn in a step follows from its number, so that the position is a number.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lib_trainer.errors import UserError
from lib_trainer.training.loop import Training
from lib_trainer.training.resume_facts import HEADER, Facts, changes
from lib_trainer.utils.atomic_file import replace_with

FORMAT = 1
# Tensors of the best step so far.
_BEST = "best"
_AGAIN = "Train again with these settings: it begins anew."


class Evaluator(Protocol):
    """What an evaluation keeps for a resume."""

    def pack(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """(tensors by name, values for JSON)."""

    def unpack(self, best: dict[str, Tensor], values: dict[str, Any]) -> None:
        """What `pack` gave."""


def save_state(path: Path, training: Training, step: int, pictures: str, evaluator: Evaluator | None = None) -> None:
    """Writes the state after `step`; a crash while it does leaves the one before.

    Raises:
        UserError: the disk is full or cannot be written.
    """
    tensors, header = _Packing(training).pack()
    if evaluator:
        best, header["evaluation"] = evaluator.pack()
        tensors |= {f"{_BEST}/{name}": value for name, value in best.items()}
    facts = Facts.of(training, pictures)
    header |= {"format": FORMAT, "step": step, "facts": facts.__dict__}
    try:
        replace_with(path, partial(save_file, tensors, metadata={HEADER: json.dumps(header)}))
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"The step cannot be kept for a resume: {error}.", f"Make room on the disk that holds {path.parent}."
        ) from error


def load_state(path: Path, training: Training, pictures: str, evaluator: Evaluator | None = None) -> int:
    """Puts a state into a fresh `training`; the step it goes on from, 0 where there is no file.

    A run may go on to more steps than it was meant to have: the learning rate then follows the longer schedule.

    Raises:
        UserError: the file is damaged or of another release, or something has changed since.
    """
    if not path.exists():
        return 0
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})[HEADER])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - safe_open is no mapping
        step, found, facts = int(header["step"]), header["facts"], Facts.of(training, pictures)
    except (OSError, SafetensorError, LookupError, ValueError) as error:
        raise UserError(f"What was kept of the run cannot be read: {error}.", _AGAIN) from error
    if header["format"] != FORMAT:
        raise UserError("What was kept of the run was written by another release.", _AGAIN)
    changed = changes(found, json.loads(json.dumps(facts.__dict__)))
    if changed:
        raise UserError(f"The run cannot go on: {' and '.join(changed)} changed since.", _AGAIN)
    best = {key.partition("/")[2]: tensors.pop(key) for key in list(tensors) if key.startswith(f"{_BEST}/")}
    _Packing(training).unpack(tensors, header)
    if found["steps"] != facts.steps:
        _follow_schedule(training)
    if evaluator and "evaluation" in header:
        evaluator.unpack(best, header["evaluation"])
    return step


def _follow_schedule(training: Training) -> None:
    """Sets the learning rates to those of the schedule at its step; what was kept is of another schedule."""
    rate = training.rate
    for group, base, factor in zip(training.optimizer.param_groups, rate.base_lrs, rate.lr_lambdas, strict=True):
        group["lr"] = base * factor(rate.last_epoch)


class _Packing:
    """A training's moving parts as tensors and JSON, and back."""

    def __init__(self, training: Training) -> None:
        self._training = training
        self._names = {parameter: name for name, parameter in training.adapter.named_parameters()}

    def pack(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        training, optimizer = self._training, self._training.optimizer
        tensors: dict[str, Tensor] = {f"adapter/{name}": parameter for parameter, name in self._names.items()}
        state = {f"optimizer/{self._names[p]}": values for p, values in optimizer.state.items()}
        groups = {f"group/{place}": _own(group) for place, group in enumerate(optimizer.param_groups)}
        numbers = {}
        for place, values in {**state, **groups}.items():
            tensors |= {f"{place}/{key}": value for key, value in values.items() if isinstance(value, Tensor)}
            numbers[place] = {key: _plain(value) for key, value in values.items() if not isinstance(value, Tensor)}
        tensors["random/cpu"] = torch.get_rng_state()
        if self._device.type == "cuda":
            tensors["random/cuda"] = torch.cuda.get_rng_state(self._device)
        kept, same = _without_doubles(tensors)
        header = {
            "numbers": numbers,
            "same": same,
            "on_cpu": [key for key, value in tensors.items() if value.device.type == "cpu"],
            "groups": [[self._names[p] for p in group["params"]] for group in optimizer.param_groups],
            "rate": {key: _plain(value) for key, value in training.rate.state_dict().items() if key != "lr_lambdas"},
            "scaler": training.scaler.state_dict(),
            "good_steps": training.update.good_steps,
        }
        return kept, header

    def unpack(self, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
        training, optimizer = self._training, self._training.optimizer
        names = [[self._names[p] for p in group["params"]] for group in optimizer.param_groups]
        if header["groups"] != names:
            raise UserError("The run cannot go on: the adapter has other layers now.", _AGAIN)
        tensors |= {key: tensors[first] for key, first in header["same"].items()}
        on_cpu, by_place = set(header["on_cpu"]), {}
        for key, value in tensors.items():
            place, _, name = key.rpartition("/")
            by_place.setdefault(place, {})[name] = value if key in on_cpu else value.to(self._device)
        parameters = {name: parameter for parameter, name in self._names.items()}
        with torch.no_grad():
            for name, value in by_place["adapter"].items():
                parameters[name].copy_(value)
        for place, numbers in header["numbers"].items():
            kind, _, name = place.partition("/")
            values = {**numbers, **by_place.get(place, {})}
            if kind == "optimizer":
                optimizer.state[parameters[name]] = values
            else:
                _refill(optimizer.param_groups[int(name)], values)
        training.rate.load_state_dict({**training.rate.state_dict(), **header["rate"]})
        if training.scaler.is_enabled():
            training.scaler.load_state_dict(header["scaler"])
        training.update.good_steps = header["good_steps"]
        torch.set_rng_state(by_place["random"]["cpu"].cpu())
        if "cuda" in by_place["random"] and self._device.type == "cuda":
            torch.cuda.set_rng_state(by_place["random"]["cuda"].cpu(), self._device)

    @property
    def _device(self) -> torch.device:
        return self._training.model.device


def _own(group: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in group.items() if key != "params"}


def _refill(group: dict[str, Any], values: dict[str, Any]) -> None:
    for key, value in values.items():
        group[key] = tuple(value) if isinstance(group.get(key), tuple) else value


def _plain(value: Any) -> Any:
    """A value as JSON keeps it exactly. Raises TypeError for what it cannot keep."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    raise TypeError(f"{type(value).__name__} in the optimizer's state cannot be kept")


def _without_doubles(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors on the CPU, each memory once, and for every other key the one that stands for it.

    bitsandbytes' states share their quantile maps.
    """
    first: dict[tuple[Any, ...], str] = {}
    kept, same = {}, {}
    for key, value in tensors.items():
        value = value.detach()
        place = (value.data_ptr(), value.shape, value.dtype, value.device)
        if value.numel() and place in first:
            same[key] = first[place]
        else:
            first[place] = key
            kept[key] = value.to("cpu").contiguous()
    return kept, same
