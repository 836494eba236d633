"""What is done with finished LoRAs: another rank, several as one, into a checkpoint, and out of two checkpoints."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from lib_trainer.adapter.attach import Adapter
from lib_trainer.adapter.embedding import bundled
from lib_trainer.adapter.foreign_keys import names_in_model
from lib_trainer.adapter.io import AdapterFile, adapter_tensors, read_adapter, save_adapter
from lib_trainer.adapter.keys import NORM
from lib_trainer.adapter.modules import AdapterModule
from lib_trainer.adapter.norms import NormModule
from lib_trainer.errors import UserError
from lib_trainer.lora.svd import Cut, as_locon, factored, split
from lib_trainer.models.checkpoint_file import read_single_file
from lib_trainer.models.checkpoint_layers import WeightRows, norm_rows, weight_rows
from lib_trainer.models.families import Family
from lib_trainer.utils.atomic_file import replace_with
from lib_trainer.utils.safetensors_header import HeaderError, read_header

if TYPE_CHECKING:
    from lib_trainer.models.base import Vectors

# What a WebUI needs to know for which checkpoints a file is, and a person for what.
_KEPT = ("ss_base_model_version", "ss_v2", "modelspec.architecture", "modelspec.implementation", "ss_sd_model_name")
_KEPT += ("ss_clip_skip", "modelspec.prediction_type", "modelspec.trigger_phrase", "ss_tag_frequency")
# Differences below this are those of rounding, and no training.
_SAME = 1e-5
Strong = tuple[Path, float]


@dataclass(frozen=True)
class Target:
    """Where a tool writes.

    Attributes:
        replace: a file that is there already may be replaced.
        report: is told (layers done, all layers).
    """

    path: Path
    replace: bool = False
    report: Callable[[int, int], None] = lambda done, total: None

    def require_free(self) -> None:
        if self.path.exists() and not self.replace:
            raise UserError(f"{self.path} exists already.", "Name a file that does not.")
        if self.path.suffix != ".safetensors":
            raise UserError(f"{self.path.name} does not end in .safetensors.", f"Name it {self.path.stem}.safetensors.")


def merge_loras(loras: Sequence[Strong], target: Target, cut: Cut, precision: str) -> AdapterFile:
    """Writes Σ strength·ΔW of LoRAs as one, and returns it as it is read again. One alone is resized.

    Raises:
        UserError: a file cannot be read, holds what cannot be merged, or the target exists.
    """
    target.require_free()
    files = [(_readable(path), strength) for path, strength in loras]
    changes: dict[str, list[tuple[AdapterModule, float]]] = {}
    for file, strength in files:
        for name, module in file.factors.items():
            changes.setdefault(name, []).append((module, strength))
    modules = {}
    for done, (name, found) in enumerate(changes.items(), 1):
        modules[name] = factored(name, found, cut)
        target.report(done, len(changes))
    if loras[0][1] == 1 and len(loras) == 1:
        # m·V/‖V‖ is the same with the same ΔW.
        for name, module in modules.items():
            module.dora_scale = files[0][0].factors[name].dora_scale
    elif dora := [path.name for (path, _), (file, _) in zip(loras, files, strict=True) if file.dora]:
        raise UserError(
            f"What {dora[0]} changes depends on the checkpoint: it is a DoRA.", "Merge it into a checkpoint instead."
        )
    words: dict[str, Vectors] = {}
    for (path, _), (file, _) in zip(loras, files, strict=True):
        if twice := sorted(words.keys() & file.embeddings):
            raise UserError(f"{path.name} bundles an embedding for {twice[0]}, as another does.", "Merge one of them.")
        words |= file.embeddings
    return _written(target, modules, files[0][0].metadata, precision, words)


def merge_into_checkpoint(checkpoint: Path, loras: Sequence[Strong], target: Target) -> int:
    """Writes the checkpoint with W + Σ strength·ΔW in its own number format; returns how many layers changed.

    Raises:
        UserError: a file cannot be read, fits no layer, or the target exists.
    """
    target.require_free()
    files = [(path, _readable(path), strength) for path, strength in loras]
    for path, file, _ in files:
        if file.embeddings:
            raise UserError(
                f"{path.name} bundles an embedding for {', '.join(file.embeddings)}, which a checkpoint cannot hold.",
                "Draw with the LoRA itself.",
            )
    family, weights = _weights_of(checkpoint)
    weights |= norm_rows(read_header(checkpoint).shapes, family)
    tensors, metadata = _loaded(checkpoint)
    changed = set()
    # Summed in float32 and rounded once, however many LoRAs change a tensor.
    sums: dict[str, Tensor] = {}
    for path, file, strength in files:
        meant = names_in_model(file.factors, list(weights))
        if not meant:
            raise UserError(f"{path.name} changes no layer of {checkpoint.name}.", f"Choose a LoRA for {family.label}.")
        for done, (there, here) in enumerate(meant.items(), 1):
            target.report(done, len(meant))
            at = weights[here]
            total = sums.setdefault(at.key, tensors[at.key].float())
            rows = total[at.first_row : at.first_row + at.rows]
            module = file.factors[there]
            with torch.no_grad():
                rows += strength * _change(module, rows, path.name)
                if (added := module.bias_change()) is not None:
                    sums.setdefault(at.bias_key, tensors[at.bias_key].float()).add_(strength * added)
            changed.add(here)
    tensors.update({key: total.to(tensors[key].dtype) for key, total in sums.items()})
    _save(tensors, target.path, metadata)
    return len(changed)


def extract_lora(tuned: Path, base: Path, target: Target, cut: Cut, precision: str) -> AdapterFile:
    """Writes the difference of two checkpoints of one family as a LoRA, norms included, and returns it as it is read.

    Raises:
        UserError: they are of two families, do not differ, or the target exists.
    """
    target.require_free()
    family, weights = _weights_of(tuned)
    base_family, base_weights = _weights_of(base)
    if family is not base_family:
        raise UserError(f"{tuned.name} is {family.label}, {base.name} is {base_family.label}.", "Choose two of a kind.")
    modules: dict[str, AdapterModule] = {}
    norms, base_norms = (norm_rows(read_header(path).shapes, family) for path in (tuned, base))
    with safe_open(tuned, framework="pt") as one, safe_open(base, framework="pt") as other:
        for done, (name, at) in enumerate(weights.items(), 1):
            target.report(done, len(weights))
            # A layer that only one of the two has has no difference.
            if name not in base_weights:
                continue
            before = _rows(other, base_weights[name])
            change = _rows(one, at) - before
            if change.abs().max() > _SAME * before.abs().max():
                kernel = tuple(change.shape[2:])
                modules[name] = as_locon(*split(change.flatten(1), cut), kernel)
        for name in (name for name in norms if name in base_norms):
            if changed := _norm_change(one, norms[name], other, base_norms[name]):
                modules[name] = changed
    if not modules:
        raise UserError(f"{tuned.name} and {base.name} hold the same weights.", "Choose two checkpoints that differ.")
    metadata = {"ss_base_model_version": family.base_model_version, "modelspec.architecture": family.architecture}
    return _written(target, modules, metadata, precision)


def _norm_change(tuned: safe_open, at: WeightRows, base: safe_open, base_at: WeightRows) -> NormModule | None:
    """What is added to weight and bias of a norm; None where neither differs."""
    keys = ((at.key, base_at.key), (at.bias_key, base_at.bias_key))
    pairs = [(tuned.get_tensor(key).float(), base.get_tensor(base_key).float()) for key, base_key in keys]
    if all((one - other).abs().max() <= _SAME * other.abs().max() for one, other in pairs):
        return None
    return NormModule(dict(zip("wb", (one - other for one, other in pairs), strict=True)))


def _written(
    target: Target,
    modules: Mapping[str, AdapterModule],
    source: Mapping[str, str],
    precision: str,
    words: Mapping[str, Vectors] | None = None,
) -> AdapterFile:
    adapter = Adapter(dict(modules))
    ranks = {module.rank for module in modules.values() if module.algo != NORM} or {0}
    kept = {key: source[key] for key in _KEPT if key in source}
    metadata = {
        **kept,
        "ss_network_module": "networks.lora",
        # kohya's word for files whose layers differ.
        "ss_network_dim": str(max(ranks)) if len(ranks) == 1 else "Dynamic",
        "ss_network_args": json.dumps({"conv_dim": str(max(ranks))}),
        "ss_output_name": target.path.stem,
        "modelspec.title": target.path.stem,
    }
    save_adapter(target.path, adapter_tensors(adapter, precision) | bundled(words or {}), metadata)
    return read_adapter(target.path)


def _readable(path: Path) -> AdapterFile:
    file = read_adapter(path)
    file.require_read(path.name)
    return file


def _change(module: AdapterModule, weight: Tensor, name: str) -> Tensor:
    try:
        return module.change(weight)
    except RuntimeError as error:
        raise UserError(
            f"{name} does not fit this checkpoint: a layer has another size.", "It was trained on another model."
        ) from error


def _weights_of(checkpoint: Path) -> tuple[Family, dict[str, WeightRows]]:
    family = read_single_file(checkpoint).family
    return family, weight_rows(read_header(checkpoint).shapes, family)


def _rows(file: safe_open, at: WeightRows) -> Tensor:
    return file.get_tensor(at.key)[at.first_row : at.first_row + at.rows].float()


def _loaded(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        return load_file(path), read_header(path).metadata
    except (OSError, SafetensorError, HeaderError) as error:
        raise UserError(f"{path.name} cannot be read: {error}.", "Choose a .safetensors file.") from error


def _save(tensors: dict[str, Tensor], target: Path, metadata: dict[str, str]) -> None:
    try:
        replace_with(target, partial(save_file, tensors, metadata=metadata or None))
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{target.name} cannot be written: {error}.", "Free space on the disk, or choose another."
        ) from error
