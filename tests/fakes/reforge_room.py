"""A running reForge as the contract tests see it: the fake one and the real one."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from tests.fakes.a1111_room import A1111Room, conditioning
from tests.fakes.room import Precision, Schedule


class ReforgeRoom(A1111Room):
    """A reForge, real or fake. Its number format for weights is an option of the command line.

    A second file of the checkpoint, with "eight-bits-" before its name, is loaded for weights in eight bits.
    """

    def select(self, checkpoint: str = "") -> None:
        self._choose(checkpoint or self.checkpoint, "Disable")

    def select_eight_bits(self) -> None:
        self._choose(f"eight-bits-{self.checkpoint}", "Enable")

    def _choose(self, checkpoint: str, fp8: str) -> None:
        from ldm_patched.modules.args_parser import args
        from modules import shared

        args.unet_in_fp8_e4m3fn = fp8 == "Enable"
        # "Original" divides by the mean of the hidden states, which is zero in checkpoints of random weights.
        shared.opts.data["emphasis"] = "No norm"
        shared.opts.data["sd_model_checkpoint"] = checkpoint

    @property
    def _objects(self) -> Any:
        return self._sd_model.forge_objects

    @property
    def _unet(self) -> nn.Module:
        return self._objects.unet.model.diffusion_model

    @property
    def model(self) -> Any:
        from modules.sd_models import model_data

        return id(model_data.sd_model), getattr(model_data.sd_model, "filename", None)

    @property
    def precision(self) -> Precision:
        unet = self._objects.unet.model
        stored = self._unet.input_blocks[0][0].weight.dtype
        linear = (part for part in self._objects.clip.cond_stage_model.modules() if isinstance(part, nn.Linear))
        computed = unet.manual_cast_dtype or stored
        return Precision(stored, computed, next(linear).weight.dtype, self._objects.vae.vae_dtype)

    @property
    def trains_text(self) -> bool:
        return True

    def parts(self) -> list[nn.Module]:
        objects = self._sd_model.forge_objects_original
        return [objects.unet.model, objects.clip.cond_stage_model, objects.vae.first_stage_model]

    def switches(self) -> Any:
        from ldm_patched.ldm.modules import attention
        from ldm_patched.modules import model_management
        from modules import sd_hijack_clip, shared
        from modules_forge import forge_clip, stream

        vae = self._objects.vae.first_stage_model
        return (
            (attention.optimized_attention, attention.optimized_attention_masked, stream.using_stream),
            getattr(model_management, "get_offload_stream", None),
            (sd_hijack_clip.opts is shared.opts, forge_clip.opts is shared.opts, forge_clip.move_clip_to_gpu),
            vae.regularization.sample,
        )

    def posterior_mean(self, pixels: Tensor) -> Tensor:
        vae = self._objects.vae
        model = vae.first_stage_model
        with torch.inference_mode():
            moments = model.quant_conv(model.encoder(pixels.to(vae.device, vae.vae_dtype)))
        return moments.chunk(2, dim=1)[0].float().cpu().clone() * self.host.drawing_family().latent_scale

    def encode_varied(self, pixels: Tensor) -> Tensor:
        return self._sd_model.encode_first_stage(pixels).clone()

    @property
    def _sampling(self) -> Any:
        return self._objects.unet.model.model_sampling

    def schedule(self) -> Schedule:
        kinds = {kind.__name__ for kind in type(self._sampling).__mro__}
        alphas_cumprod = 1 / (self._sampling.sigmas.float().cpu() ** 2 + 1)
        zero_terminal = bool(getattr(self._sd_model, "ztsnr", False))
        return Schedule(alphas_cumprod, "v" if "V_PREDICTION" in kinds else "epsilon", zero_terminal)

    def denoised(self, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        sigma, scaled = self._as_drawn(x_t, t)
        return self._sampling.calculate_denoised(sigma, output, scaled)

    def drawn_denoised(self, prompts: Sequence[str], x_t: Tensor, t: Tensor) -> Tensor:
        from ldm_patched.modules import model_management

        unet = self._objects.unet
        with torch.inference_mode():
            cond = self._sd_model.get_learned_conditioning(conditioning(prompts))
            model_management.load_models_gpu([unet])
            cond = cond if isinstance(cond, dict) else {"crossattn": cond}
            extra = {"y": cond["vector"]} if "vector" in cond else {}
            sigma, scaled = self._as_drawn(x_t, t)
            return unet.model.apply_model(scaled, sigma, c_crossattn=cond["crossattn"], transformer_options={}, **extra)

    def _as_drawn(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The noise levels (B,) of timesteps, and noisy latents as its samplers hold them: their signal whole."""
        sigma = self._sampling.sigmas.to(x_t.device)[t]
        return sigma, x_t * (sigma.view(-1, 1, 1, 1) ** 2 + 1) ** 0.5

    def _lora_keys(self) -> tuple[dict[str, str], dict[str, str]]:
        """kohya's name -> name of the weight, in the model around the UNet and in the text encoders."""
        from ldm_patched.modules.lora import model_lora_keys_clip, model_lora_keys_unet

        objects = self._sd_model.forge_objects_original
        return model_lora_keys_unet(objects.unet.model, {}), model_lora_keys_clip(objects.clip.cond_stage_model, {})

    def hosts_modules(self, names: Sequence[str]) -> list[nn.Module]:
        unet, clip, _ = self.parts()
        unet_keys, clip_keys = self._lora_keys()
        found = []
        for name in names:
            root, keys = (unet, unet_keys) if name.startswith("lora_unet_") else (clip, clip_keys)
            found.append(root.get_submodule(keys[name].removesuffix(".weight")))
        return found

    def unknown_tensors(self, path: Path) -> Collection[str]:
        known = {name for keys in self._lora_keys() for name in keys}
        with safe_open(path, framework="pt") as file:
            return [name for name in file.keys() if name.partition(".")[0] not in known]  # noqa: SIM118 - no mapping

    def models_movers(self) -> list[Callable[[], object]]:
        from ldm_patched.modules import model_management
        from modules import sd_models

        device, vae = model_management.get_torch_device(), self._objects.vae.patcher
        return [
            lambda: sd_models.unload_model_weights(),
            lambda: model_management.free_memory(1e30, device),
            torch.inference_mode()(lambda: model_management.load_models_gpu([vae])),
        ]


