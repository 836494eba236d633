"""The resume state: one safetensors file, replaced atomically, without pickle.

It holds the adapter, the optimizer's state by parameter name, its groups, the LR schedule, the loss scale, the random
states and the step. The draws of a step follow from its number, so the dataset's position is that number.

Keys in the file are those of its first release, also where the code has another name by now.
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
_AGAIN = "Train again with these settings: it begins from step 0."


class Evaluator(Protocol):
    """The part of an evaluation that a resume needs."""

    def pack(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """(tensors by name, values for JSON)."""

    def unpack(self, best: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Takes what `pack` returned."""


def save_state(path: Path, training: Training, step: int, pictures: str, evaluator: Evaluator | None = None) -> None:
    """Writes the state after `step`; after a crash meanwhile the file still holds the one before.

    Raises:
        UserError: the disk is full or cannot be written.
    """
    tensors, header = _Packing(training).pack()
    if evaluator:
        # The best step's weights are in memory alone until the run ends.
        best, header["evaluation"] = evaluator.pack()
        tensors |= {f"{_BEST}/{name}": value for name, value in best.items()}
    facts = Facts.of(training, pictures)
    # By kind of device: a run that moves from a GPU to a CPU may compute otherwise there.
    computes = {training.model.device.type: str(training.dtype).removeprefix("torch.")}
    header |= {"format": FORMAT, "step": step, "facts": facts.__dict__, "computes": computes}
    header["kernels"] = training.adapter.choices.made
    try:
        replace_with(path, partial(save_file, tensors, metadata={HEADER: json.dumps(header)}))
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"The resume state could not be saved: {error}.", f"Free space on the disk of {path.parent}."
        ) from error


def load_state(path: Path, training: Training, pictures: str, evaluator: Evaluator | None = None) -> int:
    """Loads the state into a fresh `training`; the step to resume from, 0 if there is no file.

    A resume may extend the run: the learning rate then follows the longer schedule.

    Raises:
        UserError: the file is damaged or of another release, or something has changed since.
    """
    if not path.exists():
        return 0
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})[HEADER])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - safe_open is not a mapping
        step, found, facts = int(header["step"]), header["facts"], Facts.of(training, pictures)
    except (OSError, SafetensorError, LookupError, ValueError) as error:
        raise UserError(f"The resume state cannot be read: {error}.", _AGAIN) from error
    if header["format"] != FORMAT:
        raise UserError("The resume state was written by another release.", _AGAIN)
    changed = changes(found, json.loads(json.dumps(facts.__dict__)))
    if changed:
        raise UserError(f"The run cannot be resumed: {' and '.join(changed)} changed since.", _AGAIN)
    # Taken out before `unpack`, which knows parameters of the current step only.
    best = {key.partition("/")[2]: tensors.pop(key) for key in list(tensors) if key.startswith(f"{_BEST}/")}
    _Packing(training).unpack(tensors, header)
    # `load_state_dict` restored rates of the shorter schedule.
    if found["steps"] != facts.steps:
        _follow_schedule(training)
    if evaluator and "evaluation" in header:
        evaluator.unpack(best, header["evaluation"])
    return step


def _follow_schedule(training: Training) -> None:
    """Sets the learning rates to those of the new schedule; the loaded ones are of the shorter one."""
    scheduler = training.lr_scheduler
    groups = training.optimizer.param_groups
    for group, base, factor in zip(groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True):
        group["lr"] = base * factor(scheduler.last_epoch)


