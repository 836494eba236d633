"""Adapter files: written atomically, so that every WebUI reads them; validated when read."""

from __future__ import annotations

import hashlib
import json
import math
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from lib_trainer.adapter.attach import Adapter
from lib_trainer.adapter.delta_weight import DELTAS, lokr_second
from lib_trainer.adapter.dora import DORA
from lib_trainer.adapter.embedding import bundled, bundled_embeddings, is_bundled
from lib_trainer.adapter.foreign_keys import kohya_key, naming_of
from lib_trainer.adapter.keys import ALPHA, FILE_KEYS, NORM, algo_of, split_key
from lib_trainer.adapter.metadata import RECIPE_KEY, file_hashes
from lib_trainer.adapter.modules import AdapterModule
from lib_trainer.adapter.norms import NormModule
from lib_trainer.errors import UserError
from lib_trainer.models.device import DTYPES
from lib_trainer.utils.atomic_file import write_atomically
from lib_trainer.utils.json_object import json_object
from lib_trainer.utils.safetensors_header import HeaderError, header_of, read_header, with_metadata

# Sets of factors that make a complete layer; a file may lack any other.
_NEEDED = {
    "loha": ({"w1_a", "w1_b", "w2_a", "w2_b"},),
    "lokr": ({"w1", "w2"}, {"w1_a", "w1_b", "w2"}, {"w1", "w2_a", "w2_b"}, {"w1_a", "w1_b", "w2_a", "w2_b"}),
    "locon": ({"up", "down"},),
    NORM: ({"w"},),
}


@dataclass(frozen=True)
class AdapterFile:
    """What a file holds.

    Attributes:
        metadata: the file's own.
        factors: layer name -> its factors, float32 on the CPU.
        unmatched: keys of no LoHa, LoKr or LoCon layer and of no norm, and those of layers that cannot be computed.
        naming: whose names its keys have; see `foreign_keys.naming_of`.
        embeddings: word -> encoder -> (n, width) float32: the embeddings that it bundles.
    """

    metadata: dict[str, str]
    factors: dict[str, AdapterModule]
    unmatched: tuple[str, ...]
    naming: str = "kohya"
    embeddings: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    @property
    def dora(self) -> tuple[str, ...]:
        """Layers whose change depends on the weights that they are put on (DoRA)."""
        return tuple(name for name, module in self.factors.items() if module.dora_scale is not None)

    @property
    def size(self) -> str:
        """`192 layers of rank 4 to 8 and 61 norms`."""
        ranks = sorted(module.rank for module in self.factors.values() if module.algo != NORM)
        norms = len(self.factors) - len(ranks)
        parts = [f"{len(ranks)} layers of rank {ranks[0]} to {ranks[-1]}"] if ranks else []
        return " and ".join([*parts, *([f"{norms} norms"] if norms else [])])

    def require_read(self, name: str) -> None:
        """Raises UserError unless all that the file, here called `name`, does to a model was read."""
        if self.unmatched:
            kinds = ", ".join(sorted({key.partition(".")[2] or key for key in self.unmatched})[:3])
            raise UserError(
                f"{name} holds {len(self.unmatched)} tensors that are not read here ({kinds}).",
                "Choose a LoHa, LoKr, LoCon or LoRA file.",
            )


def adapter_tensors(adapter: Adapter, precision: str) -> dict[str, Tensor]:
    """Every tensor under its name in a file, on the CPU. Alpha stays float32: fp16 ends at 65504."""
    tensors = {}
    for layer, factors in adapter.layers.items():
        if factors.algo != NORM:
            tensors[f"{layer}.{ALPHA}"] = torch.tensor(factors.alpha)
        for name, value in _readable(factors).items():
            key = f"{layer}.{FILE_KEYS[factors.algo][name]}"
            tensors[key] = value.detach().to("cpu", DTYPES[precision]).contiguous()
        if factors.dora_scale is not None:
            # Float32: they scale the whole weight, whose rounding would outweigh ΔW.
            tensors[f"{layer}.{DORA}"] = factors.dora_scale.detach().to("cpu").contiguous()
    embedding = adapter.embedding
    return tensors | (bundled({embedding.word: dict(embedding.vectors.items())}) if embedding else {})


