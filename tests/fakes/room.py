"""A running WebUI as the contract tests see it: what they ask of its own means, past everything of ours."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from lib_trainer.host.base import GenerateRequest, Host

T = TypeVar("T")


class Precision(NamedTuple):
    """The loaded checkpoint's number formats: of the UNet's stored weights, of its work, of text encoders and VAE."""

    stored: torch.dtype
    computed: torch.dtype
    text: torch.dtype
    vae: torch.dtype


class Schedule(NamedTuple):
    """What pictures are drawn with.

    Attributes:
        alphas_cumprod: (T,) float32 on the CPU, before any rescaling to zero terminal SNR.
        zero_terminal: whether pictures are drawn with those rescaled to zero terminal SNR.
    """

    alphas_cumprod: Tensor
    prediction: Literal["epsilon", "v"]
    zero_terminal: bool


@dataclass(frozen=True)
class WebuiRoom(ABC):
    """A WebUI, real or fake, with one checkpoint selected.

    Methods that touch the model are called under the lock, on the generation thread: inside what `run` is given.

    Attributes:
        checkpoint: the selected checkpoint's name, as `select` takes it and the head's line begins with.
        generation_thread: name of the thread that work under the lock runs on.
    """

    host: Host
    checkpoint: str
    generation_thread: str
    _made: dict[object, Any] = field(default_factory=dict)

    def run(self, fn: Callable[[], T]) -> T:
        return self.host.run_exclusive(fn)

    def request(self, prompt: str = "a photo", **changes: Any) -> GenerateRequest:
        # As small as can be, for machines without a GPU.
        small = {"width_px": 64, "height_px": 64, "steps": 1, "cfg_scale": 1.0, "seed": 7}
        return GenerateRequest(prompt, **{**small, **changes})

    def picture(self, prompt: str = "a photo", **changes: Any) -> bytes:
        """One picture's pixels, on the generation thread."""
        return self.run(lambda: self.host.generate(self.request(prompt, **changes))[0].tobytes())

    def clean_picture(self) -> bytes:
        """The picture without any adapter, as it was drawn when the tests first asked: before any model was opened."""
        return self.once("clean picture", self.picture)

    def once(self, key: object, make: Callable[[], T]) -> T:
        """What several tests only read: `make()`, called by the first of them that asks for this key."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    @abstractmethod
    def select(self, checkpoint: str = "") -> None:
        """As a person does at the top of the page, weights stored as the file has them; "": the room's checkpoint.

        What is selected is loaded when it is needed: by the next picture or the next `open_model`.
        """

    @abstractmethod
    def select_eight_bits(self) -> None:
        """The room's checkpoint, its UNet's weights stored as float8 (e4m3fn): a choice that loads it anew."""

    @property
    @abstractmethod
    def model(self) -> Any:
        """The WebUI's loaded model, or what else tells it from another: unequal once a choice was loaded anew."""

    @property
    @abstractmethod
    def precision(self) -> Precision:
        """Of the loaded checkpoint."""

    @property
    def trains_text(self) -> bool:
        """Whether the loaded checkpoint's text encoders can be trained."""
        return True

    @abstractmethod
    def parts(self) -> list[nn.Module]:
        """UNet, text encoders and VAE of the loaded checkpoint. Nothing of them may be changed by opening it."""

    @abstractmethod
    def switches(self) -> Any:
        """Settings of the WebUI's own modules that training changes for its time: equal before and after."""

    @abstractmethod
    def hosts_text(self, prompts: Sequence[str], clip_skip: int = 1) -> tuple[Tensor, Tensor | None]:
        """What the WebUI makes of prompts, their syntax and LoRAs that are in the weights included.

        Returns:
            context (B, 77·n, D) and pooled (B, P) as in `TextCond`, float32; pooled without SDXL's size numbers.
        """

    @abstractmethod
    def caption_traces(self) -> tuple[dict[str, Any], Any]:
        """What encoding captions could leave behind: (notes, settings).

        The notes, for the next picture's infotext say, are {} when nothing is left; the settings of the text engines
        are compared with what the last picture left.
        """

    @abstractmethod
    def posterior_mean(self, pixels: Tensor) -> Tensor:
        """The WebUI's VAE, past our encoding: pixels (B, 3, H, W) in −1…1 -> scaled latents (B, 4, H/8, W/8).

        Float32 on the CPU. Called while the model is open.
        """

    @abstractmethod
    def encode_varied(self, pixels: Tensor) -> Tensor:
        """The WebUI's own encoding of pixels (B, 3, H, W), as image-to-image uses it: mostly a new sample."""

    @abstractmethod
    def schedule(self) -> Schedule:
        """Of the loaded checkpoint, as the WebUI keeps it."""

    @abstractmethod
    def denoised(self, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """What the WebUI's sampler makes of a UNet's output for x_t (B, 4, h, w) at whole timesteps t (B,)."""

    @abstractmethod
    def drawn_denoised(self, prompts: Sequence[str], x_t: Tensor, t: Tensor) -> Tensor:
        """The same by the WebUI's own way from prompts, noisy latents and timesteps; comparable with `denoised`."""

    @abstractmethod
    def hosts_modules(self, names: Sequence[str]) -> list[nn.Module]:
        """The modules that the WebUI's LoRA loader finds under kohya's layer names. KeyError for an unknown name."""

    @abstractmethod
    def unknown_tensors(self, path: Path) -> Collection[str]:
        """Names of an adapter file's tensors that the WebUI's LoRA loader does not know what to do with."""

    @abstractmethod
    def models_movers(self) -> list[Callable[[], object]]:
        """Calls by which others load, unload or move models, each made on its own thread while we hold the lock."""
