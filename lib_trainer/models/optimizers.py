"""Optimizers by name, each from its library; none is written here. What each takes and keeps is asked of it itself."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from lib_trainer.errors import ConfigError, MissingPackage, UserError
from lib_trainer.models import library_optimizers as library
from lib_trainer.models.flat_step import flat, unwaiting

ParameterGroups = list[dict[str, Any]]
# What the recipe says elsewhere, or nobody may change.
_NOT_OPTIONS = {"self", "params", "lr", "args", "kwargs", "fused", "foreach", "capturable", "differentiable"}


@dataclass(frozen=True)
class Source:
    """Where an optimizer comes from.

    Attributes:
        package: what pip installs, which has the `module`.
        flat: it steps many parameters in one launch, which bitsandbytes does not.
        unwaiting: it steps each by itself as bitsandbytes does, without waiting for the device after each.
    """

    package: str
    module: str
    class_name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    flat: bool = False
    unwaiting: bool = False

    def load(self) -> type[torch.optim.Optimizer]:
        """The class. Raises MissingPackage."""
        if not find_spec(self.module.partition(".")[0]):
            raise MissingPackage(self.package, f"The optimizer {self.class_name}")
        return getattr(importlib.import_module(self.module), self.class_name)


def _bitsandbytes(class_name: str, *, flat: bool = False) -> Source:
    return Source("bitsandbytes", "bitsandbytes.optim", class_name, flat=flat, unwaiting=not flat)


def _pytorch_optimizer(class_name: str) -> Source:
    # Without foreach no temporary copies of all parameters are made at once.
    return Source("pytorch-optimizer", "pytorch_optimizer", class_name, {"foreach": False})


SOURCES = {
    "AdamW": Source("torch", "torch.optim", "AdamW"),
    "AdamW8bit": _bitsandbytes("AdamW8bit", flat=True),
    "PagedAdamW8bit": _bitsandbytes("PagedAdamW8bit"),
    "AdEMAMix8bit": _bitsandbytes("AdEMAMix8bit"),
    "Lion8bit": _bitsandbytes("Lion8bit", flat=True),
    "Lion": _pytorch_optimizer("Lion"),
    "CAME": _pytorch_optimizer("CAME"),
    "Adan": _pytorch_optimizer("Adan"),
    "StableAdamW": _pytorch_optimizer("StableAdamW"),
    "Muon": _pytorch_optimizer("Muon"),
    "AdamWScheduleFree": _pytorch_optimizer("ScheduleFreeAdamW"),
    # As its authors advise for diffusion models.
    "Prodigy": Source("prodigyopt", "prodigyopt", "Prodigy", {"use_bias_correction": True, "safeguard_warmup": True}),
    # The recipe gives the rate, so Adafactor must not make up its own.
    "Adafactor": Source(
        "transformers",
        "transformers.optimization",
        "Adafactor",
        {"scale_parameter": False, "relative_step": False, "warmup_init": False},
    ),
}


_BY_NAME = {name.lower(): name for name in SOURCES}
# They turn matrices, and have AdamW for the rest.
_MUONS = ("Muon", "AdaMuon", "NorMuon", "AdaGO")


def canonical_name(name: str) -> str:
    """The spelling of an optimizer's name here: any case, and with a package before it, as kohya's recipes write it.

    A name that nobody knows comes back as it is.
    """
    bare = name.strip().rpartition(".")[2]
    return _BY_NAME.get(bare.lower()) or library.class_name(bare) or bare


def source_of(name: str) -> Source:
    """Where an optimizer comes from: one of the recipes' list, or any class of pytorch-optimizer.

    Raises:
        MissingPackage: it is not on the list, and the library is not installed.
        ConfigError: nobody has an optimizer of that name, or it cannot be used by itself.
    """
    known = canonical_name(name)
    if known in SOURCES:
        return SOURCES[known]
    if not library.is_installed():
        raise MissingPackage(library.PACKAGE, f"The optimizer {known}")
    if not library.class_name(known):
        near = library.near_names(known, tuple(SOURCES))
        told = f"; near are {', '.join(near)}" if near else ""
        raise ConfigError({"optimizer": f"{known[:40]!r} is not an optimizer of pytorch-optimizer{told}"})
    source = _pytorch_optimizer(known)
    if problem := library.wrapper_problem(source.load()):
        raise ConfigError({"optimizer": f"{known} {problem}"})
    return source


def build_optimizer(
    name: str, groups: ParameterGroups, weight_decay: float, arguments: Mapping[str, Any]
) -> torch.optim.Optimizer:
    """An optimizer over parameter groups, each with its own `lr`.

    Args:
        arguments: options of its class, on top of those that it has here; they may name another weight decay.

    Raises:
        MissingPackage: its library is not installed.
        ConfigError: its class does not take an option, or not that value.
    """
    source, name = source_of(name), canonical_name(name)
    made = source.load()
    taken = _options_of(made)
    unknown = [option for option in arguments if option not in taken]
    if unknown:
        takes = ", ".join(taken)
        raise ConfigError({"optimizer_args": f"{name} does not take {', '.join(unknown)}; it takes {takes}"})
    # A few of the library have no weight decay, or no foreach.
    own = {"weight_decay": weight_decay, **source.options}
    named = inspect.signature(made.__init__).parameters
    options = {**{key: value for key, value in own.items() if key in named}, **arguments}
    if name == "AdamW" and groups[0]["params"][0].is_cuda:
        # The default way makes temporary copies of all parameters at once; the fused one makes none.
        options["fused"] = True
    if name in _MUONS:
        groups = [part for group in groups for part in _muon_groups(group, options["weight_decay"])]
    try:
        return _stepping(source, made)(groups, **options)
    except (TypeError, ValueError, AssertionError, LookupError) as error:
        raise ConfigError({"optimizer_args": f"{name} does not take these: {error}"}) from error


def _stepping(source: Source, made: type[torch.optim.Optimizer]) -> type[torch.optim.Optimizer]:
    """The class with the step that it has here."""
    if source.flat:
        return flat(made)
    return unwaiting(made) if source.unwaiting else made


def _muon_groups(group: dict[str, Any], weight_decay: float) -> ParameterGroups:
    """The factors of a group, which are matrices or kernels, and its vectors, as of norms: Muon has AdamW for those."""
    kinds = {True: [p for p in group["params"] if p.ndim > 1], False: [p for p in group["params"] if p.ndim < 2]}
    return [
        {**group, "params": params, "use_muon": matrices, "weight_decay": weight_decay}
        for matrices, params in kinds.items()
        if params
    ]


def check_options(name: str, arguments: Mapping[str, Any]) -> None:
    """Raises what `build_optimizer` would, before anything is trained."""

    def build(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return build_optimizer(name, [{"params": parameters, "lr": 1e-3}], 0.0, arguments)

    if canonical_name(name) in SOURCES:
        build([nn.Parameter(torch.zeros(1))])
    elif problem := library.use_problem(build):
        raise ConfigError({"optimizer": f"{canonical_name(name)} {problem}"})


def averages(optimizer: torch.optim.Optimizer) -> bool:
    """Whether it steps from other weights than those it stands for (Defazio et al., "The Road Less Scheduled", 2024).

    Such an optimizer has `eval` and `train`, which change one into the other.
    """
    return hasattr(optimizer, "eval") and hasattr(optimizer, "train")


@lru_cache(maxsize=1024)
def measured_state_bytes(name: str, shape: tuple[int, ...]) -> int:
    """What an optimizer keeps of one float32 parameter of that shape: measured by one step on the CPU.

    An optimizer that is not installed, or does not run there, is taken to keep two numbers for each, as AdamW does.
    """
    parameter = nn.Parameter(torch.zeros(shape))
    parameter.grad = torch.full(shape, 1e-3)
    try:
        optimizer = build_optimizer(name, [{"params": [parameter], "lr": 1e-3}], 0.0, {})
        if averages(optimizer):
            optimizer.train()
        optimizer.step()
    except (UserError, RuntimeError, ValueError, TypeError, LookupError, NotImplementedError, AttributeError):
        return 2 * parameter.nbytes
    return kept_bytes(optimizer, parameter)


def kept_bytes(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> int:
    """What an optimizer of one parameter keeps of it, with what it fills up its buffers with."""
    state = optimizer.state[parameter].items()
    # Quantile maps of 8-bit optimizers are shared by all parameters.
    tensors = [v for key, v in state if isinstance(v, torch.Tensor) and not key.startswith("qmap")]
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values()) + parameter.untyped_storage().nbytes() - parameter.nbytes


def _options_of(made: type[torch.optim.Optimizer]) -> list[str]:
    names = inspect.signature(made.__init__).parameters
    return [name for name in names if name not in _NOT_OPTIONS]
