"""Forge Neo as a host: Forge's, but for where prompt notes, LoRAs and LoRA files are kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lib_trainer.host.forge.host import ForgeHost
from lib_trainer.host.forge.model import ForgeModel
from lib_trainer.host.neo.model import NeoModel, NeoTransformer
from lib_trainer.host.webui.model_patcher import unpatch
from lib_trainer.models.families import ANIMA, CHROMA, FLUX, KLEIN4B, KLEIN9B, LUMINA2, SD1, SDXL, ZIMAGE, Family


class NeoHost(ForgeHost):
    """The Forge Neo that runs us."""

    name = "Forge Neo"
    unet_model: type[ForgeModel] = NeoModel
    transformer_model: type[ForgeModel] = NeoTransformer
    # One engine loads both of FLUX.2 Klein; the class of its configuration tells which.
    engines: Mapping[str, Family] = {
        "StableDiffusion": SD1,
        "StableDiffusionXL": SDXL,
        "Flux": FLUX,
        "Flux2K4B": KLEIN4B,
        "Flux2K9B": KLEIN9B,
        "ZImage": ZIMAGE,
        "Lumina2": LUMINA2,
        "Chroma": CHROMA,
        "Anima": ANIMA,
    }

    def _known_family(self, loaded: Any) -> Family | None:
        return super()._known_family(loaded) or self.engines.get(type(loaded.model_config).__name__)

    def _prompt_notes(self) -> Any:
        from backend.args import dynamic_args

        return dynamic_args

    def _take_out_loras(self, loaded: Any) -> None:
        from backend import memory_management

        unpatch(loaded, memory_management)

    def _forget_lora_files(self, path: Path) -> None:
        """Nothing to drop: Neo reads the files for every prompt."""
