"""A diffusion transformer that Forge holds, as training sees it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from lib_trainer.adapter.attach import layer_op_of
from lib_trainer.adapter.kernels.autograd import apply_frozen
from lib_trainer.errors import UserError
from lib_trainer.host.forge.inspect import dense_shape
from lib_trainer.host.forge.model import ForgeModel, owned
from lib_trainer.host.webui.prompts import literal_caption
from lib_trainer.models.base import Layer, SizeCond, TextCond
from lib_trainer.models.placement import Placement
from lib_trainer.models.transformer_layers import BLOCK_LISTS, frozen_layers, transformer_layers
from lib_trainer.utils.patch import overridden_forward

_TIMESTEPS = 1000


class Captions(list):
    """Prompts as the engines take them.

    Attributes:
        is_negative_prompt: Flux's and Klein's engines leave reference pictures alone for negative prompts, and make the
            same of their text.
    """

    is_negative_prompt = True
    distilled_cfg_scale = 1.0
    width = height = 1024


class ForgeTransformer(ForgeModel):
    """An open engine of Flux.1; implements `models.base.HostModel`. Forge Neo's other families derive from it."""

    captions: type[Captions] = Captions

    def encode_text(self, prompts: Sequence[str], clip_skip: int, *, grad: bool = False) -> TextCond:
        # One at a time: an engine that stacks its results fails for captions of unequal length.
        texts = [self.captions([literal_caption(prompt)]) for prompt in prompts]
        with self._plain_captions(clip_skip), torch.inference_mode():
            found = [self.loaded.get_learned_conditioning(text) for text in texts]
        # Each is a dictionary, a tensor (1, L, D), or a list of one (L, D) or (1, L, D).
        contexts = [each["crossattn"] if isinstance(each, dict) else each for each in found]
        rows = [owned(each[0]).reshape(-1, each[0].shape[-1]) for each in contexts]
        lengths = tuple(len(row) for row in rows)
        context = torch.stack([pad(row, (0, 0, 0, max(lengths) - len(row))) for row in rows])
        pooled = torch.cat([owned(each["vector"]) for each in found]) if isinstance(found[0], dict) else None
        return TextCond(context, pooled, lengths)

    def predict(self, x_t: Tensor, t: Tensor, text: TextCond, sizes: SizeCond) -> Tensor:
        """Rows with text of unequal length are computed one after another: the model would attend to padding."""
        lengths = text.lengths or (text.context.shape[1],) * len(x_t)
        if len(set(lengths)) == 1:
            return self._predict(x_t, t, text.context[:, : lengths[0]], text.pooled)
        rows = [
            self._predict(
                x_t[row : row + 1],
                t[row : row + 1],
                text.context[row : row + 1, :length],
                None if text.pooled is None else text.pooled[row : row + 1],
            )
            for row, length in enumerate(lengths)
        ]
        return torch.cat(rows)

    def _predict(self, x_t: Tensor, t: Tensor, context: Tensor, pooled: Tensor | None) -> Tensor:
        predictor = self._objects.unet.model.predictor
        extra: dict[str, Any] = {} if pooled is None else {"y": pooled}
        if self.family.distilled_guidance and getattr(self.unet, "guidance_embed", False):
            extra["guidance"] = x_t.new_full((len(x_t),), self._guidance_scale)
        timestep = predictor.timestep(t.float() / _TIMESTEPS)
        # The host writes into this dictionary; its default value is shared by all calls.
        return self.unet(x_t, timestep, context=context, transformer_options={}, **extra).float()

    def _change(self, placement: Placement, text_encoder: bool) -> None:
        super()._change(placement, text_encoder)
        if placement.offloads:
            frozen = {layer.module: layer for layer in frozen_layers(self.unet, self.family, dense_shape)}
            self._changes.enter_context(overridden_forward(frozen, lambda module, _: self._frozen(frozen[module])))

    def _frozen(self, layer: Layer) -> Callable[[Tensor], Tensor]:
        """A forward pass with the offloaded weight."""
        operation = layer_op_of(layer)
        return lambda x: apply_frozen(operation, lambda like: self.read_weight(layer, like), x)

    def _offloadable(self) -> list[Layer]:
        return [*self.adaptable_layers(), *frozen_layers(self.unet, self.family, dense_shape)]

    def _code(self) -> list[ModuleType]:
        # The other transformers use Flux's attention and rotary embedding.
        from backend.nn import flux

        return list({sys.modules[type(self.unet).__module__], flux})

    def _blocks(self) -> list[nn.Module]:
        return [block for name in BLOCK_LISTS for block in getattr(self.unet, name, ())]

    def adaptable_layers(self) -> list[Layer]:
        return transformer_layers(self.unet, self.family, dense_shape)

    def text_layers(self) -> list[Layer]:
        raise UserError(
            f"The text encoders of {self.family.label} are not trained here.",
            "Set the text encoder's learning rate to 0.",
        )
