"""`<lora:NAME:STRENGTH>` without a WebUI: read from the prompt, merged into the weights, taken out exactly."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from lib_trainer.adapter.embedding import is_bundled
from lib_trainer.adapter.foreign_keys import names_in_model
from lib_trainer.adapter.io import read_adapter, read_metadata
from lib_trainer.adapter.modules import AdapterModule
from lib_trainer.errors import UserError
from lib_trainer.host.webui.prompts import literal_caption
from lib_trainer.lora.describe import describe_lora
from lib_trainer.lora.info import LoraInfo
from lib_trainer.lora.tags import LoraRef, bare, tags_in
from lib_trainer.models.base import Layer
from lib_trainer.utils.safetensors_header import read_header

_log = logging.getLogger(__name__)


def parse_prompt(prompt: str) -> tuple[str, tuple[LoraRef, ...]]:
    """The prompt without its tags, and the LoRAs that they name. A tag without a strength means 1.

    Raises:
        UserError: for a strength that is not a number.
    """
    wanted = []
    for name, strength in tags_in(prompt):
        try:
            wanted.append(LoraRef(name, float(strength) if strength else 1.0))
        except ValueError as error:
            message = f"{strength!r} in <lora:{name}:{strength}> is not a strength."
            raise UserError(message, "Write a number like 0.8.") from error
    # Prompts are written for WebUIs, where `\(` is a bracket.
    return literal_caption(" ".join(bare(prompt).split())), tuple(wanted)


def find_loras(folder: Path, wanted: Sequence[LoraRef]) -> list[tuple[Path, float]]:
    """The files of these names, sub-folders included, with their strengths.

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
        # Names, not paths, stand in prompts, so of two equal ones the second cannot be called.
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
    """The file that each name means: of several, the first by path."""
    return {path.stem: path for path in reversed(_files(folder))}


@contextmanager
def merged_loras(layers: Sequence[Layer], files: Sequence[tuple[Path, float]]) -> Iterator[None]:
    """While entered, the weights hold W + Σ strength·ΔW; then they are bit for bit what they were.

    Raises:
        UserError: for a file none of whose layers the model has.
    """
    by_name = {layer.name: layer for layer in layers}
    # Every file is read before the first weight changes: a damaged one must not leave half of a merge.
    changes = [(_matching(path, by_name), strength) for path, strength in files]
    # Copies, not W − ΔW: subtracting in half precision would not give W back.
    kept: dict[tuple[str, str], Tensor] = {}
    try:
        for factors, strength in changes:
            for name, factor in factors.items():
                module = by_name[name].module
                with torch.no_grad():
                    added = {"weight": _change(factor, name, module.weight.data), "bias": factor.bias_change()}
                    for part, change in added.items():
                        tensor = getattr(module, part)
                        if change is None or tensor is None:
                            continue
                        kept.setdefault((name, part), tensor.data.clone())
                        # Summed in float32: a small change must not vanish in half precision before it is added.
                        tensor.data.copy_(tensor.float() + strength * change)
        yield
    finally:
        for (name, part), tensor in kept.items():
            getattr(by_name[name].module, part).data.copy_(tensor)


def bundled_words(files: Sequence[Path]) -> dict[str, dict[str, Tensor]]:
    """Word -> its vectors, of the embeddings that LoRA files bundle. They act in full at any strength, as in A1111."""
    bundling = [path for path in files if any(map(is_bundled, read_header(path).shapes))]
    return {word: vectors for path in bundling for word, vectors in read_adapter(path).embeddings.items()}


def _change(factor: AdapterModule, name: str, weight: Tensor) -> Tensor:
    try:
        return factor.to(weight.device).change(weight)
    except RuntimeError as error:
        message = f"The LoRA does not fit this checkpoint: its layer {name} has another size."
        raise UserError(message, "It was trained on a model of another width.") from error


def _matching(path: Path, by_name: dict[str, Layer]) -> dict[str, AdapterModule]:
    file = read_adapter(path)
    factors = file.factors
    known = {here: factors[there] for there, here in names_in_model(factors, list(by_name)).items()}
    if not known:
        raise UserError(f"{path.name} matches none of this model's layers.", "It was trained for another model family.")
    if len(known) < len(factors):
        _log.warning(
            "%s: %d of its %d layers are not in this model", path.name, len(factors) - len(known), len(factors)
        )
    return known
