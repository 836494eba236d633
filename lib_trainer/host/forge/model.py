"""The checkpoint that Forge holds, as training sees it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lib_trainer.errors import UserError
from lib_trainer.host.forge.inspect import dense_shape, profile_of_engine
from lib_trainer.host.webui.embeddings import known_to, registered, unprinted
from lib_trainer.host.webui.model import WebuiModel
from lib_trainer.host.webui.prompts import literal_caption
from lib_trainer.models import trainable
from lib_trainer.models.base import CheckpointInfo, Layer, SizeCond, TextCond
from lib_trainer.models.families import SDXL, Family
from lib_trainer.models.layers import clip_layers, unet_layers
from lib_trainer.models.offload import offloaded_weights
from lib_trainer.models.placement import MemoryProfile, Placement
from lib_trainer.utils.file_mark import file_mark
from lib_trainer.utils.patch import attributes

if TYPE_CHECKING:
    from lib_trainer.models.base import Vectors

_PREDICTIONS = {"epsilon": "epsilon", "v_prediction": "v", "const": "flow"}


class ForgeModel(WebuiModel):
    """An open `ForgeDiffusionEngine`; implements `models.base.HostModel`. Forge Neo's derives from it.

    Args:
        engine: Forge's engine, with no LoRA in its weights.
        undo: takes the context managers of every change made to the engine; closing it restores the engine.
    """

    def __init__(self, engine: Any, family: Family, undo: ExitStack) -> None:
        from backend import memory_management

        super().__init__(engine, undo)
        objects = engine.forge_objects_original
        predictor = objects.unet.model.predictor
        self.family = family
        self.checkpoint = _checkpoint_info(engine)
        self.device = memory_management.get_torch_device()
        self.prediction = _PREDICTIONS[predictor.prediction_type]
        self.alphas_cumprod = None if family.is_flow else _alphas_cumprod(engine, predictor)
        self.unet: nn.Module = objects.unet.model.diffusion_model
        self._objects = objects

    def encode_images(self, pixels: Tensor) -> Tensor:
        vae = self._objects.vae
        # The engine's own `encode_first_stage` draws a sample of the posterior, another at every call.
        with torch.inference_mode(), _posterior_mean():
            latents = vae.encode(pixels.movedim(1, -1) * 0.5 + 0.5)
            latents = vae.first_stage_model.process_in(latents)
        latents = owned(latents)
        if not torch.isfinite(latents).all():
            # Forge has no fallback: SDXL's own VAE overflows in half precision.
            raise UserError(
                "The VAE produced NaN or Inf for a picture.",
                "Start the WebUI with --vae-in-fp32, or choose another VAE.",
            )
        return latents

    def encode_text(self, prompts: Sequence[str], clip_skip: int, *, grad: bool = False) -> TextCond:
        from backend import memory_management

        texts = [literal_caption(prompt) for prompt in prompts]
        with self._plain_captions(clip_skip), nullcontext() if grad else torch.inference_mode():
            if not grad:
                memory_management.load_model_gpu(self._objects.clip.patcher)
            if self.family is SDXL:
                # The engine's own conditioning appends embedded sizes to the pooled text; ours come per bucket.
                hidden_l = self.loaded.text_processing_engine_l(texts)
                hidden_g, pooled = self.loaded.text_processing_engine_g(texts)
                context = torch.cat([hidden_l, hidden_g], dim=2)
            else:
                context, pooled = self.loaded.text_processing_engine(texts), None
        if grad:
            return TextCond(context, pooled)
        return TextCond(owned(context), None if pooled is None else owned(pooled))

    def word_vectors(self, text: str) -> Vectors:
        found = {}
        for engine in self._text_engines():
            ids = engine.tokenizer([text], truncation=False, add_special_tokens=False)["input_ids"][0]
            table = engine.text_encoder.transformer.text_model.embeddings.token_embedding.wrapped.weight
            found[engine.embedding_key if self.family is SDXL else "clip_l"] = owned(table[ids])
        return found

    def embeddings(self, words: Mapping[str, Vectors]) -> AbstractContextManager[None]:
        from backend.text_processing.textual_inversion import Embedding

        databases = [engine.embeddings for engine in self._text_engines()]
        registers = [(database, database.register_embedding_by_name) for database in databases]
        return registered(known_to(Embedding, words), registers)

    def _text_engines(self) -> list[Any]:
        names = ("_l", "_g") if self.family is SDXL else ("",)
        return [getattr(self.loaded, f"text_processing_engine{name}") for name in names]

    @contextmanager
    def _plain_captions(self, clip_skip: int) -> Iterator[None]:
        """The text engines with our CLIP skip and without the prompt syntax: a caption is plain text."""
        engines = [value for name, value in vars(self.loaded).items() if name.startswith("text_processing_engine")]
        code = {sys.modules[type(engine).__module__] for engine in engines}
        with ExitStack() as stack:
            stack.enter_context(attributes(code, opts=SimpleNamespace(emphasis="None")))
            # An embedding in a caption is printed, and noted for the next picture's infotext.
            stack.enter_context(unprinted(code))
            holders = [getattr(module, "dynamic_args", module) for module in code]
            stack.enter_context(attributes(holders, last_extra_generation_params={}))
            for engine in engines:
                # Every call stores its emphasis on the engine, where the token counters of the prompt boxes read it.
                stack.enter_context(attributes([engine], clip_skip=clip_skip, emphasis=engine.emphasis))
            yield

    def memory_profile(self) -> MemoryProfile:
        return profile_of_engine(self.loaded, self.family)

    def _change(self, placement: Placement, text_encoder: bool) -> None:
        from backend import attention, memory_management, stream

        patchers = [] if placement.offloads else [self._objects.unet]
        if text_encoder:
            patchers.append(self._objects.clip.patcher)
        # Forge moves models in inference mode; moved otherwise, they could not be restored as it made them.
        with torch.inference_mode():
            memory_management.unload_all_models()
            memory_management.load_models_gpu(patchers)
        enter = self._changes.enter_context
        for module in [self.unet, *([self._objects.clip.cond_stage_model] if text_encoder else [])]:
            # Loaded and moved in inference mode, every parameter refuses to be saved for backward.
            enter(trainable.normal_parameters(module))
            self._changes.callback(trainable.release, [module])
        parts = list(self.unet.modules())
        if placement.offloads:
            self._offloaded = enter(offloaded_weights(self.unet, self._offloadable(), self.device, placement))
            self._changes.callback(setattr, self, "_offloaded", None)
        # With this flag Forge casts each weight to its input's dtype: training may compute in another than drawing.
        enter(attributes(parts, parameters_manual_cast=True))
        # Forge frees weights cast on its second stream after the forward pass, but backward still reads them. Every
        # page that is opened sets its switch again, so the function is replaced.
        enter(attributes([stream], should_use_stream=lambda: False))
        # `x += n` behind a norm changes what the norm saved for backward.
        enter(trainable.cloned_inputs(part for part in parts if isinstance(part, nn.LayerNorm)))
        enter(trainable.owned_outputs(trainable.added_to_in_place(parts)))
        # Drawing may use xformers or split attention; the memory estimate counts on PyTorch's.
        enter(attributes(self._code(), attention_function=attention.attention_pytorch))
        # Forge's own gradient checkpointing raises NotImplementedError.
        enter(trainable.checkpointed(self._blocks(), placement))

    def _offloadable(self) -> list[Layer]:
        """The layers whose weights may be in 8 bits or on the CPU."""
        return self.adaptable_layers()

    def _code(self) -> list[ModuleType]:
        """Forge's modules that compute the UNet."""
        from backend.nn import unet

        return [unet]

    def _blocks(self) -> list[nn.Module]:
        """What can be recomputed, in the order of forward."""
        return [part for part in self.unet.modules() if type(part).__name__ in ("BasicTransformerBlock", "ResBlock")]

    def predict(self, x_t: Tensor, t: Tensor, text: TextCond, sizes: SizeCond) -> Tensor:
        vector = None
        if self.family is SDXL:
            # Six sizes, embedded in 256 values each, behind the pooled text: the order of SDXL's own conditioner.
            embedded = self.loaded.embedder(sizes.pixels.flatten()).reshape(len(x_t), -1)
            vector = torch.cat([text.pooled, embedded.to(text.pooled)], dim=1)
        # Forge writes into this dictionary; its default value is shared by all calls.
        options: dict[str, Any] = {}
        return self.unet(x_t, t.float(), context=text.context, y=vector, transformer_options=options).float()

    def adaptable_layers(self) -> list[Layer]:
        return unet_layers(self.unet, self.family, dense_shape)

    def text_layers(self) -> list[Layer]:
        return clip_layers(self._objects.clip.cond_stage_model, self.family, dense_shape)

    def _read_own_weight(self, layer: Layer, like: Tensor) -> tuple[Tensor, Tensor | None]:
        from backend.operations import get_weight_and_bias

        module, target = layer.module, {"device": like.device, "dtype": like.dtype}
        return get_weight_and_bias(module, target, target, weight_fn=_dequantizer(module.weight))


