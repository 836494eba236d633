"""The layers of a model that take part in a run."""

from __future__ import annotations

from dataclasses import dataclass

from lib_trainer.config.recipe import Recipe
from lib_trainer.models.base import HostModel, Layer
from lib_trainer.training.start import Start


@dataclass(frozen=True)
class RunLayers:
    """Layers by what happens to them.

    Attributes:
        denoiser: of the UNet or transformer, with its norms where they take part.
        text: of text encoders that are trained.
        frozen_text: of text encoders that a frozen LoRA changes, and that are not trained.
    """

    denoiser: list[Layer]
    text: list[Layer]
    frozen_text: list[Layer]

    @property
    def every(self) -> list[Layer]:
        """All of them."""
        return [*self.denoiser, *self.text, *self.frozen_text]

    def trained(self, recipe: Recipe) -> list[Layer]:
        """Those that get an adapter. One of SDXL's two text encoders may be left alone."""
        return [*self.denoiser, *(layer for layer in self.text if recipe.training.rate_of(layer.name) > 0)]


def run_layers(model: HostModel, recipe: Recipe, start: Start) -> RunLayers:
    """What takes part in a run of this recipe that begins with these LoRAs."""
    norms = model.norm_layers() if recipe.adapter.train_norm or start.has_norms else []
    trains_text = recipe.training.trains_text
    text = model.text_layers() if trains_text or start.freezes_text else []
    return RunLayers([*model.adaptable_layers(), *norms], text if trains_text else [], [] if trains_text else text)
