"""The checkpoint that reForge or Forge Classic holds, as training sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from lib_trainer.errors import UserError
from lib_trainer.host.a1111.inspect import dense_shape, profile_of_model
from lib_trainer.host.a1111.model import checkpoint_info, known_words, plain_captions, token_rows
from lib_trainer.host.webui.model import WebuiModel
from lib_trainer.host.webui.prompts import literal_caption
from lib_trainer.models import trainable
from lib_trainer.models.base import CheckpointInfo, Layer, SizeCond, TextCond
from lib_trainer.models.families import SDXL, Family
from lib_trainer.models.layers import clip_layers, unet_layers
from lib_trainer.models.offload import offloaded_weights
from lib_trainer.models.placement import MemoryProfile, Placement
from lib_trainer.utils.patch import attributes

if TYPE_CHECKING:
    from lib_trainer.models.base import Vectors

# Parts of `model_sampling`'s class that predict something else, or on another schedule.
_OTHER_PREDICTIONS = frozenset(("EDM", "X0", "IMG_TO_IMG"))


class ReforgeModel(WebuiModel):
    """An open `shared.sd_model` of reForge or Forge Classic; implements `models.base.HostModel`.

    Args:
        loaded: an `ldm` or `sgm` model whose parts are ComfyUI's, with no LoRA in its weights.
        undo: takes the context managers of every change made to the model; closing it restores the model.
    """

    def __init__(self, loaded: Any, family: Family, undo: ExitStack) -> None:
        from ldm_patched.modules import model_management

        super().__init__(loaded, undo)
        self._objects = loaded.forge_objects_original
        self.family = family
        self.checkpoint = _checkpoint(loaded)
        self.device = model_management.get_torch_device()
        self.prediction = prediction_of(loaded)
        self.alphas_cumprod = _alphas_cumprod(loaded)
        self.unet: nn.Module = self._objects.unet.model.diffusion_model
        self._text: nn.Module = loaded.conditioner if family is SDXL else loaded.cond_stage_model

    def encode_images(self, pixels: Tensor) -> Tensor:
        vae, unet = self._objects.vae, self._objects.unet
        # Asked for the mean of the posterior: equal pictures get equal latents.
        with torch.inference_mode(), attributes([vae.first_stage_model.regularization], sample=False):
            latents = vae.encode(pixels.movedim(1, -1) * 0.5 + 0.5)
            latents = unet.model.model_config.latent_format.process_in(latents)
        latents = _own(latents)
        if not torch.isfinite(latents).all():
            raise UserError(
                "The VAE produced NaN or Inf for a picture.",
                "Start the WebUI with --vae-in-fp32, or choose another VAE.",
            )
        return latents

    def encode_text(self, prompts: Sequence[str], clip_skip: int, *, grad: bool = False) -> TextCond:
        from ldm_patched.modules import model_management
        from modules import sd_hijack_clip
        from modules_forge import forge_clip

        texts = [literal_caption(prompt) for prompt in prompts]
        with ExitStack() as stack:
            stack.enter_context(plain_captions(clip_skip, [sd_hijack_clip, forge_clip]))
            # Each call would load the text encoders anew, and might push the UNet off the device in mid-step.
            stack.enter_context(attributes([forge_clip], move_clip_to_gpu=lambda: None))
            if not grad:
                stack.enter_context(torch.inference_mode())
                model_management.load_model_gpu(self._objects.clip.patcher)
            if self.family is SDXL:
                # The conditioner as a whole appends embedded sizes to the pooled text; ours come per bucket.
                hidden_l = self._text.embedders[0](texts)
                hidden_g, pooled = self._text.embedders[1](texts)
                context = torch.cat([hidden_l, hidden_g], dim=2)
            else:
                context, pooled = self._text(texts), None
        if grad:
            return TextCond(context, pooled)
        return TextCond(_own(context), None if pooled is None else _own(pooled))

    def word_vectors(self, text: str) -> Vectors:
        return token_rows(self._text, self.family, text)

    def embeddings(self, words: Mapping[str, Vectors]) -> AbstractContextManager[None]:
        return known_words(self.loaded, words)

    def memory_profile(self) -> MemoryProfile:
        return profile_of_model(self.loaded, self.family)

    def _change(self, placement: Placement, text_encoder: bool) -> None:
        from ldm_patched.ldm.modules import attention
        from ldm_patched.modules import model_management
        from modules_forge import stream

        clip = self._objects.clip
        patchers = [] if placement.offloads else [self._objects.unet]
        # Models are moved in inference mode while it draws; moved otherwise, they could not be restored as they were.
        with torch.inference_mode():
            model_management.unload_all_models()
            model_management.load_models_gpu([*patchers, clip.patcher] if text_encoder else patchers)
        enter = self._changes.enter_context
        trained = [self.unet, clip.cond_stage_model] if text_encoder else [self.unet]
        for module in trained:
            enter(trainable.normal_parameters(module))
            self._changes.callback(trainable.release, [module])
        parts = list(self.unet.modules())
        if placement.offloads:
            self._offloaded = enter(offloaded_weights(self.unet, self.adaptable_layers(), self.device, placement))
            self._changes.callback(setattr, self, "_offloaded", None)
        # With this flag each weight is cast to its input's dtype: training may compute in another than drawing.
        cast = [part for module in trained for part in module.modules()]
        enter(attributes(cast, ldm_patched_cast_weights=True))
        # Weights cast on a second stream are freed after the forward pass, but backward still reads them.
        enter(attributes([stream], using_stream=False))
        enter(attributes([model_management], get_offload_stream=lambda _device: None))
        # Classic's `x += n` behind a norm changes what the norm saved for backward.
        enter(trainable.cloned_inputs(part for part in parts if isinstance(part, nn.LayerNorm)))
        enter(trainable.owned_outputs(trainable.added_to_in_place(parts)))
        # Drawing may use sub-quadratic or xformers attention; the memory estimate counts on PyTorch's.
        pytorch = attention.attention_pytorch
        enter(attributes([attention], optimized_attention=pytorch, optimized_attention_masked=pytorch))
        # ComfyUI's own checkpointing takes gradients of all weights, and fails for frozen ones.
        enter(attributes(parts, checkpoint=False, use_checkpoint=False))
        blocks = [part for part in parts if type(part).__name__ in ("BasicTransformerBlock", "ResBlock")]
        enter(trainable.checkpointed(blocks, placement))

    def predict(self, x_t: Tensor, t: Tensor, text: TextCond, sizes: SizeCond) -> Tensor:
        vector = None
        if self.family is SDXL:
            embedded = self._text.embedders[2].timestep(sizes.pixels.flatten()).reshape(len(x_t), -1)
            vector = torch.cat([text.pooled, embedded.to(text.pooled)], dim=1)
        # The UNet writes into this dictionary; its default value is shared by all calls.
        options: dict[str, Any] = {}
        return self.unet(x_t, t.float(), context=text.context, y=vector, transformer_options=options).float()

    def adaptable_layers(self) -> list[Layer]:
        return unet_layers(self.unet, self.family, dense_shape)

    def text_layers(self) -> list[Layer]:
        return clip_layers(self._objects.clip.cond_stage_model, self.family, dense_shape)

    def _read_own_weight(self, layer: Layer, like: Tensor) -> tuple[Tensor, Tensor | None]:
        module = layer.module
        weight = module.weight.detach().to(like)
        # Scaled fp8 checkpoints.
        scale = getattr(module, "scale_weight", None)
        if scale is not None:
            weight = weight * scale.detach().to(like)
        return weight, None if module.bias is None else module.bias.detach().to(like)


def prediction_of(loaded: Any) -> Literal["epsilon", "v"] | None:
    """What the loaded checkpoint predicts; None for what cannot be trained."""
    # A class is put together for each checkpoint, of a prediction and a schedule.
    kinds = {kind.__name__ for kind in type(loaded.forge_objects_original.unet.model.model_sampling).__mro__}
    if "EPS" not in kinds or kinds & _OTHER_PREDICTIONS:
        return None
    return "v" if "V_PREDICTION" in kinds else "epsilon"


def _own(tensor: Tensor) -> Tensor:
    """A float32 copy on the CPU that is an ordinary tensor, even of an inference tensor."""
    return tensor.float().cpu().clone()


def _checkpoint(loaded: Any) -> CheckpointInfo:
    from modules import shared

    info = checkpoint_info(loaded)
    # reForge can take the text encoders from another file: cached captions depend on them.
    encoder = getattr(shared.opts, "sd_text_encoder", None) or "Automatic"
    return info if encoder in ("Automatic", "None") else replace(info, vae=",".join([info.vae, encoder]))


def _alphas_cumprod(loaded: Any) -> Tensor:
    """The noise schedule that pictures are drawn with: rescaled to zero terminal SNR where that is asked for.

    The rescaling is that of Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed", algorithm 1.
    """
    from modules import shared

    sigmas = loaded.forge_objects_original.unet.model.model_sampling.sigmas.detach().float().cpu()
    alphas = 1 / (sigmas**2 + 1)
    if getattr(loaded, "ztsnr", False) or getattr(shared.opts, "sd_noise_schedule", "") == "Zero Terminal SNR":
        root = alphas.sqrt()
        alphas = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
        # As the WebUI sets it: the very last noise level is not infinite.
        alphas[-1] = 4.8973451890853435e-08
    return alphas