class _Packing:
    """The changing state of a training as tensors and JSON, and back."""

    def __init__(self, training: Training) -> None:
        self._training = training
        self._names = {parameter: name for name, parameter in training.adapter.named_parameters()}

    def pack(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        training, optimizer = self._training, self._training.optimizer
        tensors: dict[str, Tensor] = {f"adapter/{name}": parameter for parameter, name in self._names.items()}
        if training.average:
            tensors |= {f"ema/{name}": value for name, value in training.average.tensors.items()}
        state = {f"optimizer/{self._names[p]}": values for p, values in optimizer.state.items()}
        groups = {f"group/{number}": _own(group) for number, group in enumerate(optimizer.param_groups)}
        scalars = {}
        for owner, values in {**state, **groups}.items():
            tensors |= {f"{owner}/{key}": value for key, value in values.items() if isinstance(value, Tensor)}
            scalars[owner] = {key: _plain(value) for key, value in values.items() if not isinstance(value, Tensor)}
        # For what libraries draw from torch's global state; our own draws follow from the step.
        tensors["random/cpu"] = torch.get_rng_state()
        if self._device.type == "cuda":
            tensors["random/cuda"] = torch.cuda.get_rng_state(self._device)
        kept, same = _without_aliases(tensors)
        header = {
            "numbers": scalars,
            "same": same,
            # Adam's step counter lies on the CPU though the parameter lies on the GPU, and must do so again.
            "on_cpu": [key for key, value in tensors.items() if value.device.type == "cpu"],
            "groups": [[self._names[p] for p in group["params"]] for group in optimizer.param_groups],
            # The lambdas follow from the recipe; JSON could not hold them.
            "rate": {
                key: _plain(value) for key, value in training.lr_scheduler.state_dict().items() if key != "lr_lambdas"
            },
            "scaler": training.loss_scale.state(),
            "good_steps": training.loss_scale.good_steps,
        }
        return kept, header

    def unpack(self, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
        training, optimizer = self._training, self._training.optimizer
        # By name: the order of groups is the only thing that ties an optimizer's state to its parameters.
        names = [[self._names[p] for p in group["params"]] for group in optimizer.param_groups]
        if header["groups"] != names:
            raise UserError("The run cannot be resumed: the adapter has other layers now.", _AGAIN)
        tensors |= {key: tensors[first] for key, first in header["same"].items()}
        on_cpu, by_owner = set(header["on_cpu"]), {}
        for key, value in tensors.items():
            owner, _, name = key.rpartition("/")
            by_owner.setdefault(owner, {})[name] = value if key in on_cpu else value.to(self._device)
        parameters = {name: parameter for parameter, name in self._names.items()}
        with torch.no_grad():
            for name, value in by_owner["adapter"].items():
                # Copied, not replaced: the optimizer and the attached layers hold these very parameters.
                parameters[name].copy_(value)
            for name, value in by_owner.get("ema", {}).items():
                training.average.tensors[name].copy_(value)
        for owner, scalars in header["numbers"].items():
            kind, _, name = owner.partition("/")
            values = {**scalars, **by_owner.get(owner, {})}
            if kind == "optimizer":
                optimizer.state[parameters[name]] = values
            else:
                _refill(optimizer.param_groups[int(name)], values)
        scheduler = training.lr_scheduler
        scheduler.load_state_dict({**scheduler.state_dict(), **header["rate"]})
        training.loss_scale.load(header["scaler"], header["good_steps"])
        # Last: loading above may draw.
        torch.set_rng_state(by_owner["random"]["cpu"].cpu())
        if "cuda" in by_owner["random"] and self._device.type == "cuda":
            torch.cuda.set_rng_state(by_owner["random"]["cuda"].cpu(), self._device)

    @property
    def _device(self) -> torch.device:
        return self._training.model.device


def _own(group: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in group.items() if key != "params"}


def _refill(group: dict[str, Any], values: dict[str, Any]) -> None:
    for key, value in values.items():
        group[key] = _typed(value, group.get(key))


def _typed(value: Any, like: Any) -> Any:
    """A value from JSON, with tuples where `like` has them: JSON turned Adam's betas into a list."""
    if not (isinstance(value, list) and isinstance(like, (tuple, list))):
        return value
    inner = [_typed(part, old) for part, old in zip(value, like, strict=True)] if len(value) == len(like) else value
    return type(like)(inner)


def _plain(value: Any) -> Any:
    """A value that JSON stores exactly. Raises TypeError for any other."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    raise TypeError(f"{type(value).__name__} in the optimizer's state cannot be saved")


def _without_aliases(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors on the CPU, each storage once; and alias -> key for those that share one.

    All of bitsandbytes' states share their quantile maps, and safetensors refuses shared storages.
    """
    first: dict[tuple[Any, ...], str] = {}
    kept, same = {}, {}
    for key, value in tensors.items():
        value = value.detach()
        storage = (value.data_ptr(), value.shape, value.dtype, value.device)
        if value.numel() and storage in first:
            same[key] = first[storage]
        else:
            first[storage] = key
            kept[key] = value.to("cpu").contiguous()
    return kept, same
