"""AUTOMATIC1111's stable-diffusion-webui: its loaded checkpoint is borrowed, trained on, and given back as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch

from lib_trainer.errors import UserError
from lib_trainer.host.a1111.inspect import profile_of_file, profile_of_model
from lib_trainer.host.a1111.model import A1111Model, compute_device
from lib_trainer.host.webui import lock as webui_turn
from lib_trainer.host.webui import loras as webui_loras
from lib_trainer.host.webui.host import WebuiHost
from lib_trainer.host.webui.model_guard import model_guard
from lib_trainer.host.webui.prompts import forget_prompts
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
_FAMILIES = {"SD1": SD1, "SD2": SD2, "SDXL": SDXL}
_UNET_CHANNELS = 4


class A1111Host(WebuiHost):
    """The A1111 that runs us."""

    name = "A1111"

    def run_exclusive(self, fn: Callable[[], T]) -> T:
        """fn() under A1111's lock; it has no thread of its own to generate on."""
        from modules import sd_models

        with (
            webui_turn.generation_lock() as presses,
            attributes([self], _presses=presses),
            model_guard(sd_models, _MOVERS),
        ):
            return fn()

    def _selected(self) -> Any:
        from modules import sd_models

        if _selected_file() is None:
            raise UserError("No checkpoint is selected.", "Choose one at the top of the WebUI.")
        if sd_models.model_data.get_sd_model() is None:
            raise UserError(
                "The selected checkpoint could not be loaded.", "The WebUI's console says why; choose another."
            )
        return sd_models.reload_model_weights()

    def _family_of(self, loaded: Any) -> Family:
        family, name = _known_family(loaded), loaded.sd_checkpoint_info.name
        if family is None:
            raise UserError(f"{name} cannot be trained here.", "Choose an SD 1.x, SD 2.x or SDXL checkpoint.")
        if loaded.model.diffusion_model.input_blocks[0][0].weight.shape[1] != _UNET_CHANNELS:
            raise UserError(f"{name} is an inpainting checkpoint.", "Train on the model it was made from.")
        return family

    def _borrow(self, loaded: Any, family: Family, undo: ExitStack) -> A1111Model:
        undo.enter_context(_kept_prompt_notes())
        return A1111Model(loaded, family, undo)

    def _take_out_loras(self, loaded: Any) -> None:
        import networks

        networks.load_networks([])
        with torch.no_grad():
            for module in getattr(loaded, "network_layer_mapping", {}).values():
                # By force: one that failed half-way left weights changed, and the layer believing that none are.
                networks.network_restore_weights_from_backup(module)
                if hasattr(module, "network_current_names"):
                    module.network_current_names = ()

    @contextmanager
    def _held(self, loaded: Any) -> Iterator[None]:
        from modules import sd_models

        with attributes([sd_models], reload_model_weights=lambda *_args, **_kwargs: loaded):
            yield

    def _free_memory(self) -> None:
        from modules import devices

        devices.torch_gc()

    def drawing_family(self) -> Family | None:
        model = _loaded_model()
        return _known_family(model) if model else None

    def lora_changed(self, path: Path) -> None:
        import networks
        from modules.sd_models import model_data

        for name, network in list(networks.networks_in_memory.items()):
            if Path(network.network_on_disk.filename) == path:
                del networks.networks_in_memory[name]
        if model_data.sd_model is not None:
            # Layers know the LoRAs in their weights by name, and would keep the old file's.
            self._take_out_loras(model_data.sd_model)
        forget_prompts()
        webui_loras.list_new_network()

    def memory_profile(self) -> MemoryProfile | None:
        from modules import sd_models

        model = _loaded_model()
        if model is not None:
            family = _known_family(model)
            return profile_of_model(model, family) if family else None
        selected = _selected_file()
        return profile_of_file(selected, sd_models.model_data.loaded_sd_models) if selected else None

    def describe(self) -> str:
        """`Realistic.safetensors · SDXL · float16 · 6.9 of 8.0 GB free`."""
        model = _loaded_model()
        if model is None:
            selected = _selected_file()
            parts = [selected.name if selected else "no checkpoint", "loaded when training starts"]
        else:
            family = _known_family(model)
            stored = str(next(model.model.diffusion_model.parameters()).dtype).removeprefix("torch.")
            label = family.label if family else "cannot be trained here"
            parts = [model.sd_checkpoint_info.name, label, stored]
        device = compute_device()
        if device.type != "cuda":
            return " · ".join([*parts, "on the CPU"])
        free, total = torch.cuda.mem_get_info(device)
        return " · ".join([*parts, f"{free / 2**30:.1f} of {total / 2**30:.1f} GB free"])


def _selected_file() -> Path | None:
    from modules import sd_models

    try:
        return Path(sd_models.select_checkpoint().filename)
    except FileNotFoundError:
        return None


def _loaded_model() -> Any:
    """The model of the selected checkpoint if it is loaded already; else None."""
    from modules.sd_models import model_data

    selected, model = _selected_file(), model_data.sd_model
    return model if model is not None and selected == Path(model.sd_checkpoint_info.filename) else None


def _known_family(model: Any) -> Family | None:
    kind = getattr(model, "model_type", None)
    return _FAMILIES.get(kind.name) if kind else None


@contextmanager
def _kept_prompt_notes() -> Iterator[None]:
    """Encoding a caption leaves notes for the next picture's infotext; captions are none of its business."""
    from modules.sd_hijack import model_hijack

    with attributes(
        [model_hijack],
        extra_generation_params=dict(model_hijack.extra_generation_params),
        comments=list(model_hijack.comments),
    ):
        yield