def owned(tensor: Tensor) -> Tensor:
    """A float32 copy on the CPU that is an ordinary tensor, even of an inference tensor."""
    return tensor.float().cpu().clone()


def _checkpoint_info(engine: Any) -> CheckpointInfo:
    from modules import shared

    info = engine.sd_checkpoint_info
    # VAE and text encoders chosen beside the checkpoint: cached latents and captions depend on them.
    extra = ",".join(sorted(getattr(shared.opts, "forge_additional_modules", None) or []))
    # With --no-hashing Forge has no hash, and a name alone would find the latents of a file that it replaced.
    return CheckpointInfo(info.name, info.sha256 or engine.sd_model_hash or file_mark(Path(info.filename)), extra)


def _alphas_cumprod(engine: Any, predictor: Any) -> Tensor:
    """The noise schedule that pictures are drawn with: rescaled where the checkpoint asks for zero terminal SNR."""
    from backend.modules.k_prediction import rescale_zero_terminal_snr_sigmas

    # Forge rescales at the start of each picture, and the predictor keeps the unscaled sigmas.
    sigmas = predictor.sigmas.detach().float().cpu().clone()
    if getattr(engine.model_config, "ztsnr", False):
        sigmas = rescale_zero_terminal_snr_sigmas(sigmas)
    return 1 / (sigmas**2 + 1)


@contextmanager
def _posterior_mean() -> Iterator[None]:
    """VAEs encode to the mean of their posterior instead of a sample: equal pictures get equal latents."""
    from backend.nn.vae import DiagonalGaussianDistribution

    # The class, not the VAE: Forge's and Neo's `encode` take different arguments.
    with attributes([DiagonalGaussianDistribution], sample=DiagonalGaussianDistribution.mode):
        yield


def _dequantizer(weight: Tensor) -> Any:
    """The function that makes Forge's nf4, fp4 and GGUF weights dense, None for dense ones."""
    if hasattr(weight, "bnb_quantized"):
        from backend.operations_bnb import functional_dequantize_4bit

        return functional_dequantize_4bit
    if getattr(weight, "gguf_cls", None) is not None:
        from backend.operations_gguf import dequantize_tensor

        return dequantize_tensor
    return None
