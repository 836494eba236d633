"""The checkpoint that A1111 holds, as training sees it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lib_trainer.errors import UserError
from lib_trainer.host.a1111.device_placement import DevicePlacement
from lib_trainer.host.a1111.inspect import compute_device, dense_shape, profile_of_model
from lib_trainer.host.webui.embeddings import known_to, registered
from lib_trainer.host.webui.model import WebuiModel
from lib_trainer.host.webui.prompts import literal_caption
from lib_trainer.models import trainable
from lib_trainer.models.base import CheckpointInfo, Layer, SizeCond, TextCond
from lib_trainer.models.families import SD1, SDXL, Family
from lib_trainer.models.layers import text_encoder_layers, unet_layers
from lib_trainer.models.offload import offloaded_weights
from lib_trainer.models.placement import MemoryProfile, Placement
from lib_trainer.utils.file_mark import file_mark
from lib_trainer.utils.patch import attributes

if TYPE_CHECKING:
    from lib_trainer.models.base import Vectors

# More tokens than any word has.
_MOST_TOKENS = 75


class A1111Model(WebuiModel):
    """An open `LatentDiffusion` or SDXL `DiffusionEngine`; implements `models.base.HostModel`.

    Args:
        model: A1111's `shared.sd_model`, with no LoRA in its weights.
        undo: takes the context managers of every change made to the model; closing it restores the model.
    """

    def __init__(self, model: Any, family: Family, undo: ExitStack) -> None:
        # Entered before the changes of training, so that it ends after them: those are undone on the device.
        self._takeover = undo.enter_context(ExitStack())
        super().__init__(model, undo)
        self.family = family
        self.checkpoint = checkpoint_info(model)
        self.device = compute_device()
        self.prediction = "v" if model.parameterization == "v" else "epsilon"
        self.alphas_cumprod = _alphas_cumprod(model)
        self.unet: nn.Module = model.model.diffusion_model
        self._vae: nn.Module = model.first_stage_model
        self._text: nn.Module = model.conditioner if family is SDXL else model.cond_stage_model
        self._placement = DevicePlacement([self.unet, self._text, self._vae], self.device)
        self._take_over()

    def _take_over(self) -> None:
        from modules import sd_unet, shared

        enter = self._takeover.enter_context
        enter(self._placement.taken_over(self.loaded))
        # An extension's compiled UNet, or a hypernetwork of the last prompt, would run in place of what we train.
        enter(attributes([sd_unet], current_unet=None))
        enter(attributes([shared], loaded_hypernetworks=[]))

    def encode_images(self, pixels: Tensor) -> Tensor:
        self._placement.move([self._vae])
        with torch.no_grad():
            latents = self._posterior_mean(pixels)
            if not torch.isfinite(latents).all():
                # SDXL's own VAE overflows in half precision; A1111 retries in float32 as well.
                stored = next(self._vae.parameters()).dtype
                try:
                    self._vae.float()
                    latents = self._posterior_mean(pixels)
                finally:
                    self._vae.to(stored)
        if not torch.isfinite(latents).all():
            raise UserError("The VAE produced NaN or Inf for a picture.", "Choose another VAE.")
        return latents

    def _posterior_mean(self, pixels: Tensor) -> Tensor:
        """pixels (B, 3, H, W) -> scaled mean (B, 4, H/8, W/8) of the posterior: equal pictures get equal latents."""
        stored = next(self._vae.parameters()).dtype
        moments = self._vae.quant_conv(self._vae.encoder(pixels.to(self.device, stored)))
        return (moments.chunk(2, dim=1)[0].float() * self.loaded.scale_factor).cpu()

    def encode_text(self, prompts: Sequence[str], clip_skip: int, *, grad: bool = False) -> TextCond:
        from modules import devices, sd_hijack_clip, sd_hijack_open_clip

        texts = [literal_caption(prompt) for prompt in prompts]
        if not grad:
            self._placement.move([self._text])
        with ExitStack() as stack:
            stack.enter_context(plain_captions(clip_skip, [sd_hijack_clip, sd_hijack_open_clip]))
            if not grad:
                # As A1111 encodes prompts. A trained encoder runs without autocast, in the dtype it is stored in.
                stack.enter_context(torch.no_grad())
                stack.enter_context(devices.autocast())
            if self.family is SDXL:
                # The conditioner as a whole appends embedded sizes to the pooled text; ours come per bucket.
                hidden_l = self._text.embedders[0](texts)
                hidden_g, pooled = self._text.embedders[1](texts)
                context = torch.cat([hidden_l, hidden_g], dim=2)
            else:
                context, pooled = self._text(texts), None
        if grad:
            return TextCond(context, pooled)
        return TextCond(context.float().cpu(), None if pooled is None else pooled.float().cpu())

    def word_vectors(self, text: str) -> Vectors:
        self._placement.move([self._text])
        return token_rows(self._text, self.family, text)

    def embeddings(self, words: Mapping[str, Vectors]) -> AbstractContextManager[None]:
        return known_words(self.loaded, words)

    def memory_profile(self) -> MemoryProfile:
        return profile_of_model(self.loaded, self.family)

    def _change(self, placement: Placement, text_encoder: bool) -> None:
        import ldm.modules.attention
        import sgm.modules.attention
        from modules import devices, sd_hijack_optimizations

        wanted = [] if placement.offloads else [self.unet]
        self._placement.move([*wanted, self._text] if text_encoder else wanted)
        enter = self._changes.enter_context
        for module in [self.unet, *([self._text] if text_encoder else [])]:
            enter(trainable.frozen(module))
            self._changes.callback(trainable.release, [module])
        parts = list(self.unet.modules())
        if placement.offloads:
            self._offloaded = enter(offloaded_weights(self.unet, self.adaptable_layers(), self.device, placement))
            self._changes.callback(setattr, self, "_offloaded", None)
        # A1111 relies on autocast, which training leaves off: layers cast their weights to the input's dtype instead.
        enter(trainable.input_cast([*parts, *self._text.modules()] if text_encoder else parts))
        # With --upcast-sampling A1111's layers cast between dtypes themselves.
        enter(attributes([devices], unet_needs_upcast=False))
        attentions = [ldm.modules.attention.CrossAttention, sgm.modules.attention.CrossAttention]
        # Drawing may use sub-quadratic, split or xformers attention; the memory estimate counts on PyTorch's.
        sdpa = sd_hijack_optimizations.scaled_dot_product_attention_forward
        enter(attributes(attentions, forward=sdpa))
        # LDM's own checkpointing takes gradients of all weights, and fails for frozen ones.
        enter(attributes(parts, checkpoint=False, use_checkpoint=False))
        blocks = [part for part in parts if type(part).__name__ in ("BasicTransformerBlock", "ResBlock")]
        enter(trainable.checkpointed(blocks, placement))

    @contextmanager
    def paused(self) -> Iterator[None]:
        with super().paused():
            # A1111's hooks move the parts again while it draws.
            self._takeover.close()
            try:
                yield
            finally:
                self._take_over()

    def predict(self, x_t: Tensor, t: Tensor, text: TextCond, sizes: SizeCond) -> Tensor:
        from modules import devices

        # The UNet casts its input to the dtype it is drawn in; training may compute in another.
        with attributes([self.unet], dtype=x_t.dtype), attributes([devices], dtype_unet=x_t.dtype):
            vector = None
            if self.family is SDXL:
                embedded = self._text.embedders[2].timestep(sizes.pixels.flatten()).reshape(len(x_t), -1)
                vector = torch.cat([text.pooled, embedded.to(text.pooled)], dim=1)
            return self.unet(x_t, t.float(), context=text.context, y=vector).float()

    def adaptable_layers(self) -> list[Layer]:
        return unet_layers(self.unet, self.family, dense_shape)

    def text_layers(self) -> list[Layer]:
        if self.family is not SD1:
            # kohya's names split what open_clip computes from one weight in one call, so no adapter can act on a part.
            raise UserError(
                f"The text encoders of {self.family.label} cannot be trained in this WebUI: open_clip keeps queries,"
                " keys and values in one weight.",
                "Leave them out, or train in stable-diffusion-webui-forge.",
            )
        return text_encoder_layers(self._text.wrapped.transformer, "lora_te_", dense_shape)

    def _read_own_weight(self, layer: Layer, like: Tensor) -> tuple[Tensor, Tensor | None]:
        weight, bias = layer.module.weight.detach(), layer.module.bias
        return weight.to(like), None if bias is None else bias.detach().to(like)


class _Options:
    """The WebUI's options with some changed. Its own object would save ours with the next change a person makes."""

    def __init__(self, options: Any, **changed: Any) -> None:
        self._options = options
        vars(self).update(changed)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._options, name)


