"""Forge as a host: opens its loaded checkpoint for training, and restores it exactly."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch

from lib_trainer.errors import UserError
from lib_trainer.host.forge.inspect import device_memory, profile_of_engine, profile_of_file, refusal
from lib_trainer.host.forge.model import ForgeModel
from lib_trainer.host.forge.transformer import ForgeTransformer
from lib_trainer.host.webui.generation_thread import on_generation_thread
from lib_trainer.host.webui.host import WebuiHost
from lib_trainer.host.webui.lock import generation_lock
from lib_trainer.host.webui.model_guard import model_guard
from lib_trainer.host.webui.model_patcher import forget_loras
from lib_trainer.models.families import FLUX, SD1, SD2, SDXL, Family
from lib_trainer.models.placement import MemoryProfile
from lib_trainer.utils.patch import attributes

T = TypeVar("T")

_LACKING = re.compile(r"You do not have (.+) state dict")
_MOVERS = ("free_memory", "load_models_gpu", "unload_all_models")


class ForgeHost(WebuiHost):
    """The Forge that runs us; Forge Neo derives from it. `loaded` is its `ForgeDiffusionEngine`.

    Attributes:
        unet_model, transformer_model: what opens its loaded checkpoint.
        engines: name of an engine's class -> the family that it loads.
    """

    name = "Forge"
    unet_model: type[ForgeModel] = ForgeModel
    transformer_model: type[ForgeModel] = ForgeTransformer
    engines: Mapping[str, Family] = {
        "StableDiffusion": SD1,
        "StableDiffusion2": SD2,
        "StableDiffusionXL": SDXL,
        "Flux": FLUX,
    }

    def run_exclusive(self, fn: Callable[[], T]) -> T:
        from backend import memory_management

        def work() -> T:
            with model_guard(memory_management, _MOVERS):
                return fn()

        with generation_lock() as flags, attributes([self], _flags=flags):
            return on_generation_thread(work)

    def _load_selected(self) -> Any:
        from modules import sd_models
        from modules_forge import main_entry

        # Forge fills these when it builds its page; with --nowebui nobody has.
        if not sd_models.model_data.forge_loading_parameters:
            main_entry.refresh_model_loading_parameters()
        if sd_models.model_data.forge_loading_parameters.get("checkpoint_info") is None:
            raise UserError("No checkpoint is selected.", "Choose one at the top of the WebUI.")
        try:
            engine, _ = sd_models.forge_model_reload()
        except AssertionError as error:
            # "You do not have CLIP state dict!": its text encoders or VAE lie in files that are not chosen.
            if (lacking := _LACKING.search(str(error))) is None:
                raise
            raise UserError(
                f"{self._selected_name()} comes without its {lacking[1]}.",
                "Choose the file of that part at the top of the WebUI, under VAE / Text Encoder.",
            ) from error
        return engine

    def _resident(self) -> Any:
        from modules.sd_models import model_data

        # Before the first load and after an unload Forge keeps a placeholder without objects.
        engine = model_data.get_sd_model()
        return engine if getattr(engine, "forge_objects", None) is not None else None

    def _is_selected(self, loaded: Any) -> bool:
        from modules.sd_models import model_data

        return model_data.forge_hash == str(model_data.forge_loading_parameters)

    def _selected_name(self) -> str:
        from modules import sd_models

        selected = sd_models.select_checkpoint()
        return selected.name if selected else ""

    def _known_family(self, loaded: Any) -> Family | None:
        # By name: the classes cannot be imported without loading half of Forge.
        return self.engines.get(type(loaded).__name__)

    def _trainable_family(self, loaded: Any) -> Family:
        family, name = self._known_family(loaded), loaded.sd_checkpoint_info.name
        if family is None:
            raise UserError(
                f"{name} is a {type(loaded).__name__} checkpoint, which cannot be trained here.",
                f"Choose a checkpoint of {', '.join(family.label for family in self.engines.values())}.",
            )
        if reason := refusal(loaded, family):
            raise UserError(f"{name} {reason}.", "Train on the model it was made from.")
        return family

    def _storage(self, loaded: Any) -> str:
        return str(loaded.forge_objects.unet.model.storage_dtype).removeprefix("torch.")

    def _device_memory(self) -> tuple[int, int] | None:
        return device_memory()

    def _wrap(self, loaded: Any, family: Family, undo: ExitStack) -> ForgeModel:
        # Encoding a prompt leaves notes for the next infotext; our captions must not appear in a person's pictures.
        holder = self._prompt_notes()
        notes = dict(holder.last_extra_generation_params)
        undo.enter_context(attributes([holder], last_extra_generation_params=notes))
        return (self.transformer_model if family.is_flow else self.unet_model)(loaded, family, undo)

    def _prompt_notes(self) -> Any:
        """Whose `last_extra_generation_params` the text engines write to."""
        from backend.text_processing import classic_engine

        return classic_engine

    def _take_out_loras(self, loaded: Any) -> None:
        original = forget_loras(loaded)
        for patcher in (original.unet, original.clip.patcher):
            # Forced: after a merge that failed half-way the loader believes that nothing is merged.
            patcher.lora_loader.refresh(lora_patches={}, offload_device=patcher.offload_device, force_refresh=True)

    def _forget_lora_files(self, path: Path) -> None:
        import networks

        # Keyed by file name alone, so a retrained file would keep its old weights until five others were loaded.
        networks.load_lora_state_dict.cache_clear()

    def _reload_embeddings(self, loaded: Any) -> None:
        for name, part in vars(loaded).items() if loaded is not None else ():
            # Not every engine reads embeddings: T5's does not.
            if name.startswith("text_processing_engine") and hasattr(part, "embeddings"):
                part.embeddings.load_textual_inversion_embeddings()

    @contextmanager
    def _drawing_with(self, loaded: Any) -> Iterator[None]:
        from modules import processing, sd_models

        # Every picture asks Forge to load what is selected; `processing` has imported the function by name.
        with attributes([processing, sd_models], forge_model_reload=lambda: (loaded, False)):
            yield

    def _free_memory(self) -> None:
        from backend import memory_management

        # As Forge itself moves models: tensors that are moved outside inference mode are no longer inference tensors.
        with torch.inference_mode():
            memory_management.unload_all_models()
        memory_management.soft_empty_cache()

    def memory_profile(self) -> MemoryProfile | None:
        from modules import sd_models

        engine = self._loaded()
        if engine is not None:
            family = self._known_family(engine)
            return profile_of_engine(engine, family) if family else None
        selected = sd_models.select_checkpoint()
        storage = sd_models.model_data.forge_loading_parameters.get("unet_storage_dtype")
        return profile_of_file(Path(selected.filename), storage) if selected else None