def _readable(factors: AdapterModule) -> dict[str, Tensor]:
    """The factors as every reader understands them: Forge fails on LoKr's Tucker core, so W2 is stored dense."""
    tensors = factors.tensors
    if factors.algo != "lokr" or "t2" not in tensors:
        return tensors
    first = {name: value for name, value in tensors.items() if name in ("w1", "w1_a", "w1_b")}
    # With two full factors readers scale by 1; with a low-rank W1 by alpha / rank as before.
    return {**first, "w2": lokr_second(tensors) * (factors.scale if "w1" in first else 1.0)}


def save_adapter(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Writes `path` atomically, with kohya's hashes of the tensors added to the metadata.

    Raises:
        NotWritten: the disk is full, or the file is held open or not writable.
        UserError: a value does not fit the save precision.
    """
    # fp16 ends at 65504; a WebUI would draw black images with such a file.
    broken = [key for key, value in tensors.items() if not torch.isfinite(value).all()]
    if broken:
        raise UserError(
            f"{path.name} was not written: {len(broken)} tensors hold NaN or Inf ({broken[0]}).",
            "Save as fp32 or bf16, or train with a lower learning rate.",
        )
    content = save(tensors)
    write_atomically(path, with_metadata(content, {**metadata, **file_hashes(content)}))


def read_metadata(path: Path) -> dict[str, str]:
    """A file's metadata, read without its tensors. Raises UserError for an invalid or incomplete file."""
    try:
        return read_header(path).metadata
    except (OSError, HeaderError) as error:
        raise _unreadable(path, error) from error


def read_adapter(path: Path) -> AdapterFile:
    """A LoHa, LoKr or LoCon file.

    Raises:
        UserError: the file is invalid or incomplete, or holds no layer of those kinds.
    """
    metadata = read_metadata(path)
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from error
    embeddings, unmatched = bundled_embeddings(tensors)
    tensors = {key: value for key, value in tensors.items() if not is_bundled(key)}
    found: dict[str, dict[str, dict[str, Tensor]]] = {}
    alphas: dict[str, float] = {}
    magnitudes: dict[str, Tensor] = {}
    names = {key: split_key(kohya_key(key)) for key in tensors}
    for key, value in tensors.items():
        layer, rest = names[key]
        if rest == ALPHA:
            # Something else than one number: the layer cannot be scaled.
            alphas[layer] = float(value) if value.numel() == 1 else math.nan
        elif rest == DORA:
            # PEFT's are a vector of rows, for a convolution turned on its side.
            magnitudes[layer] = value.float().flatten() if "magnitude_vector" in key else value.float()
        elif known := algo_of(rest):
            found.setdefault(layer, {}).setdefault(known[0], {})[known[1]] = value.float()
        else:
            unmatched.append(key)
    factors = {}
    for layer, by_algo in found.items():
        made = _factors(by_algo, alphas.get(layer), magnitudes.get(layer))
        if made is None:
            unmatched += [key for key, (owner, _) in names.items() if owner == layer]
        else:
            factors[layer] = made
    unmatched += [key for key, (layer, rest) in names.items() if rest in (ALPHA, DORA) and layer not in found]
    if not factors:
        raise UserError(f"{path.name} holds no LoHa, LoKr or LoRA layer.", "Choose a file from models/Lora.")
    return AdapterFile(metadata, factors, tuple(unmatched), naming_of(list(tensors)), embeddings)


def _factors(
    by_algo: dict[str, dict[str, Tensor]], alpha: float | None, magnitude: Tensor | None
) -> AdapterModule | None:
    # Two algorithms for one layer: no reader agrees on what that means.
    if len(by_algo) != 1:
        return None
    algo, tensors = next(iter(by_algo.items()))
    if not any(needed <= set(tensors) for needed in _NEEDED[algo]):
        return None
    ordered = {name: tensors[name] for name in FILE_KEYS[algo] if name in tensors}
    if algo == NORM:
        fits = magnitude is None and {value.shape for value in ordered.values()} == {(ordered["w"].numel(),)}
        return NormModule(ordered) if fits else None
    factors = AdapterModule(algo, ordered, 0.0, magnitude)
    if not _computes(algo, ordered):
        return None
    # A file without alpha means alpha = rank.
    factors.alpha = float(factors.rank or 1) if alpha is None else alpha
    return factors if math.isfinite(factors.alpha) else None


def _computes(algo: str, tensors: dict[str, Tensor]) -> bool:
    """Whether the factors fit together."""
    if any(tensor.ndim < 2 for tensor in tensors.values()):
        return False
    # A LoHa has both Tucker cores or none.
    if algo == "loha" and ("t1" in tensors) != ("t2" in tensors):
        return False
    return _shapes_compute(algo, tuple((name, tuple(tensor.shape)) for name, tensor in tensors.items()))


@lru_cache(maxsize=1024)
def _shapes_compute(algo: str, shapes: tuple[tuple[str, tuple[int, ...]], ...]) -> bool:
    """Kept, since most layers of a model have the shapes of another, and a trial takes a millisecond."""
    try:
        DELTAS[algo]({name: torch.empty(shape, device="meta") for name, shape in shapes})
    except (RuntimeError, IndexError, ValueError):
        return False
    return True


def is_ours(path: Path) -> bool:
    """Whether an adapter file was trained here."""
    with suppress(UserError):
        return RECIPE_KEY in read_metadata(path)
    # Invalid or incomplete: ours are written atomically.
    return False


def free_path(path: Path) -> Path:
    """`path`, or where another program's file stands there, NAME-2, NAME-3 …"""
    free, number = path, 1
    # Ours may be replaced by a newer run of the same name; others' never.
    while free.exists() and not is_ours(free):
        number += 1
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return free


def copy_adapter(source: Path, target: Path, name: str, strength: float | None = None) -> None:
    """Writes `target` atomically, with the tensors of `source`.

    Args:
        name: of the adapter, in the metadata.
        strength: that the metadata recommends; None keeps the old one.

    Raises:
        UserError: when `source` cannot be read or `target` cannot be written.
    """
    try:
        content = source.read_bytes()
        metadata = header_of(content).metadata
    except (OSError, HeaderError) as error:
        raise _unreadable(source, error) from error
    write_atomically(target, with_metadata(content, _renamed(metadata, name, strength)))


def tensors_hash(path: Path) -> str:
    """Equal for files of equal tensors, whatever their metadata."""
    content = path.read_bytes()
    header = header_of(content)
    # Without metadata: a renamed copy must be recognised.
    digest = hashlib.sha256(json.dumps(header.layout, sort_keys=True).encode())
    digest.update(memoryview(content)[header.size_bytes :])
    return digest.hexdigest()


def _renamed(metadata: dict[str, str], name: str, strength: float | None) -> dict[str, str]:
    changed = {**metadata, "ss_output_name": name, "modelspec.title": name}
    recipe = json_object(metadata.get(RECIPE_KEY, ""))
    if recipe:
        recipe["output_name"] = name
        if strength is not None:
            recipe["preferred_weight"] = strength
        changed[RECIPE_KEY] = json.dumps(recipe, ensure_ascii=False)
        changed["modelspec.usage_hint"] = f"<lora:{name}:{recipe.get('preferred_weight', 1):g}>"
    return changed


def _unreadable(path: Path, error: Exception) -> UserError:
    reason = (error.strerror if isinstance(error, OSError) else None) or error
    return UserError(f"{path.name} cannot be read: {reason}.", "Choose a .safetensors file.")
