"""stable-diffusion-webui-forge: its loaded checkpoint is borrowed, trained on, and given back as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch

from lib_trainer.errors import UserError
from lib_trainer.host.forge.inspect import profile_of_engine, profile_of_file, refusal
from lib_trainer.host.forge.model import ForgeModel
from lib_trainer.host.webui import lock as webui_turn
from lib_trainer.host.webui import loras as webui_loras
from lib_trainer.host.webui.host import WebuiHost
from lib_trainer.host.webui.model_guard import model_guard
from lib_trainer.host.webui.model_patcher import forget_loras
from lib_trainer.host.webui.prompts import forget_prompts
from lib_trainer.models.families import SD1, SD2, SDXL, Family
from lib_trainer.models.placement import MemoryProfile
from lib_trainer.utils.patch import attributes

T = TypeVar("T")

_MOVERS = ("free_memory", "load_models_gpu", "unload_all_models")
_ENGINES = {"StableDiffusion": SD1, "StableDiffusion2": SD2, "StableDiffusionXL": SDXL}


class ForgeHost(WebuiHost):
    """The Forge that runs us; Forge Neo derives from it.

    Attributes:
        model_type: how its loaded checkpoint is borrowed.
    """

    name = "Forge"
    model_type: type[ForgeModel] = ForgeModel

    def run_exclusive(self, fn: Callable[[], T]) -> T:
        """fn() on Forge's generation thread, which swallows exceptions: they are carried around it."""
        from backend import memory_management
        from modules_forge import main_thread

        outcome: dict[str, Any] = {}

        def work() -> None:
            try:
                with model_guard(memory_management, _MOVERS):
                    outcome["result"] = fn()
            except BaseException as error:  # noqa: BLE001 - raised again below, on the caller's thread
                outcome["error"] = error

        with webui_turn.generation_lock() as presses, attributes([self], _presses=presses):
            main_thread.run_and_wait_result(work)
        if "error" not in outcome:
            return outcome.pop("result")
        error = outcome.pop("error")
        try:
            raise error
        finally:
            # Its traceback leads back to this frame: a circle that would keep all of the failed run's tensors.
            del error

    def _selected(self) -> Any:
        from modules import sd_models
        from modules_forge import main_entry

        if not sd_models.model_data.forge_loading_parameters:
            main_entry.refresh_model_loading_parameters()
        if sd_models.model_data.forge_loading_parameters.get("checkpoint_info") is None:
            raise UserError("No checkpoint is selected.", "Choose one at the top of the WebUI.")
        engine, _ = sd_models.forge_model_reload()
        return engine

    def _family_of(self, loaded: Any) -> Family:
        kind, name = type(loaded).__name__, loaded.sd_checkpoint_info.name
        if kind not in _ENGINES:
            raise UserError(
                f"{name} is a {kind} checkpoint, which cannot be trained here.",
                "Choose an SD 1.x, SD 2.x or SDXL checkpoint.",
            )
        if reason := refusal(loaded):
            raise UserError(f"{name} {reason}.", "Train on the model it was made from.")
        return _ENGINES[kind]

    def _borrow(self, loaded: Any, family: Family, undo: ExitStack) -> ForgeModel:
        # Encoding a caption leaves notes for the next picture's infotext; captions are none of its business.
        holder = self._prompt_notes()
        notes = dict(holder.last_extra_generation_params)
        undo.enter_context(attributes([holder], last_extra_generation_params=notes))
        return self.model_type(loaded, family, undo)

    def _prompt_notes(self) -> Any:
        """Whose `last_extra_generation_params` the text engines write to."""
        from backend.text_processing import classic_engine

        return classic_engine

    def _take_out_loras(self, loaded: Any) -> None:
        original = forget_loras(loaded)
        for patcher in (original.unet, original.clip.patcher):
            # By force: a merge that failed half-way left weights changed, and the loader believing that none are.
            patcher.lora_loader.refresh(lora_patches={}, offload_device=patcher.offload_device, force_refresh=True)

    @contextmanager
    def _held(self, loaded: Any) -> Iterator[None]:
        from modules import processing, sd_models

        with attributes([processing, sd_models], forge_model_reload=lambda: (loaded, False)):
            yield

    def _free_memory(self) -> None:
        from backend import memory_management

        # As Forge itself would: what is moved outside inference mode is no inference tensor any more.
        with torch.inference_mode():
            memory_management.unload_all_models()
        memory_management.soft_empty_cache()

    def drawing_family(self) -> Family | None:
        engine = _loaded_engine()
        return _ENGINES.get(type(engine).__name__) if engine else None

    def lora_changed(self, path: Path) -> None:
        from modules.sd_models import model_data

        self._forget_lora_files()
        engine = model_data.get_sd_model()
        if getattr(engine, "forge_objects", None) is not None:
            self._take_out_loras(engine)
        forget_prompts()
        webui_loras.list_new_network()

    def _forget_lora_files(self) -> None:
        """Drops the contents of LoRA files that are kept by file name."""
        import networks

        networks.load_lora_state_dict.cache_clear()

    def memory_profile(self) -> MemoryProfile | None:
        from modules import sd_models

        data = sd_models.model_data
        engine = data.get_sd_model()
        if getattr(engine, "forge_objects", None) is None or data.forge_hash != str(data.forge_loading_parameters):
            selected = sd_models.select_checkpoint()
            storage = data.forge_loading_parameters.get("unet_storage_dtype")
            return profile_of_file(Path(selected.filename), storage) if selected else None
        family = _ENGINES.get(type(engine).__name__)
        return profile_of_engine(engine, family) if family else None

    def describe(self) -> str:
        """`Realistic.safetensors · SDXL · float16 · 6.9 of 8.0 GB free`."""
        from backend import memory_management
        from modules import sd_models

        engine = _loaded_engine()
        if engine is None:
            selected = sd_models.select_checkpoint()
            parts = [selected.name if selected else "no checkpoint", "loaded when training starts"]
        else:
            family = _ENGINES.get(type(engine).__name__)
            storage = str(engine.forge_objects.unet.model.storage_dtype).removeprefix("torch.")
            label = family.label if family else f"{type(engine).__name__}, cannot be trained here"
            parts = [engine.sd_checkpoint_info.name, label, storage]
        device = memory_management.get_torch_device()
        if device.type == "cpu":
            return " · ".join([*parts, "on the CPU"])
        free, total = memory_management.get_free_memory(device), memory_management.get_total_memory(device)
        return " · ".join([*parts, f"{free / 2**30:.1f} of {total / 2**30:.1f} GB free"])


def _loaded_engine() -> Any:
    """The engine of the selected checkpoint if it is loaded already; else None."""
    from modules.sd_models import model_data

    engine = model_data.get_sd_model()
    loaded = getattr(engine, "forge_objects", None) is not None
    return engine if loaded and model_data.forge_hash == str(model_data.forge_loading_parameters) else None