@contextmanager
def fake_reforge(folder: Path, checkpoint: str) -> Iterator[ReforgeRoom]:
    """The fake reForge, started in `folder` with a checkpoint per family; its packages are gone on exit."""
    from lib_trainer.host.reforge.host import ReforgeHost

    for part in ("Lora", "Stable-diffusion"):
        (folder / part).mkdir(parents=True)
    for name, facts in _CHECKPOINTS.items():
        for file in (name, f"eight-bits-{name}"):
            (folder / "Stable-diffusion" / file).write_text(json.dumps({"seed": 0, **facts}))
    sys.path.insert(0, str(_ROOT))
    try:
        from modules import paths_internal, sd_models, shared
        from modules_forge import main_thread

        paths_internal.data_path = str(folder)
        shared.cmd_opts.lora_dir = str(folder / "Lora")
        shared.cmd_opts.embeddings_dir = str(folder / "embeddings")
        shared.cmd_opts.ckpt_dir = str(folder / "Stable-diffusion")
        shared.opts.outdir_txt2img_grids = str(folder / "txt2img-grids")
        # Comments are always cut from prompts; the option is whether files keep them.
        del shared.opts.data["enable_prompt_comments"]
        shared.opts.data["enable_prompt_comments_def"] = False
        sd_models.list_models()
        thread = threading.Thread(target=main_thread.loop, name="generation", daemon=True)
        thread.start()
        try:
            room = ReforgeRoom(ReforgeHost(), checkpoint, thread.name)
            room.select()
            yield room
        finally:
            main_thread.stopped.set()
            thread.join()
    finally:
        sys.path.remove(str(_ROOT))
        for name in list(sys.modules):
            if name.partition(".")[0] in _PACKAGES:
                del sys.modules[name]


_ROOT = Path(__file__).parent / "reforge"
_PACKAGES = ("modules", "modules_forge", "ldm_patched", "networks")
_CHECKPOINTS = {
    "sd1.safetensors": {"family": "sd1"},
    "sd1-inpainting.safetensors": {"family": "sd1", "in_channels": 9},
    "sd2-v.safetensors": {"family": "sd2", "prediction": "V_PREDICTION", "ztsnr": True},
    "sdxl.safetensors": {"family": "sdxl"},
    "sdxl-edm.safetensors": {"family": "sdxl", "prediction": "EDM"},
    "sdxl-rectified.safetensors": {"family": "sdxl", "prediction": "CONST"},
}
