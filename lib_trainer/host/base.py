"""What training asks of a host. The WebUIs, the standalone host and the fakes all answer it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from lib_trainer.families import Family, UNetShape

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor, nn

T = TypeVar("T")

INFOTEXT_KEY = "parameters"
"""Under this key of `Image.info`, and of a PNG file, stands a picture's infotext."""


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


@dataclass(frozen=True)
class LoraInfo:
    """A LoRA file that the host knows.

    Attributes:
        name: NAME in `<lora:NAME:0.8>`.
        aliases: other names that the host takes for this file.
        family: the models it was made for; None where the file does not say.
        words: what calls it in a prompt, by its card or by what it says of itself.
        strength: what its card proposes; 0 where it proposes none.
        steps: optimizer steps it was trained for; 0 where the file does not say.
        problem: why no prompt can call it; "" when one can.
    """

    name: str
    path: Path
    aliases: tuple[str, ...] = ()
    family: Family | None = None
    words: str = ""
    strength: float = 0.0
    steps: int = 0
    problem: str = ""


@dataclass(frozen=True)
class Placement:
    """Where the UNet's weights lie while it is trained on, and which of its work is done twice.

    Attributes:
        recomputed: the blocks whose activations are recomputed in backward, as places in the order of forward among
            all residual and transformer blocks; None for all of them.
        int8: the layers' weights are stored in 8 bits.
        streamed: share of the layers' weights that stays on the CPU and is fetched for each use.
    """

    recomputed: frozenset[int] | None = frozenset()
    int8: bool = False
    streamed: float = 0.0

    @property
    def is_lean(self) -> bool:
        return self.int8 or self.streamed > 0

    def recomputes(self, place: int) -> bool:
        return self.recomputed is None or place in self.recomputed


RESIDENT = Placement()
"""All of it on the device, nothing recomputed."""
RECOMPUTED = Placement(recomputed=None)
"""All of it on the device, every block recomputed."""


@dataclass(frozen=True)
class Outlook:
    """What there is to train, and room for it. Known before a model is borrowed.

    Attributes:
        weight_bytes: of one number of the UNet as the host stores it; 0.5 for 4-bit forms.
        is_dense: the weights are plain numbers, of which other forms can be made.
        available_bytes: of the device, everything of the host's moved off it; None for a CPU.
        total_bytes: of the device.
    """

    family: Family
    shape: UNetShape
    weight_bytes: float
    is_dense: bool = True
    available_bytes: int | None = None
    total_bytes: int = 0


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

    def outlook(self) -> Outlook:
        """What there is to train, and room for it."""

    def prepare_training(self, placement: Placement, *, text_encoder: bool) -> None:
        """UNet to the device and differentiable; VAE, and text encoders unless trained, off the device.

        Under a lean placement its layers must be computed with what `read_weight` gives.
        """

    def predict(self, x_t: Tensor, t: Tensor, text: TextCond, sizes: SizeCond) -> Tensor:
        """x_t (B, 4, h, w), t (B,) whole timesteps -> the UNet's output (B, 4, h, w), float32, with its graph.

        x_t, text and sizes come on the device, in the compute dtype (`sizes` in float32).
        """

    def adaptable_layers(self) -> list[Layer]:
        """The UNet's layers that kohya + LyCORIS adapt, in file order."""

    def text_layers(self) -> list[Layer]:
        """The text encoders' layers that kohya + LyCORIS adapt, in file order.

        Raises:
            UserError: where the host cannot train them.
        """

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

    def outlook(self) -> Outlook | None:
        """What training would find now, without borrowing the model; None where it is not known before it is loaded."""

    def describe(self) -> str:
        """One line for the tab's head: checkpoint · family · precision · memory."""
