"""An open model: the data types that training, adapters and hosts exchange."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol

import torch

from lib_trainer.models.families import Family
from lib_trainer.models.placement import MemoryProfile, Placement

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lib_trainer.models.offload import Int8Weight

    # Encoder ("clip_l", "clip_g"; an only encoder is "clip_l") -> (n, width): what a word stands for.
    Vectors = Mapping[str, Tensor]


@dataclass(frozen=True)
class TextCond:
    """A batch of encoded prompts.

    Attributes:
        context: (B, L, D) hidden states for attention; L is 77·n for UNets.
        pooled: (B, P) pooled text: of SDXL without the embedded sizes, of Flux; None for families without it.
        lengths: of each row's own text in `context`, which is padded behind it; () where nothing is padding.
    """

    context: Tensor
    pooled: Tensor | None = None
    lengths: tuple[int, ...] = ()

    def mapped(self, change: Callable[[Tensor], Tensor]) -> TextCond:
        """With every tensor changed."""
        return TextCond(change(self.context), None if self.pooled is None else change(self.pooled), self.lengths)

    def repeated(self, times: int) -> TextCond:
        """The whole batch so many times, one behind the other."""
        copies = self.mapped(lambda tensor: tensor.repeat(times, *[1] * (tensor.ndim - 1)))
        return replace(copies, lengths=self.lengths * times)

    @classmethod
    def joined(cls, texts: Sequence[TextCond]) -> TextCond:
        """Batches of texts of one length, as one batch."""
        pooled = None if texts[0].pooled is None else torch.cat([text.pooled for text in texts])
        return cls(torch.cat([text.context for text in texts]), pooled)


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
        module: the host's own module. Its `weight` may be stored in any format: read it with `HostModel.read_weight`.
        kind: what the module computes.
        shape: of its weight as a dense tensor: (out, in), (out, in, k, k), or (n,) for a norm.
        stride, padding, dilation, groups: of a convolution; ignored for linear layers. A layer norm has 0 groups.
        eps: of a norm.
    """

    name: str
    module: nn.Module
    kind: Literal["linear", "conv2d", "norm"]
    shape: tuple[int, ...]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    eps: float = 0.0


@dataclass(frozen=True)
class CheckpointInfo:
    """Which checkpoint is open.

    Attributes:
        sha256: the file's hash, or its `file_mark` where the host has none (hex).
        vae: name of a VAE that replaces its own.
        before_captions: what the host puts in front of captions, where a person can change it.
    """

    name: str
    sha256: str
    vae: str = ""
    before_captions: str = ""


class HostModel(Protocol):
    """The open checkpoint, with no LoRA in its weights, trainable until it is closed."""

    family: Family
    checkpoint: CheckpointInfo
    device: torch.device
    prediction: Literal["epsilon", "v", "flow"]
    # What the host draws with, not the file's: training on another schedule would teach wrong noise levels.
    alphas_cumprod: Tensor | None
    """(T,) float32, on the CPU; None for flow matching, which has no discrete schedule."""

    def encode_images(self, pixels: Tensor) -> Tensor:
        """pixels (B, 3, H, W) in −1…1, float32, CPU -> latents (B, C, H/p, W/p), scaled, float32, CPU.

        C and p are the family's: 4 channels and 8 px for UNets.
        """

    def encode_text(self, prompts: Sequence[str], clip_skip: int, *, grad: bool = False) -> TextCond:
        """Prompts of any length -> hidden states as the host makes them for pictures, for UNets in 75-token chunks.

        Without `grad` the result is float32 on the CPU; with it, it lies on the device and carries the graph.
        """

    def word_vectors(self, text: str) -> Vectors:
        """The rows of each encoder's token embedding for a text's tokens, (tokens, width) float32, on the CPU."""

    def embeddings(self, words: Mapping[str, Vectors]) -> AbstractContextManager[None]:
        """While entered, each word stands for its vectors in every prompt, as an embedding of that name does.

        The tensors are read at each use, with their graph.
        """

    def memory_profile(self) -> MemoryProfile:
        """What there is to train, and the device's memory."""

    def prepare_training(self, placement: Placement, *, text_encoder: bool, guidance_scale: float = 1.0) -> None:
        """UNet to the device and differentiable; VAE, and text encoders unless trained, off the device.

        Under a placement that offloads, layers must compute with what `read_weight` returns.

        Args:
            guidance_scale: input of models with distilled guidance; others ignore it.
        """

    def predict(self, x_t: Tensor, t: Tensor, text: TextCond, sizes: SizeCond) -> Tensor:
        """x_t (B, C, h, w), t (B,) timesteps 0…1000 -> the model's output (B, C, h, w), float32, with its graph.

        x_t, text and sizes come on the device, in the compute dtype (`sizes` in float32).
        """

    def adaptable_layers(self) -> list[Layer]:
        """The UNet's layers that kohya + LyCORIS adapt, in file order."""

    def norm_layers(self) -> list[Layer]:
        """The UNet's norms that LyCORIS trains with `train_norm`; none in transformers, whose norms have no weights."""

    def text_layers(self) -> list[Layer]:
        """The text encoders' layers that kohya + LyCORIS adapt, in file order.

        Raises:
            UserError: where the host cannot train them.
        """

    def read_int8(self, layer: Layer, like: Tensor) -> tuple[Int8Weight | None, Tensor | None]:
        """As `read_weight`, with the weight as a `Placement` with `int8` holds it; no weight while none does."""

    def read_weight(self, layer: Layer, like: Tensor) -> tuple[Tensor, Tensor | None]:
        """(weight, bias) as dense tensors in the dtype and on the device of `like`, however the host stores them."""
