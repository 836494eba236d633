"""The transformers that Neo alone loads: their engines, and what each is made of."""

import torch
from backend import memory_management
from backend.args import dynamic_args
from backend.diffusion_engine.engines import ForgeDiffusionEngine
from backend.nn import flux
from backend.nn.anima import Anima as AnimaTransformer
from backend.nn.lumina import NextDiT
from backend.nn.vae import IntegratedAutoencoderKL, WanVAE
from backend.text_processing import anima_engine, gemma_engine, qwen3_engine, t5_engine


class _Engine(ForgeDiffusionEngine):
    """`texts` makes the text engine of a text encoder."""

    def __init__(self, estimated_config, huggingface_components):
        super().__init__(estimated_config, huggingface_components)
        self.text_processing_engine = self.texts(self.forge_objects.clip.cond_stage_model.text)
        self.ref_latents, self.ini_latent = [], None

    def set_clip_skip(self, clip_skip):
        pass

    @torch.inference_mode()
    def get_learned_conditioning(self, prompt):
        memory_management.load_model_gpu(self.forge_objects.clip.patcher)
        return self.text_processing_engine(prompt)


class ZImage(_Engine):
    texts = qwen3_engine.Qwen3TextProcessingEngine


class Chroma(_Engine):
    texts = t5_engine.ShortT5TextProcessingEngine


class Lumina2(_Engine):
    texts = gemma_engine.GemmaTextProcessingEngine


class Anima(_Engine):
    """Of a video model: latents (B, C, 1, H, W)."""

    texts, is_wan = anima_engine.AnimaTextProcessingEngine, True

    @torch.inference_mode()
    def encode_first_stage(self, x):
        return torch.cat([super(Anima, self).encode_first_stage(picture[None]) for picture in x])

    @torch.inference_mode()
    def decode_first_stage(self, x):
        vae = self.forge_objects.vae
        found = [vae.decode(vae.first_stage_model.process_out(each[None])) for each in x]
        return (torch.cat(found)[:, 0].movedim(-1, 1) * 2.0 - 1.0).to(x)


class Flux2(_Engine):
    texts = qwen3_engine.KleinTextProcessingEngine

    @torch.inference_mode()
    def encode_first_stage(self, x):
        self.ini_latent = super().encode_first_stage(x)
        return self.ini_latent

    @torch.inference_mode()
    def get_learned_conditioning(self, prompt):
        if not prompt.is_negative_prompt:
            dynamic_args.ref_latents = [*([] if self.ini_latent is None else [self.ini_latent]), *self.ref_latents]
            self.ini_latent = None
        return super().get_learned_conditioning(prompt)


def _vae():
    return IntegratedAutoencoderKL(16, 0.36)


# Engine, transformer, VAE, and the class of the configuration where it is not named like the engine.
PARTS = {
    "zimage": (ZImage, lambda: NextDiT(32, 24), _vae, "ZImage"),
    "lumina2": (Lumina2, lambda: NextDiT(32, 24), _vae, "Lumina2"),
    "anima": (Anima, lambda: AnimaTransformer(32, 24), lambda: WanVAE(16, 1.0), "Anima"),
    "chroma": (Chroma, lambda: flux.IntegratedFluxTransformer2DModel(32, 24), _vae, "Chroma"),
    "klein4b": (
        Flux2,
        lambda: flux.IntegratedFluxTransformer2DModel(32, 24, channels=128, patch=1),
        lambda: IntegratedAutoencoderKL(128, 1.0, side=16),
        "Flux2K4B",
    ),
}
