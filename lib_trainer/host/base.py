"""What training asks of a host: the WebUIs, the standalone host and the tests' fakes implement it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

GRID_NAME = "train_lora_grid"
"""What the file names of our grids begin with."""


@dataclass(frozen=True)
class GenerateRequest:
    """A picture to draw.

    Attributes:
        prompt: may hold `<lora:name:strength>`.
        sampler, scheduler: the host's own names; "" leaves the choice to the host.
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


# What the sliders of the WebUIs end at, and twice their largest side.
SIDE_RANGE_PX, STEPS_RANGE = (64, 4096), (1, 150)


def picture_problem(width_px: int, height_px: int, steps: int) -> str:
    """Why nothing is drawn with these numbers; "" where it is. A typing error must not take all memory or a day."""
    low, high = SIDE_RANGE_PX
    if not (low <= width_px <= high and low <= height_px <= high):
        return f"{width_px}×{height_px} px: each side must be {low} to {high} px"
    least, most = STEPS_RANGE
    return "" if least <= steps <= most else f"{steps} sampling steps: take {least} to {most}"


class Host(Protocol):
    """A program that has a checkpoint loaded and can draw with it."""

    name: str
    lora_dir: Path
    cache_dir: Path
    settings_file: Path
    """A JSON file of ours among the host's settings; it need not exist yet."""

    def run_exclusive(self, fn: Callable[[], T]) -> T:
        """fn() on the host's generation thread, under its lock. Re-raises what fn raises."""

    def open_model(self) -> AbstractContextManager[HostModel]:
        """The selected checkpoint, loaded if needed. On exit the host is restored exactly."""

    def generate(self, request: GenerateRequest) -> list[Image]:
        """Pictures through the host's own text-to-image, LoRA syntax included. Call it inside `run_exclusive`.

        While a model is open it draws with that one, attached adapters included, and training may continue afterwards.
        `info[INFOTEXT_KEY]` of each picture holds its infotext. After an interruption it returns fewer pictures than
        requested, or none, but no half-drawn ones; while a model is open, the interruption is heeded with that.

        Raises:
            UserError: for a LoRA, sampler or scheduler that the host does not have.
        """

    def drawing(self, pictures: int) -> AbstractContextManager[None]:
        """While entered, one checkpoint draws all these pictures, whatever is selected meanwhile.

        Call it inside `run_exclusive`.
        """

    def samplers(self) -> list[str]:
        """The host's samplers; the first is its default."""

    def schedulers(self) -> list[str]:
        """The host's noise schedules; the first is its default. [] where each sampler has its own."""

    def drawing_family(self) -> Family | None:
        """Family of the loaded checkpoint; None while none is loaded."""

    def clip_skip(self) -> int:
        """Which of the text encoder's last layers pictures are drawn with now, counted from the end: 1 is the last."""

    def drawing_size_px(self) -> int | None:
        """Side of the square pictures that the loaded checkpoint draws best; None while none is loaded."""

    def loras(self, *, refresh: bool = False) -> list[LoraInfo]:
        """Every LoRA file, sub-folders included, by name. `refresh` scans the folder again."""

    def save_grid(self, picture: Image, infotext: str, request: GenerateRequest) -> Path | None:
        """Saves a grid where and as the host saves its own; None if it is set to save none.

        Args:
            request: of the grid's first picture, for names that are made of prompt and seed.
        """

    def label_font(self) -> Path | None:
        """The font of the host's own grid labels; None without one."""

    def bind_sending(self, button: Any, infotext: Any) -> bool:
        """Lets a button of the page send the infotext in a text field to the host's text-to-image.

        Call it while the page is built. False where the host has none.
        """

    def lora_changed(self, path: Path) -> None:
        """Call it after writing `path`: drops every cache of the old file, and lists the new one.

        An embedding in the file is put where the host looks for embeddings, if that is elsewhere.
        """

    def word_problem(self, word: str) -> str:
        """Why an embedding for this word would not be drawn, as the end of a sentence; "" where it would."""

    def interrupted(self) -> bool:
        """Whether a person pressed the host's Interrupt while we hold its lock."""

    def show_progress(self, step: int, steps: int, text: str) -> None:
        """Moves the host's progress bar: `step` of `steps`, and a line of text. Call it inside `run_exclusive`."""

    def memory_profile(self) -> MemoryProfile | None:
        """What training would find now, without opening the model; None where only loading it would tell."""

    def count_tokens(self, text: str) -> int | None:
        """Tokens of a caption by the loaded checkpoint's tokenizer; None while none is loaded."""

    def captioners(self) -> list[Any]:
        """What the program itself captions pictures with, as `captioning.Captioner`s; call them in `run_exclusive`."""

    def describe(self) -> str:
        """One line for the tab's head: checkpoint · family · precision · memory."""


def describe_checkpoint(name: str, facts: Sequence[str], memory: tuple[int, int] | None) -> str:
    """`Realistic.safetensors · SDXL · float16 · 6.9 of 8.0 GB free`.

    Args:
        memory: the device's free and total bytes; None for a CPU.
    """
    where = "on the CPU" if memory is None else f"{memory[0] / 2**30:.1f} of {memory[1] / 2**30:.1f} GB free"
    return " · ".join([name, *facts, where])
