"""reForge and Forge Classic as a host: A1111's, but for the thread that generates, LoRAs, and how models are moved."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import torch

from lib_trainer.errors import UserError
from lib_trainer.host.a1111.host import A1111Host, first_load_runs, kept_prompt_notes
from lib_trainer.host.reforge.model import ReforgeModel, prediction_of
from lib_trainer.host.webui.generation_thread import on_generation_thread
from lib_trainer.host.webui.lock import generation_lock
from lib_trainer.host.webui.model_guard import model_guard
from lib_trainer.host.webui.model_patcher import unpatch
from lib_trainer.models.families import SD1, SD2, SDXL, Family
from lib_trainer.utils.patch import attributes

T = TypeVar("T")

_MOVERS = ("free_memory", "load_models_gpu", "unload_all_models")
# Some move models without the functions above, or tear a loaded model apart.
_LOADERS = (
    "load_model",
    "reload_model_weights",
    "unload_model_weights",
    "load_model_to_device",
    "set_model_active",
    "unload_specific_model",
)
_ENCODERS = {
    ("CLIP_SD_15_L",): SD1,
    ("CLIP_SD_21_H",): SD2,
    ("CLIP_SD_XL_L", "CLIP_SD_XL_G"): SDXL,
}


class ReforgeHost(A1111Host):
    """The reForge or Forge Classic that runs us. `loaded` is its `shared.sd_model`."""

    name = "reForge"
    reads_bundled_embeddings = False

    def run_exclusive(self, fn: Callable[[], T]) -> T:
        from ldm_patched.modules import model_management
        from modules import sd_models

        def work() -> T:
            with (
                model_guard(model_management, _MOVERS, first_load_runs),
                model_guard(sd_models, _LOADERS, first_load_runs),
            ):
                return fn()

        with generation_lock() as flags, attributes([self], _flags=flags):
            return on_generation_thread(work)

    def _known_family(self, loaded: Any) -> Family | None:
        if getattr(loaded, "forge_objects_original", None) is None:
            return None
        # The program's own marks take SD 2.x for SD 1.x; each family has its class of text encoder.
        conditioner = getattr(loaded, "conditioner", None)
        encoders = [loaded.cond_stage_model] if conditioner is None else list(conditioner.embedders)
        names = (type(encoder).__name__ for encoder in encoders)
        return _ENCODERS.get(tuple(name for name in names if name.startswith("CLIP_SD")))

    def _trainable_family(self, loaded: Any) -> Family:
        family = super()._trainable_family(loaded)
        if prediction_of(loaded) is None:
            name = loaded.sd_checkpoint_info.name
            raise UserError(
                f"{name} is a rectified-flow or EDM checkpoint, which cannot be trained here.",
                "Train on the model it was made from.",
            )
        return family

    def _wrap(self, loaded: Any, family: Family, undo: ExitStack) -> ReforgeModel:
        undo.enter_context(kept_prompt_notes())
        return ReforgeModel(loaded, family, undo)

    def _take_out_loras(self, loaded: Any) -> None:
        from ldm_patched.modules import model_management

        unpatch(loaded, model_management)

    def _forget_lora_files(self, path: Path) -> None:
        import networks

        # Keyed by file name alone, so a retrained file would keep its old weights until five others were loaded.
        networks.load_lora_state_dict.cache_clear()

    def _free_memory(self) -> None:
        from ldm_patched.modules import model_management

        # As the program itself moves models between pictures.
        with torch.inference_mode():
            model_management.unload_all_models()
        model_management.soft_empty_cache()
