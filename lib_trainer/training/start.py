"""The LoRAs that a run starts from: found, read, and put where the recipe wants them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lib_trainer.adapter.attach import Adapter, ReadLayer, new_adapter
from lib_trainer.adapter.frozen import FrozenLoras
from lib_trainer.adapter.io import AdapterFile, read_adapter, tensors_hash
from lib_trainer.adapter.keys import NORM
from lib_trainer.adapter.start import config_of, continued_adapter, factors_for
from lib_trainer.config.embedding import EmbeddingConfig
from lib_trainer.config.recipe import Recipe
from lib_trainer.config.start import is_path
from lib_trainer.errors import UserError
from lib_trainer.host.base import Host
from lib_trainer.lora.lookup import find_lora, missing_loras
from lib_trainer.memory.layer_cost import ModuleShape
from lib_trainer.models.base import Layer

if TYPE_CHECKING:
    from lib_trainer.models.base import Vectors


@dataclass(frozen=True)
class Start:
    """What a run begins with besides the checkpoint.

    Attributes:
        continued: (name, file) of the LoRA that is trained on; None for a new one.
        frozen: (name, file, strength) of each LoRA that acts and does not change.
        fingerprint: of the tensors of them all; "" without any.
    """

    continued: tuple[str, AdapterFile] | None = None
    frozen: tuple[tuple[str, AdapterFile, float], ...] = ()
    fingerprint: str = ""

    def adapter(self, recipe: Recipe, layers: Sequence[Layer], read_weight: ReadLayer) -> tuple[Adapter, str]:
        """The adapter that is trained, and a sentence for the person; "" if it is new.

        Args:
            read_weight: `HostModel.read_weight`, with the frozen LoRAs.
        """
        if self.continued is None:
            return new_adapter(layers, recipe.adapter, recipe.training.seed, read_weight), ""
        name, file = self.continued
        found = factors_for(file, layers, name)
        whole = recipe.start.dim_from_weights
        adapter, fresh = continued_adapter(
            found, layers, recipe.adapter, recipe.training.seed, dim_from_weights=whole, read_weight=read_weight
        )
        kept = sum(layer in found for layer in adapter.layers)
        sentence = f"Continues {name}: {kept} of its {len(file.factors)} layers"
        return adapter, f"{sentence}, and {fresh} new ones." if fresh else f"{sentence}."

    def sized(self, recipe: Recipe, layers: Sequence[Layer]) -> Recipe:
        """The recipe, with type and ranks of the LoRA that is continued where it asks for them."""
        if self.continued is None or not recipe.start.dim_from_weights:
            return recipe
        name, file = self.continued
        return replace(recipe, adapter=config_of(factors_for(file, layers, name), layers, recipe.adapter))

    def shapes(self, recipe: Recipe, layers: Sequence[Layer]) -> tuple[tuple[str, ModuleShape], ...]:
        """(layer, its adapter) of the LoRA that is continued, where the recipe takes its layers and ranks."""
        if self.continued is None or not recipe.start.dim_from_weights:
            return ()
        name, file = self.continued
        return tuple((layer, ModuleShape.of(module)) for layer, module in factors_for(file, layers, name).items())

    @property
    def has_norms(self) -> bool:
        """Whether any of the LoRAs changes norms."""
        files = [file for _, file, _ in self.frozen] + ([self.continued[1]] if self.continued else [])
        return any(module.algo == NORM for file in files for module in file.factors.values())

    def frozen_loras(self, layers: Sequence[Layer]) -> FrozenLoras:
        """The frozen LoRAs on these layers of the model."""
        return FrozenLoras([(factors_for(file, layers, name), strength) for name, file, strength in self.frozen])

    @property
    def freezes_text(self) -> bool:
        """Whether a frozen LoRA changes a text encoder."""
        return any(layer.startswith("lora_te") for _, file, _ in self.frozen for layer in file.factors)

    @property
    def frozen_embeddings(self) -> dict[str, Vectors]:
        """Word -> its vectors, of the embeddings that frozen LoRAs bundle."""
        return {word: vectors for _, file, _ in self.frozen for word, vectors in file.embeddings.items()}

    @property
    def continued_vectors(self) -> Vectors:
        """Of the embedding that the LoRA that is continued bundles; {} without one."""
        bundled = self.continued[1].embeddings if self.continued else {}
        return next(iter(bundled.values()), {})

    def check_embeddings(self, config: EmbeddingConfig, word: str) -> None:
        """Raises UserError where the bundled embeddings do not go with that of the run, for `word`; "" without one."""
        if word and word in self.frozen_embeddings:
            name = next(name for name, file, _ in self.frozen if word in file.embeddings)
            raise UserError(f"{name}, which stays as it is, bundles an embedding for {word}.", "Choose another word.")
        if self.continued is None:
            return
        name, file = self.continued
        sizes = {known: len(next(iter(vectors.values()))) for known, vectors in file.embeddings.items()}
        if sizes and sizes != {word: config.num_vectors_per_token}:
            told = " and ".join(f"{known} ({size} vectors)" for known, size in sizes.items())
            raise UserError(
                f"{name} bundles an embedding for {told}, which this run would lose.",
                "Set token_string and num_vectors_per_token to these.",
            )

    @property
    def tags(self) -> str:
        """The tags of the frozen LoRAs, for prompts."""
        return " ".join(f"<lora:{name}:{strength:g}>" for name, _, strength in self.frozen)


def open_start(recipe: Recipe, host: Host) -> Start:
    """Reads the LoRAs that the recipe names.

    Raises:
        UserError: one does not exist, or cannot be read.
    """
    config = recipe.start
    continued, frozen, hashes = None, [], []
    if config.network_weights:
        path = _find(config.network_weights, host)
        continued = (path.stem, read_adapter(path))
        hashes.append(tensors_hash(path))
    for name, strength in config.base_loras:
        path = _find(name, host)
        frozen.append((path.stem, read_adapter(path), strength))
        hashes.append(tensors_hash(path))
    return Start(continued, tuple(frozen), " ".join(hashes))


def _find(name: str, host: Host) -> Path:
    """The file of this name among the host's LoRAs, or of this path."""
    if is_path(name):
        path = Path(name).expanduser()
        if not path.is_file():
            raise UserError(f"There is no file {name}.", "Name a LoRA of the Lora tab, or the path of a file.")
        return path
    loras = host.loras(refresh=True)
    found = find_lora(name.removesuffix(".safetensors"), loras)
    if found is None:
        raise missing_loras([name], loras)
    return found.path
