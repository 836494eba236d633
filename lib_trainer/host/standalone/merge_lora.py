"""`<lora:NAME:STRENGTH>` without a WebUI: read from the prompt, put into the weights, taken out exactly."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lib_trainer.adapter.io import read_adapter, read_metadata
from lib_trainer.adapter.modules import AdapterModule
from lib_trainer.errors import UserError
from lib_trainer.lora.describe import describe_lora
from lib_trainer.lora.info import LoraInfo
from lib_trainer.models.base import Layer

_TAG = re.compile(r"<lora:([^:>]+)(?::([^>]*))?>")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wanted:
    """A LoRA that a prompt asks for."""

    name: str
    strength: float


def parse_prompt(prompt: str) -> tuple[str, tuple[Wanted, ...]]:
    """The prompt without its tags, and what the tags ask for. A tag without a strength means 1.

    Raises:
        UserError: for a strength that is no number.
    """
    wanted = []
    for name, strength in _TAG.findall(prompt):
        try:
            wanted.append(Wanted(name, float(strength) if strength else 1.0))
        except ValueError as error:
            raise UserError(
                f"{strength!r} in <lora:{name}:{strength}> is no strength.", "Write a number like 0.8."
            ) from error
    return " ".join(_TAG.sub("", prompt).split()), tuple(wanted)


def find_loras(folder: Path, wanted: Sequence[Wanted]) -> list[tuple[Path, float]]:
    """The files that are asked for, sub-folders included, with their strengths.

    Raises:
        UserError: with every name that has no file.
    """
    files = _by_name(folder)
    missing = [item.name for item in wanted if item.name not in files]
    if missing:
        known = ", ".join(sorted(files)) or "none"
        raise UserError(f"There is no LoRA named {', '.join(missing)}.", f"In {folder} there are: {known}.")
    return [(files[item.name], item.strength) for item in wanted]


def list_loras(folder: Path) -> list[LoraInfo]:
    """Every .safetensors file below the folder, by name."""
    by_name = _by_name(folder)
    found = []
    for path in _files(folder):
        twin, problem, metadata = by_name[path.stem], "", {}
        if twin != path:
            problem = f"{twin.relative_to(folder)} has the same name and hides it"
        elif reserved := set(path.stem) & set("<:>"):
            problem = f"“{min(reserved)}” in its name is part of a tag"
        else:
            try:
                metadata = read_metadata(path)
            except UserError as error:
                problem = error.message.removesuffix(".")
        found.append(describe_lora(path, path.stem, metadata, problem=problem))
    return sorted(found, key=lambda lora: (lora.name.lower(), str(lora.path)))


def _files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def _by_name(folder: Path) -> dict[str, Path]:
    """The file that each name means: of several the first in the order of their paths."""
    return {path.stem: path for path in reversed(_files(folder))}


@contextmanager
def merged_loras(layers: Sequence[Layer], files: Sequence[tuple[Path, float]]) -> Iterator[None]:
    """While entered, the weights hold W + Σ strength·ΔW; then they are the very numbers they were.

    Raises:
        UserError: for a file none of whose layers the model has.
    """
    by_name = {layer.name: layer for layer in layers}
    # Every file is read before the first weight changes.
    changes = [(_matching(path, by_name), strength) for path, strength in files]
    kept: dict[str, Tensor] = {}
    try:
        for factors, strength in changes:
            for name, factor in factors.items():
                weight = by_name[name].module.weight.data
                kept.setdefault(name, weight.clone())
                with torch.no_grad():
                    change = factor.to(weight.device).delta(weight.shape)
                    # Summed in float32: a small change must not vanish in half precision before it is added.
                    weight.copy_(weight.float() + strength * change)
        yield
    finally:
        for name, weight in kept.items():
            by_name[name].module.weight.data.copy_(weight)


def _matching(path: Path, by_name: dict[str, Layer]) -> dict[str, AdapterModule]:
    factors = read_adapter(path).factors
    known = {name: factor for name, factor in factors.items() if name in by_name}
    if not known:
        raise UserError(f"{path.name} fits none of this model's layers.", "It was trained for another model family.")
    if len(known) < len(factors):
        _log.warning(
            "%s: %d of its %d layers are not in this model", path.name, len(factors) - len(known), len(factors)
        )
    return known
