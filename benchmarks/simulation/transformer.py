"""A diffusion transformer of a family's shape, computed step by step as Flux, FLUX.2, Z-Image and Lumina 2 are.

Only what takes memory counts: the order of norms, modulation, layers, attention and gates. It is that of the models'
own code (black-forest-labs/flux, Alpha-VLLM/Lumina-Image-2.0), as the WebUIs run it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import gelu, layer_norm, silu

from benchmarks.simulation.meta_device import META, MetaDevice
from lib_trainer.models import trainable
from lib_trainer.models.base import CheckpointInfo, Layer, SizeCond, TextCond
from lib_trainer.models.families import FAMILIES, Family, TransformerShape
from lib_trainer.models.placement import Placement
from lib_trainer.models.transformer_layers import BLOCK_LISTS, transformer_layers


class _Part(nn.Module):
    """A place for layers, which get the names that they have in files. Nothing but layers is ever in it."""

    def __init__(self, **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name.strip("_"), layer)


class _RmsNorm(torch.autograd.Function):
    """What a GPU's kernel keeps: its input, and one number a row. torch's own keeps more where there is no GPU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x, x.new_empty(x.shape[:-1], dtype=torch.float32))
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return torch.empty_like(gradient)


def _linear(rows: int, columns: int) -> nn.Linear:
    return nn.Linear(columns, rows, bias=False)


