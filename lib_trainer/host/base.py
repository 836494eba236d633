"""What training asks of a host. The WebUIs, the standalone host and the fakes all answer it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

from lib_trainer.families import Family

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor, nn

T = TypeVar("T")


@dataclass(frozen=True)
class TextCond:
    """What the text encoders made of a batch of prompts.

    Attributes:
        context: (B, 77·n, D) hidden states for cross-attention.
        pooled: (B, P) pooled text of SDXL, without the size numbers; None for families without it.
    """

    context: Tensor
    pooled: Tensor | None = None


@dataclass(frozen=True)
class SizeCond:
    """Sizes in pixels, one row a picture, in the order SDXL embeds them. Other families ignore them.

    Attributes:
        pixels: (B, 6) float: original height, width, crop top, left, target height, width.
    """

    pixels: Tensor


@dataclass(frozen=True)
class Layer:
    """One layer that an adapter can be put on.

    Attributes:
        name: kohya's name, with prefix: `lora_unet_…`, `lora_te_…`, `lora_te1_…`.
        module: the host's own module. Its `weight` may be stored in any form: read it with `HostModel.read_weight`.
        kind: what the module computes.
        shape: of its weight as a dense tensor: (out, in) or (out, in, k, k).
        stride, padding, dilation, groups: of a convolution; ignored for linear layers.
    """

    name: str
    module: nn.Module
    kind: Literal["linear", "conv2d"]
    shape: tuple[int, ...]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


@dataclass(frozen=True)
class CheckpointInfo:
    """Which checkpoint is borrowed. `sha256` is the file's hash (hex), `vae` names a VAE that replaces its own."""

    name: str
    sha256: str
    vae: str = ""


@dataclass(frozen=True)
class GenerateRequest:
    """A picture to draw. `prompt` may hold `<lora:name:strength>`."""

    prompt: str
    negative_prompt: str = ""
    width_px: int = 512
    height_px: int = 512
    steps: int = 20
    cfg_scale: float = 7.0
    sampler: str = ""
    seed: int = 1
    batch_size: int = 1


class HostModel(Protocol):
    """The borrowed checkpoint: free of LoRAs, and able to be trained on while it is borrowed."""

    family: Family
    checkpoint: CheckpointInfo
    device: torch.device
    prediction: Literal["epsilon", "v"]
    alphas_cumprod: Tensor
    """(T,) float32, on the CPU."""

    def encode_images(self, pixels: Tensor) -> Tensor:
        """pixels (B, 3, H, W) in −1…1, float32, CPU -> latents (B, 4, H/8, W/8), scaled, float32, CPU."""

    def encode_text(self, prompts: Sequence[str], clip_skip: int, *, grad: bool = False) -> TextCond:
        """Prompts, of any length, to hidden states in 75-token chunks as the host makes them.

        Without `grad` the result is float32 on the CPU; with it, it lies on the device and carries the graph.
        """

    def prepare_training(self, *, checkpointing: bool, text_encoder: bool) -> None:
        """UNet to the device and differentiable; VAE, and text encoders unless trained, off the device."""

    def predict(self, x_t: Tensor, t: Tensor, text: TextCond, sizes: SizeCond) -> Tensor:
        """x_t (B, 4, h, w), t (B,) whole timesteps -> the UNet's output (B, 4, h, w), float32, with its graph.

        x_t, text and sizes come on the device, in the compute dtype (`sizes` in float32).
        """

    def adaptable_layers(self) -> list[Layer]:
        """The UNet's layers that kohya + LyCORIS adapt, in file order."""

    def text_layers(self) -> list[Layer]:
        """The text encoders' layers that kohya + LyCORIS adapt, in file order."""

    def read_weight(self, layer: Layer, like: Tensor) -> tuple[Tensor, Tensor | None]:
        """(weight, bias) as dense tensors in the dtype and on the device of `like`, however the host stores them."""


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
        Interrupted, it returns fewer pictures than were asked for, or none.
        """

    def lora_changed(self, path: Path) -> None:
        """`path` was written: forget every cache that would show the old file, and list the new one."""

    def interrupted(self) -> bool:
        """Whether a person pressed the host's own Interrupt during our turn."""

    def show_progress(self, step: int, steps: int, text: str) -> None:
        """Moves the host's own progress bar: `step` of `steps`, and a line of text. Call it inside `run_exclusive`."""

    def describe(self) -> str:
        """One line for the tab's head: checkpoint · family · precision · memory."""
