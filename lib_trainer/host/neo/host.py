"""Forge Neo as a host: Forge's, but for where prompt notes, LoRAs and LoRA files are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lib_trainer.host.forge.host import ForgeHost
from lib_trainer.host.forge.model import ForgeModel
from lib_trainer.host.neo.model import NeoModel
from lib_trainer.host.webui.model_patcher import unpatch


class NeoHost(ForgeHost):
    """The Forge Neo that runs us."""

    name = "Forge Neo"
    model_type: type[ForgeModel] = NeoModel

    def _prompt_notes(self) -> Any:
        from backend.args import dynamic_args

        return dynamic_args

    def _take_out_loras(self, loaded: Any) -> None:
        from backend import memory_management

        unpatch(loaded, memory_management)

    def _forget_lora_files(self, path: Path) -> None:
        """Nothing to drop: Neo reads the files for every prompt."""