def _attend(parts: list[list[Tensor]], shape: TransformerShape) -> Tensor:
    """q, k, v of each stream (B, L, …) -> (B, sum of L, width): norms of q and k, rotary embedding, attention."""
    head = shape.width // shape.heads

    def by_head(x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, head)).transpose(1, 2)

    streams = [[_RmsNorm.apply(by_head(q)), _RmsNorm.apply(by_head(k)), by_head(v)] for q, k, v in parts]
    q, k, v = (torch.cat(part, dim=2) if len(part) > 1 else part[0] for part in zip(*streams, strict=True))
    q, k = _rotated(q), _rotated(k)
    groups = q.shape[1] // k.shape[1]
    if groups > 1:
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    return functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def _rotated(x: Tensor) -> Tensor:
    # In float32, as the hosts do; the angles are constants.
    first, second = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    angles = torch.zeros(x.shape[2], x.shape[3] // 2, 2, 2)
    turned = angles[..., 0] * first[..., None] + angles[..., 1] * second[..., None]
    return turned.flatten(-2).to(x.dtype)


class _Modulation(nn.Module):
    """Shift, scale and gate: constants, since nothing is trained in front of them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def normed(self, x: Tensor) -> Tensor:
        # The host adds to x in place: training gives the norm a copy (`trainable.cloned_inputs`).
        return self._constant(x) + layer_norm(x.clone(), (self.width,)) * self._constant(x)

    def gated(self, x: Tensor, change: Tensor) -> Tensor:
        return x + self._constant(x) * change

    def _constant(self, x: Tensor) -> Tensor:
        return torch.zeros(len(x), 1, self.width, dtype=x.dtype)


class _DoubleBlock(_Modulation):
    def __init__(self, shape: TransformerShape) -> None:
        super().__init__(shape.width)
        self.shape = shape
        width, inner = shape.width, shape.mlp_width
        for stream in ("img", "txt"):
            self.add_module(f"{stream}_attn", _Part(qkv=_linear(3 * width, width), proj=_linear(width, width)))
            up = _linear(inner * (2 if shape.is_gated else 1), width)
            self.add_module(f"{stream}_mlp", _Part(_0=up, _2=_linear(width, inner)))

    def forward(self, img: Tensor, txt: Tensor) -> tuple[Tensor, Tensor]:
        layers = {
            stream: (getattr(self, f"{stream}_attn"), getattr(self, f"{stream}_mlp")) for stream in ("img", "txt")
        }
        parts = [layers[name][0].qkv(self.normed(x)).chunk(3, dim=-1) for name, x in (("txt", txt), ("img", img))]
        attended = _attend(parts, self.shape)
        after = {"txt": attended[:, : txt.shape[1]], "img": attended[:, txt.shape[1] :]}
        found = []
        for name, x in (("img", img), ("txt", txt)):
            attention, mlp = layers[name]
            x = self.gated(x, attention.proj(after[name]))
            up, down = mlp.get_submodule("0"), mlp.get_submodule("2")
            found.append(self.gated(x, down(_activated(up(self.normed(x)), self.shape))))
        return found[0], found[1]


class _SingleBlock(_Modulation):
    def __init__(self, shape: TransformerShape) -> None:
        super().__init__(shape.width)
        self.shape, self.inner = shape, shape.mlp_width * (2 if shape.is_gated else 1)
        self.linear1 = _linear(3 * shape.width + self.inner, shape.width)
        self.linear2 = _linear(shape.width, shape.width + shape.mlp_width)

    def forward(self, x: Tensor) -> Tensor:
        qkv, inside = self.linear1(self.normed(x)).split([3 * self.width, self.inner], dim=-1)
        attended = _attend([list(qkv.chunk(3, dim=-1))], self.shape)
        return self.gated(x, self.linear2(torch.cat([attended, _activated(inside, self.shape)], dim=-1)))


class _JointBlock(_Modulation):
    def __init__(self, shape: TransformerShape) -> None:
        super().__init__(shape.width)
        self.shape, self.kv_width = shape, shape.kv_width or shape.width
        width, inner = shape.width, shape.mlp_width
        self.attention = _Part(qkv=_linear(width + 2 * self.kv_width, width), out=_linear(width, width))
        self.feed_forward = _Part(w1=_linear(inner, width), w2=_linear(width, inner), w3=_linear(inner, width))

    def forward(self, x: Tensor) -> Tensor:
        attention, mlp = self.attention, self.feed_forward
        qkv = attention.qkv(self._scaled(x)).split([self.width, self.kv_width, self.kv_width], dim=-1)
        x = self.gated(x, _RmsNorm.apply(attention.out(_attend([list(qkv)], self.shape))))
        inside = self._scaled(x)
        change = mlp.w2(silu(mlp.w1(inside)) * mlp.w3(inside))
        return self.gated(x, _RmsNorm.apply(change))

    def _scaled(self, x: Tensor) -> Tensor:
        return _RmsNorm.apply(x) * self._constant(x)


def _shape_of(part: nn.Module) -> tuple[int, ...]:
    return tuple(part.weight.shape) if isinstance(part, nn.Linear) else ()


def _activated(x: Tensor, shape: TransformerShape) -> Tensor:
    if not shape.is_gated:
        return gelu(x, approximate="tanh")
    gate, up = x.chunk(2, dim=-1)
    return silu(gate) * up


class SimulatedTransformer:
    """An open model as `simulate` wants it: blocks without contents, and embedders that take no memory.

    Attributes:
        without_contents: while entered, new tensors lie on the meta device. The model must be used inside it.
    """

    prediction, alphas_cumprod = "flow", None

    def __init__(self, family: Family, dtype: torch.dtype, undo: ExitStack) -> None:
        shape = family.shape
        kinds: dict[str, Callable[[TransformerShape], nn.Module]] = {
            "double_blocks": _DoubleBlock, "single_blocks": _SingleBlock, "layers": _JointBlock,
        }  # fmt: skip
        self.family, self.without_contents, self._undo = family, MetaDevice(), undo
        self.device, self.checkpoint = META, CheckpointInfo("empty", "")
        self.unet = nn.Module()
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            for name, make in kinds.items():
                blocks = [make(shape) for _ in range(getattr(shape, BLOCK_LISTS[name]))]
                self.unet.add_module(name, nn.ModuleList(blocks))
        finally:
            torch.set_default_dtype(before)
        self.unet.requires_grad_(False)

    def weights_off_device(self) -> list[Tensor]:
        return []

    def adaptable_layers(self) -> list[Layer]:
        # By key: the family may have fewer blocks than the published one.
        return transformer_layers(self.unet, FAMILIES[self.family.key], _shape_of)

    def read_weight(self, layer: Layer, like: Tensor) -> tuple[Tensor, Tensor | None]:
        return layer.module.weight.to(like), None

    def prepare_training(self, placement: Placement, *, text_encoder: bool, guidance_scale: float = 1.0) -> None:
        blocks = [block for name in BLOCK_LISTS for block in getattr(self.unet, name, ())]
        self._undo.enter_context(trainable.checkpointed(blocks, placement))

    def predict(self, x_t: Tensor, t: Tensor, text: TextCond, sizes: SizeCond) -> Tensor:
        """The embedders are frozen, so that they keep nothing: their results are zeros here."""
        shape, count = self.family.shape, len(x_t)
        rows, columns = (side // shape.patch for side in x_t.shape[2:])
        img = x_t.new_zeros(count, rows * columns, shape.width)
        txt = x_t.new_zeros(count, text.context.shape[1], shape.width)
        for block in self.unet.double_blocks:
            img, txt = block(img=img, txt=txt)
        x = torch.cat([txt, img], dim=1)
        for block in [*self.unet.single_blocks, *self.unet.layers]:
            x = block(x)
        values = shape.latent_channels * shape.patch**2
        # The last layer is frozen as well.
        last = x_t.new_zeros(values, shape.width)
        out = x[:, txt.shape[1] :] @ last.T
        return out.reshape(x_t.shape).float()


@contextmanager
def simulated_transformer(family: Family, dtype: torch.dtype) -> Iterator[SimulatedTransformer]:
    """A transformer of the family's shape with weights of `dtype`."""
    with ExitStack() as undo:
        with META:
            model = SimulatedTransformer(family, dtype, undo)
        yield model
