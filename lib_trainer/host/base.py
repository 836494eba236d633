"""What training asks of a host. The WebUIs, the standalone host and the fakes all answer it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from lib_trainer.lora.info import LoraInfo
from lib_trainer.models.base import HostModel
from lib_trainer.models.families import Family
from lib_trainer.models.placement import MemoryProfile

if TYPE_CHECKING:
    from PIL.Image import Image

T = TypeVar("T")


@dataclass(frozen=True)
class GenerateRequest:
    """A picture to draw.

    Attributes:
        prompt: may hold `<lora:name:strength>`.
        sampler, scheduler: names of the host's own; "" leaves the choice to the host.
    """

    prompt: str
    negative_prompt: str = ""
    width_px: int = 512
    height_px: int = 512
    steps: int = 20
    cfg_scale: float = 7.0
    sampler: str = ""
    scheduler: str = ""
    seed: int = 1
    batch_size: int = 1


class Host(Protocol):
    """A program that has a checkpoint loaded and can draw with it."""

    name: str
    lora_dir: Path
    cache_dir: Path
    settings_file: Path
    """A JSON file of ours among the host's own settings; it need not exist yet."""

    def run_exclusive(self, fn: Callable[[], T]) -> T:
        """fn() on the host's generation thread, under its lock. What it raises comes back here."""

    def open_model(self) -> AbstractContextManager[HostModel]:
        """The checkpoint that is selected in the host, loaded if need be. On exit the host is as it was."""

    def generate(self, request: GenerateRequest) -> list[Image]:
        """Pictures through the host's own text-to-image, LoRA syntax included. Call it inside `run_exclusive`.

        While a model is open it draws with that one, an attached adapter included, and training may go on afterwards.
        `info[INFOTEXT_KEY]` of each picture holds its infotext. Interrupted, it returns fewer pictures than were asked
        for, or none: no half-drawn ones.

        Raises:
            UserError: for a LoRA, sampler or scheduler that the host does not have.
        """

    def drawing(self, pictures: int) -> AbstractContextManager[None]:
        """So many pictures follow: one checkpoint draws them all, whatever is selected meanwhile.

        Call it inside `run_exclusive`.
        """

    def samplers(self) -> list[str]:
        """The host's samplers; the first is its default."""

    def schedulers(self) -> list[str]:
        """The host's noise schedules to choose from; the first is its default. [] where samplers bring their own."""

    def drawing_family(self) -> Family | None:
        """Of the checkpoint that is loaded; None where it is not known without loading one."""

    def drawing_size_px(self) -> int | None:
        """Side of the square pictures that the loaded checkpoint draws best; None where it is not known."""

    def loras(self, *, refresh: bool = False) -> list[LoraInfo]:
        """Every LoRA file, sub-folders included, by name. `refresh` looks into the folder anew."""

    def save_grid(self, picture: Image, infotext: str, request: GenerateRequest) -> Path | None:
        """Keeps a grid where the host keeps its own, under its own naming; None if it is set to keep none.

        Args:
            request: of the grid's first picture, for names that are made of prompt and seed.
        """

    def label_font(self) -> Path | None:
        """The font that the host labels its own grids with; None without one."""

    def bind_sending(self, button: Any, infotext: Any) -> bool:
        """Lets a button of the page send the infotext in a text field to the host's text-to-image, with its own means.

        Call it while the page is built. False where the host has none.
        """

    def lora_changed(self, path: Path) -> None:
        """`path` was written: forget every cache that would show the old file, and list the new one."""

    def interrupted(self) -> bool:
        """Whether a person pressed the host's own Interrupt during our turn."""

    def show_progress(self, step: int, steps: int, text: str) -> None:
        """Moves the host's own progress bar: `step` of `steps`, and a line of text. Call it inside `run_exclusive`."""

    def memory_profile(self) -> MemoryProfile | None:
        """What training would find now, without borrowing the model; None where it is not known before it is loaded."""

    def describe(self) -> str:
        """One line for the tab's head: checkpoint · family · precision · memory."""