@contextmanager
def plain_captions(clip_skip: int, readers: Iterable[Any]) -> Iterator[None]:
    """The text encoders with our CLIP skip and without the prompt syntax: a caption is plain text.

    Args:
        readers: the WebUI's modules whose `opts` the encoders read.
    """
    from modules import shared

    options = _Options(
        shared.opts,
        emphasis="None",
        use_old_emphasis_implementation=False,
        CLIP_stop_at_last_layers=clip_skip,
        # SDXL's first encoder is read at the layer before the last unless this option is on.
        sdxl_clip_l_skip=clip_skip > 2,
        textual_inversion_add_hashes_to_infotext=False,
    )
    with attributes(readers, opts=options):
        yield


def token_rows(text_model: Any, family: Family, text: str) -> Vectors:
    """`HostModel.word_vectors` of the WebUI's text encoders."""
    encoders = list(text_model.embedders)[:2] if family is SDXL else [text_model]
    with torch.no_grad():
        found = [encoder.encode_embedding_init_text(text, _MOST_TOKENS).float().cpu() for encoder in encoders]
    return dict(zip(("clip_l", "clip_g"), found, strict=False))


@contextmanager
def known_words(loaded: Any, words: Mapping[str, Vectors]) -> Iterator[None]:
    """`HostModel.embeddings`, by the WebUI's own list of embeddings."""
    from modules.sd_hijack import model_hijack
    from modules.textual_inversion.textual_inversion import Embedding

    database = model_hijack.embedding_db

    def register(embedding: Any, word: str) -> None:
        database.register_embedding_by_name(embedding, loaded, word)

    # Every picture looks whether the folder has changed, and would forget what does not lie there.
    kept = attributes([database], load_textual_inversion_embeddings=lambda *_args, **_kwargs: None)
    with registered(known_to(Embedding, words), [(database, register)]), kept:
        yield


def checkpoint_info(model: Any) -> CheckpointInfo:
    from modules import sd_vae

    info = model.sd_checkpoint_info
    # Cached latents depend on it.
    vae = Path(sd_vae.loaded_vae_file).name if sd_vae.loaded_vae_file else ""
    # With --no-hashing the WebUI has no hash, and a name alone would find the latents of a file that it replaced.
    return CheckpointInfo(info.name, info.sha256 or info.shorthash or file_mark(Path(info.filename)), vae)


def _alphas_cumprod(model: Any) -> Tensor:
    """The noise schedule (T,) that pictures are drawn with: an option rescales it to zero terminal SNR."""
    from modules import sd_models

    # A1111 applies the option at the start of each picture.
    sd_models.apply_alpha_schedule_override(model)
    return model.alphas_cumprod.detach().float().cpu().clone()
