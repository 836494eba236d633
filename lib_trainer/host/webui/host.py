"""What every WebUI does in the same way: it lends its model, draws, lists LoRAs, and shows how far we are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lib_trainer.host.base import GenerateRequest
from lib_trainer.host.webui import lock as webui_turn
from lib_trainer.host.webui import loras as webui_loras
from lib_trainer.host.webui import paths
from lib_trainer.host.webui import txt2img as webui_pictures
from lib_trainer.host.webui.model import WebuiModel
from lib_trainer.lora.info import LoraInfo
from lib_trainer.models.base import HostModel
from lib_trainer.models.families import Family
from lib_trainer.utils.patch import attributes

if TYPE_CHECKING:
    from PIL.Image import Image


class WebuiHost(ABC):
    """The part of `host.base.Host` that does not depend on how a WebUI holds its model."""

    def __init__(self) -> None:
        self._borrowed: WebuiModel | None = None
        self._presses = webui_turn.InterruptFlags()

    @abstractmethod
    def _selected(self) -> Any:
        """The WebUI's own object of the selected checkpoint; loads it through the WebUI if it is not loaded yet."""

    @abstractmethod
    def _family_of(self, loaded: Any) -> Family:
        """Raises UserError for what cannot be trained."""

    @abstractmethod
    def _borrow(self, loaded: Any, family: Family, undo: ExitStack) -> WebuiModel:
        """The model, free of LoRAs, as training sees it; `undo` takes what gives it back."""

    @abstractmethod
    def _take_out_loras(self, loaded: Any) -> None:
        """Weights as the checkpoint has them; a prompt with LoRAs puts them in again."""

    @abstractmethod
    def _free_memory(self) -> None:
        """At the end of a loan: nothing of ours stays on the device."""

    @abstractmethod
    def _held(self, loaded: Any) -> AbstractContextManager[None]:
        """Pictures are drawn with this checkpoint, even if a person has selected another one meanwhile."""

    @contextmanager
    def open_model(self) -> Iterator[HostModel]:
        loaded = self._selected()
        family = self._family_of(loaded)
        with ExitStack() as stack:
            stack.callback(self._free_memory)
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            # The thread's autocast setting is the host's business; training chooses its own dtypes.
            stack.enter_context(torch.autocast("cpu", enabled=False))
            stack.enter_context(torch.autocast("cuda", enabled=False))
            self._take_out_loras(loaded)
            model = self._borrow(loaded, family, stack)
            stack.enter_context(attributes([self], _borrowed=model))
            yield model

    def generate(self, request: GenerateRequest) -> list[Image]:
        if self._borrowed is None:
            self._selected()
            return webui_pictures.draw(request, self._presses)
        loaded = self._borrowed.loaded
        with self._borrowed.resting(), self._held(loaded):
            try:
                return webui_pictures.draw(request, self._presses)
            finally:
                self._take_out_loras(loaded)

    @contextmanager
    def drawing(self, pictures: int) -> Iterator[None]:
        loaded = self._borrowed.loaded if self._borrowed else self._selected()
        with self._held(loaded), webui_pictures.expected(pictures):
            yield

    @property
    def lora_dir(self) -> Path:
        return paths.lora_dir()

    @property
    def cache_dir(self) -> Path:
        return paths.cache_dir()

    @property
    def settings_file(self) -> Path:
        return paths.settings_file()

    def samplers(self) -> list[str]:
        return webui_pictures.samplers()

    def schedulers(self) -> list[str]:
        return webui_pictures.schedulers()

    @abstractmethod
    def drawing_family(self) -> Family | None:
        """Of the checkpoint that is loaded; None where it is not known without loading one."""

    def drawing_size_px(self) -> int | None:
        family = self.drawing_family()
        return family.native_size_px if family else None

    def loras(self, *, refresh: bool = False) -> list[LoraInfo]:
        return webui_loras.loras(refresh=refresh)

    def save_grid(self, picture: Image, infotext: str, request: GenerateRequest) -> Path | None:
        return webui_pictures.save_grid(picture, infotext, request)

    def label_font(self) -> Path | None:
        return webui_pictures.label_font()

    def bind_sending(self, button: Any, infotext: Any) -> bool:
        return webui_pictures.bind_sending(button, infotext)

    def interrupted(self) -> bool:
        return self._presses.interrupted()

    def show_progress(self, step: int, steps: int, text: str) -> None:
        webui_turn.show_progress(step, steps, text)
