"""A1111 as a host: opens its loaded checkpoint for training, and restores it exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch

from lib_trainer.errors import UserError
from lib_trainer.host.a1111.inspect import device_memory, profile_of_file, profile_of_model
from lib_trainer.host.a1111.model import A1111Model
from lib_trainer.host.webui.host import WebuiHost
from lib_trainer.host.webui.lock import generation_lock
from lib_trainer.host.webui.model_guard import model_guard
from lib_trainer.models.families import SD1, SD2, SDXL, Family
from lib_trainer.models.placement import MemoryProfile
from lib_trainer.utils.patch import attributes

T = TypeVar("T")

_MOVERS = (
    "load_model",
    "reload_model_weights",
    "unload_model_weights",
    "send_model_to_cpu",
    "send_model_to_device",
    "send_model_to_trash",
)
_PREDICTIONS = ("eps", "v")
_OTHER_PREDICTION = "Choose a checkpoint that predicts noise or velocity (v)."
_FAMILIES = {"SD1": SD1, "SD2": SD2, "SDXL": SDXL}
# Inpainting checkpoints take 9: mask and masked picture besides the latents.
_UNET_CHANNELS = 4


class A1111Host(WebuiHost):
    """The A1111 that runs us. `loaded` is its `shared.sd_model`."""

    name = "A1111"
    reads_bundled_embeddings = True

    def run_exclusive(self, fn: Callable[[], T]) -> T:
        """fn() on the caller's thread under A1111's lock: A1111 generates on whichever thread asks."""
        from modules import sd_models

        with (
            generation_lock() as flags,
            attributes([self], _flags=flags),
            model_guard(sd_models, _MOVERS, first_load_runs),
        ):
            return fn()

    def _load_selected(self) -> Any:
        from modules import sd_models

        if _selected_file() is None:
            raise UserError("No checkpoint is selected.", "Choose one at the top of the WebUI.")
        # Loads on first use; a failed load is only printed, and leaves None.
        if sd_models.model_data.get_sd_model() is None:
            raise UserError(
                "The selected checkpoint could not be loaded.", "The WebUI's console says why; choose another."
            )
        # Another thread may have put its model there and still be at work on it.
        with sd_models.model_data.lock:
            pass
        return sd_models.reload_model_weights()

    def _resident(self) -> Any:
        from modules.sd_models import model_data

        # The attribute, not `get_sd_model`, which would load a checkpoint.
        return model_data.sd_model

    def _is_selected(self, loaded: Any) -> bool:
        return _selected_file() == Path(loaded.sd_checkpoint_info.filename)

    def _selected_name(self) -> str:
        selected = _selected_file()
        return selected.name if selected else ""

    def _known_family(self, loaded: Any) -> Family | None:
        kind = getattr(loaded, "model_type", None)
        return _FAMILIES.get(kind.name) if kind else None

    def _trainable_family(self, loaded: Any) -> Family:
        family, name = self._known_family(loaded), loaded.sd_checkpoint_info.name
        if family is None:
            raise UserError(f"{name} cannot be trained here.", "Choose an SD 1.x, SD 2.x or SDXL checkpoint.")
        if loaded.model.diffusion_model.input_blocks[0][0].weight.shape[1] != _UNET_CHANNELS:
            raise UserError(f"{name} is an inpainting checkpoint.", "Train on the model it was made from.")
        # reForge's models are told by their class instead.
        prediction = getattr(loaded, "parameterization", "eps")
        if prediction not in _PREDICTIONS:
            raise UserError(f"{name} predicts {prediction}, which cannot be trained here.", _OTHER_PREDICTION)
        return family

    def _storage(self, loaded: Any) -> str:
        return str(next(loaded.model.diffusion_model.parameters()).dtype).removeprefix("torch.")

    def _device_memory(self) -> tuple[int, int] | None:
        return device_memory()

    def _wrap(self, loaded: Any, family: Family, undo: ExitStack) -> A1111Model:
        undo.enter_context(kept_prompt_notes())
        return A1111Model(loaded, family, undo)

    def _take_out_loras(self, loaded: Any) -> None:
        import networks

        networks.load_networks([])
        with torch.no_grad():
            for module in getattr(loaded, "network_layer_mapping", {}).values():
                # Forced: A1111 restores a layer only when the names of its LoRAs change, and a merge that failed
                # half-way has changed the weights but not the names.
                networks.network_restore_weights_from_backup(module)
                if hasattr(module, "network_current_names"):
                    module.network_current_names = ()

    def _forget_lora_files(self, path: Path) -> None:
        import networks

        # By an option A1111 keeps the last files in memory, and looks there by name only.
        for name, network in list(networks.networks_in_memory.items()):
            if Path(network.network_on_disk.filename) == path:
                del networks.networks_in_memory[name]

    def _reload_embeddings(self, loaded: Any) -> None:
        from modules.sd_hijack import model_hijack

        # Without a model there is nothing that could say how wide they are; loading one reads them.
        if loaded is not None:
            model_hijack.embedding_db.load_textual_inversion_embeddings(force_reload=True)

    @contextmanager
    def _drawing_with(self, loaded: Any) -> Iterator[None]:
        from modules import sd_models

        # Every picture calls this first, and would get what a person has selected meanwhile.
        with attributes([sd_models], reload_model_weights=lambda *_args, **_kwargs: loaded):
            yield

    def _free_memory(self) -> None:
        from modules import devices

        devices.torch_gc()

    def memory_profile(self) -> MemoryProfile | None:
        from modules import sd_models

        model = self._loaded()
        if model is not None:
            family = self._known_family(model)
            return profile_of_model(model, family) if family else None
        selected = _selected_file()
        return profile_of_file(selected, sd_models.model_data.loaded_sd_models) if selected else None


def first_load_runs() -> bool:
    """Whether some thread loads the first checkpoint, as A1111 does when it has started.

    It holds a lock that whoever asks for the model waits for, we too: it must not wait for ours.
    """
    from modules import sd_models

    return sd_models.model_data.lock.locked()


def _selected_file() -> Path | None:
    from modules import sd_models

    try:
        return Path(sd_models.select_checkpoint().filename)
    # A1111's way to say that its folder holds no checkpoint.
    except FileNotFoundError:
        return None


@contextmanager
def kept_prompt_notes() -> Iterator[None]:
    """Encoding a prompt leaves notes for the next infotext; our captions must not appear in a person's pictures."""
    from modules.sd_hijack import model_hijack

    with attributes(
        [model_hijack],
        extra_generation_params=dict(model_hijack.extra_generation_params),
        comments=list(model_hijack.comments),
    ):
        yield
