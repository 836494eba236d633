"""What every WebUI answers in the same way: its places, its pictures and LoRAs, its buttons and progress bar."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_trainer.families import Family
from lib_trainer.host import webui, webui_loras, webui_pictures, webui_turn
from lib_trainer.host.base import GenerateRequest, LoraInfo

if TYPE_CHECKING:
    from PIL.Image import Image


class WebuiHost(ABC):
    """The part of `host.base.Host` that does not depend on how a WebUI holds its model."""

    def __init__(self) -> None:
        self._presses = webui_turn.Presses()

    @property
    def lora_dir(self) -> Path:
        return webui.lora_dir()

    @property
    def cache_dir(self) -> Path:
        return webui.cache_dir()

    @property
    def settings_file(self) -> Path:
        return webui.settings_file()

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
