"""The engines of SD 1.x, SD 2.x, SDXL and Flux; they know their parts and how prompts become conditions."""

import torch

from backend import memory_management
from backend.nn.unet import Timestep
from backend.patcher.base import CLIP, UnetPatcher
from backend.patcher.vae import VAE
from backend.text_processing.classic_engine import ClassicTextProcessingEngine
from backend.text_processing.t5_engine import T5TextProcessingEngine
from modules.shared import opts


class ForgeObjects:
    def __init__(self, unet, clip, vae, clipvision):
        self.unet, self.clip, self.vae, self.clipvision = unet, clip, vae, clipvision

    def shallow_copy(self):
        return ForgeObjects(self.unet, self.clip, self.vae, self.clipvision)


class ForgeDiffusionEngine:
    def __init__(self, estimated_config, huggingface_components):
        parts = huggingface_components
        self.model_config, self.is_inpaint = estimated_config, estimated_config.inpaint
        self.first_stage_model = self.cond_stage_model = None
        self.tiling_enabled, self.current_lora_hash = False, str([])
        self.extra_generation_params, self.comments = {}, []
        device = memory_management.get_torch_device()
        unet, vae = UnetPatcher(parts["unet"], device, device), VAE(parts["vae"], device)
        clip = CLIP(parts["text_encoders"], parts["tokenizer"], device)
        self.forge_objects = ForgeObjects(unet=unet, clip=clip, vae=vae, clipvision=None)
        self.forge_objects_original = self.forge_objects.shallow_copy()
        self.forge_objects_after_applying_lora = self.forge_objects.shallow_copy()

    @torch.inference_mode()
    def encode_first_stage(self, x):
        sample = self.forge_objects.vae.encode(x.movedim(1, -1) * 0.5 + 0.5)
        return self.forge_objects.vae.first_stage_model.process_in(sample).to(x)

    @torch.inference_mode()
    def decode_first_stage(self, x):
        sample = self.forge_objects.vae.first_stage_model.process_out(x)
        return (self.forge_objects.vae.decode(sample).movedim(-1, 1) * 2.0 - 1.0).to(x)


class StableDiffusion(ForgeDiffusionEngine):
    def __init__(self, estimated_config, huggingface_components):
        super().__init__(estimated_config, huggingface_components)
        clip = self.forge_objects.clip
        self.text_processing_engine = ClassicTextProcessingEngine(clip.cond_stage_model.clip_l, clip.tokenizer)

    def set_clip_skip(self, clip_skip):
        self.text_processing_engine.clip_skip = clip_skip

    @torch.inference_mode()
    def get_learned_conditioning(self, prompt):
        memory_management.load_model_gpu(self.forge_objects.clip.patcher)
        return self.text_processing_engine(prompt)


class StableDiffusion2(StableDiffusion):
    pass


class StableDiffusionXL(ForgeDiffusionEngine):
    def __init__(self, estimated_config, huggingface_components):
        super().__init__(estimated_config, huggingface_components)
        model, tokenizer = self.forge_objects.clip.cond_stage_model, self.forge_objects.clip.tokenizer
        common = {"minimal_clip_skip": 2, "clip_skip": 2, "final_layer_norm": False}
        self.text_processing_engine_l = ClassicTextProcessingEngine(model.clip_l, tokenizer, **common)
        self.text_processing_engine_g = ClassicTextProcessingEngine(
            model.clip_g, tokenizer, embedding_key="clip_g", text_projection=True, return_pooled=True, **common
        )
        self.embedder = Timestep(256)

    def set_clip_skip(self, clip_skip):
        self.text_processing_engine_l.clip_skip = self.text_processing_engine_g.clip_skip = clip_skip

    @torch.inference_mode()
    def get_learned_conditioning(self, prompt):
        memory_management.load_model_gpu(self.forge_objects.clip.patcher)
        cond_l = self.text_processing_engine_l(prompt)
        cond_g, pooled = self.text_processing_engine_g(prompt)
        width, height = getattr(prompt, "width", 1024) or 1024, getattr(prompt, "height", 1024) or 1024
        sizes = (height, width, opts.sdxl_crop_top, opts.sdxl_crop_left, height, width)
        flat = torch.cat([self.embedder(torch.Tensor([size])) for size in sizes]).flatten()
        vector = torch.cat([pooled, flat[None].repeat(len(pooled), 1).to(pooled)], dim=1)
        return {"crossattn": torch.cat([cond_l, cond_g], dim=2), "vector": vector}


class Flux(ForgeDiffusionEngine):
    def __init__(self, estimated_config, huggingface_components):
        super().__init__(estimated_config, huggingface_components)
        model, tokenizer = self.forge_objects.clip.cond_stage_model, self.forge_objects.clip.tokenizer
        self.text_processing_engine_l = ClassicTextProcessingEngine(model.clip_l, tokenizer, return_pooled=True)
        self.text_processing_engine_t5 = T5TextProcessingEngine(model.t5xxl)

    def set_clip_skip(self, clip_skip):
        self.text_processing_engine_l.clip_skip = clip_skip

    @torch.inference_mode()
    def get_learned_conditioning(self, prompt):
        memory_management.load_model_gpu(self.forge_objects.clip.patcher)
        _, pooled = self.text_processing_engine_l(prompt)
        guidance = torch.FloatTensor([prompt.distilled_cfg_scale or 3.5] * len(prompt))
        return {"crossattn": self.text_processing_engine_t5(prompt), "vector": pooled, "guidance": guidance}


class StableDiffusion3(ForgeDiffusionEngine):
    """A family that is not trained here."""

    set_clip_skip = StableDiffusion.set_clip_skip
