"""A diffusers pipeline, as training sees it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from diffusers import DiffusionPipeline
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn

from lib_trainer.errors import UserError
from lib_trainer.host.standalone.pipeline import alphas_cumprod, family_of, prediction_of
from lib_trainer.host.standalone.words import token_chunks, vectors_in_place
from lib_trainer.models import trainable
from lib_trainer.models.base import CheckpointInfo, Layer, SizeCond, TextCond
from lib_trainer.models.checkpoint_file import unet_shape
from lib_trainer.models.families import SDXL, Family
from lib_trainer.models.layer_names import kohya_name, ldm_names
from lib_trainer.models.layers import describe_layer, describe_norm
from lib_trainer.models.offload import Int8Weight, OffloadedWeights, offloaded_weights
from lib_trainer.models.placement import MemoryProfile, Placement
from lib_trainer.utils.patch import Forward, overridden_forward

if TYPE_CHECKING:
    from lib_trainer.models.base import Vectors

_BLOCKS = (Transformer2DModel, ResnetBlock2D, Downsample2D, Upsample2D)
# kohya + LyCORIS adapt these as well on SD 1.x and 2.x.
_SINGLE_LAYERS = ("conv_in", "conv_out", "time_embedding.linear_1", "time_embedding.linear_2")
_TEXT_LAYER = re.compile(r"encoder\.layers\.\d+\.(self_attn\.(q|k|v|out)_proj|mlp\.fc[12])$")
_CPU = torch.device("cpu")
_ENCODERS = ("clip_l", "clip_g")


class StandaloneModel:
    """A pipeline's parts; implements `models.base.HostModel`.

    Each part moves to `device` when it is needed, and off it when another needs the memory. Closing `undo` moves every
    part back to where it was.

    Args:
        undo: takes the context managers of every change made to the parts; closing it restores them.
    """

    def __init__(
        self, pipeline: DiffusionPipeline, checkpoint: CheckpointInfo, device: torch.device, undo: ExitStack
    ) -> None:
        self.family: Family = family_of(pipeline)
        self.checkpoint = checkpoint
        self.device = device
        self.prediction = prediction_of(pipeline)
        self.alphas_cumprod = alphas_cumprod(pipeline)
        self.unet: nn.Module = pipeline.unet
        self.pipeline = pipeline
        self._undo = undo
        self._offloaded: OffloadedWeights | None = None
        self._words: dict[str, Vectors] = {}
        for part in self._parts:
            # Each part goes back by itself, wherever it is then.
            undo.callback(_move, part, part.device)

    @property
    def text_encoders(self) -> list[nn.Module]:
        return [self.pipeline.text_encoder, *([self.pipeline.text_encoder_2] if self.family is SDXL else [])]

    @property
    def _parts(self) -> list[nn.Module]:
        return [self.unet, self.pipeline.vae, *self.text_encoders]

    def move(self, *on_device: nn.Module) -> None:
        """These parts on the device, all others on the CPU."""
        for part in self._parts:
            _move(part, self.device if part in on_device else _CPU)

    def encode_images(self, pixels: Tensor) -> Tensor:
        vae = self.pipeline.vae.to(self.device)
        with torch.no_grad():
            mean = vae.encode(pixels.to(self.device)).latent_dist.mode()
        return (mean * vae.config.scaling_factor).float().cpu().contiguous()

    def encode_text(self, prompts: Sequence[str], clip_skip: int, *, grad: bool = False) -> TextCond:
        with torch.set_grad_enabled(grad):
            read = [self._read_chunks(index, prompts, clip_skip) for index in range(len(self.text_encoders))]
        context = torch.cat([hidden for hidden, _ in read], dim=2)
        pooled = read[-1][1] if self.family is SDXL else None
        if grad:
            return TextCond(context, pooled)
        return TextCond(context.float().cpu(), None if pooled is None else pooled.float().cpu())

    def _read_chunks(self, index: int, prompts: Sequence[str], clip_skip: int) -> tuple[Tensor, Tensor | None]:
        """(B, 77·n, D) hidden states of one encoder, and the pooled text of the first chunk where it has any."""
        encoder = self.text_encoders[index].to(self.device)
        tokenizer = self.pipeline.tokenizer_2 if index else self.pipeline.tokenizer
        hidden, pooled = [], []
        layers = encoder.config.num_hidden_layers
        if clip_skip > layers:
            text = f"Clip skip {clip_skip} leaves nothing of a text encoder of {layers} layers."
            raise UserError(text, f"Choose one up to {layers}, or 0 for the usual layer.")
        words = {word: vectors[_ENCODERS[index]] for word, vectors in self._words.items()}
        for tokens in token_chunks(tokenizer, prompts, encoder.config.max_position_embeddings, words):
            with vectors_in_place(encoder, words):
                output = encoder(tokens.to(self.device), output_hidden_states=True)
            if self.family is SDXL:
                # SDXL was trained on the layer before the last, without the final norm.
                hidden.append(output.hidden_states[-max(clip_skip, 2)])
                pooled.append(getattr(output, "text_embeds", None))
            else:
                # transformers 5 has no inner `text_model`.
                normalize = getattr(encoder, "text_model", encoder).final_layer_norm
                hidden.append(normalize(output.hidden_states[-clip_skip]))
        return torch.cat(hidden, dim=1), pooled[0] if pooled else None

    def word_vectors(self, text: str) -> Vectors:
        tokenizers = [self.pipeline.tokenizer, getattr(self.pipeline, "tokenizer_2", None)]
        found = {}
        for key, encoder, tokenizer in zip(_ENCODERS, self.text_encoders, tokenizers, strict=False):
            ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
            found[key] = encoder.get_input_embeddings().weight.detach()[ids].float().cpu()
        return found

    @contextmanager
    def embeddings(self, words: Mapping[str, Vectors]) -> Iterator[None]:
        before, self._words = self._words, {**self._words, **words}
        try:
            yield
        finally:
            self._words = before

    def memory_profile(self) -> MemoryProfile:
        weight = self.unet.conv_in.weight
        memory_profile = MemoryProfile(self.family, unet_shape(self.unet.config, self.family), weight.element_size())
        if self.device == _CPU:
            return memory_profile
        free, total = torch.cuda.mem_get_info(self.device)
        held = sum(p.nbytes for part in self._parts for p in part.parameters() if p.device == self.device)
        return replace(memory_profile, available_bytes=free + held, total_bytes=total)

    def prepare_training(self, placement: Placement, *, text_encoder: bool, guidance_scale: float = 1.0) -> None:
        texts = self.text_encoders if text_encoder else []
        self.move(*([] if placement.offloads else [self.unet]), *texts)
        enter = self._undo.enter_context
        for part in [self.unet, *texts]:
            enter(trainable.normal_parameters(part))
            # diffusers loads parameters that require gradients.
            enter(trainable.frozen(part))
        self._undo.callback(trainable.release, [self.unet, *texts])
        if placement.offloads:
            self._offloaded = enter(offloaded_weights(self.unet, self.adaptable_layers(), self.device, placement))
        # Training may compute in another dtype than the weights are stored in.
        weighted = [part for part in self.unet.modules() if part._parameters]
        enter(overridden_forward(weighted, _casting_forward))
        enter(trainable.checkpointed(blocks_in_order(self.unet), placement))

    def predict(self, x_t: Tensor, t: Tensor, text: TextCond, sizes: SizeCond) -> Tensor:
        extra: dict[str, Any] = {}
        if self.family is SDXL:
            # diffusers embeds the sizes itself, in the order of `SizeCond`.
            extra["added_cond_kwargs"] = {"text_embeds": text.pooled, "time_ids": sizes.pixels}
        return self.unet(x_t, t, encoder_hidden_states=text.context, **extra).sample.float()

    def adaptable_layers(self) -> list[Layer]:
        return unet_layers(self.unet, self.family)

    def norm_layers(self) -> list[Layer]:
        return unet_norms(self.unet, self.family)

    def text_layers(self) -> list[Layer]:
        prefixes = ("lora_te1_", "lora_te2_") if self.family is SDXL else ("lora_te_",)
        return [
            _layer(kohya_name(f"text_model.{match[0]}", prefix), module)
            for prefix, encoder in zip(prefixes, self.text_encoders, strict=True)
            for name, module in encoder.named_modules()
            if (match := _TEXT_LAYER.search(name))
        ]

    def read_int8(self, layer: Layer, like: Tensor) -> tuple[Int8Weight | None, Tensor | None]:
        if self._offloaded is not None and self._offloaded.holds(layer):
            return self._offloaded.read_int8(layer, like)
        return None, None

    def read_weight(self, layer: Layer, like: Tensor) -> tuple[Tensor, Tensor | None]:
        if self._offloaded is not None and self._offloaded.holds(layer):
            return self._offloaded.read(layer, like)
        weight, bias = layer.module.weight.detach(), layer.module.bias
        return weight.to(like), None if bias is None else bias.detach().to(like)


def blocks_in_order(unet: nn.Module) -> list[nn.Module]:
    """The residual and transformer blocks of a diffusers UNet, in the order of forward."""
    ordered: list[nn.Module] = []
    for block in [*unet.down_blocks, unet.mid_block, *unet.up_blocks]:
        transformers = list(getattr(block, "attentions", []))
        # The middle block runs residual, transformer, residual; all others residual, transformer by pairs.
        lead = 1 if block is unet.mid_block else 0
        ordered += block.resnets[:lead]
        for index, residual in enumerate(block.resnets[lead:]):
            pair = [residual, *transformers[index : index + 1]]
            for part in reversed(pair) if lead else pair:
                ordered += part.transformer_blocks if isinstance(part, Transformer2DModel) else [part]
    return ordered


def unet_layers(unet: nn.Module, family: Family) -> list[Layer]:
    """The layers of a diffusers UNet that kohya + LyCORIS adapt, under their kohya names."""
    modules = {name: part for name, part in unet.named_modules() if isinstance(part, nn.Linear | nn.Conv2d)}
    inside = tuple(f"{name}." for name, part in unet.named_modules() if isinstance(part, _BLOCKS))
    # kohya names SDXL's layers as LDM does, those of SD 1.x and 2.x as diffusers.
    names = ldm_names(modules) if family is SDXL else {name: name for name in modules}
    single = () if family is SDXL else _SINGLE_LAYERS
    return [
        _layer(kohya_name(names[name]), module)
        for name, module in modules.items()
        if name.startswith(inside) or name in single
    ]


def unet_norms(unet: nn.Module, family: Family) -> list[Layer]:
    """The norms of a diffusers UNet that LyCORIS trains with `train_norm`."""
    modules = {name: part for name, part in unet.named_modules() if isinstance(part, nn.GroupNorm | nn.LayerNorm)}
    inside = tuple(f"{name}." for name, part in unet.named_modules() if isinstance(part, _BLOCKS))
    kept = [name for name in modules if name.startswith(inside)]
    # The other layers tell how many blocks a level has.
    weighted = [name for name, part in unet.named_modules() if isinstance(part, nn.Linear | nn.Conv2d)]
    names = ldm_names([*weighted, *kept]) if family is SDXL else {name: name for name in kept}
    return [describe_norm(kohya_name(names[name]), modules[name]) for name in kept]


def _layer(name: str, module: nn.Module) -> Layer:
    return describe_layer(name, module, tuple(module.weight.shape))


def _move(part: nn.Module, device: torch.device) -> None:
    if part.device != device:
        part.to(device)


def _casting_forward(module: nn.Module, forward: Forward) -> Forward:
    """`forward` in the dtype of its input, whatever the weights are stored in."""

    def call(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        # Looked up at each call: an adapter or offloading may have replaced them.
        own = module._parameters
        if all(value is None or value.dtype == x.dtype for value in own.values()):
            return forward(x, *args, **kwargs)
        cast = {name: value.to(x.dtype) for name, value in own.items() if value is not None}
        return torch.func.functional_call(module, cast, (x, *args), kwargs)

    return call
