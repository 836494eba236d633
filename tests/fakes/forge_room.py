"""A running Forge as the contract tests see it, and how the fake one is started and removed again."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from lib_trainer.host.forge.host import ForgeHost
from tests.fakes.room import Precision, Schedule, WebuiRoom

FORGE_ROOT = Path(__file__).parent / "forge"
_PACKAGES = ("backend", "modules", "modules_forge", "networks")


class Prompts(list):
    """What Forge hands its engine: prompts that know the size of the picture."""

    width, height = 64, 64
    is_negative_prompt, distilled_cfg_scale = False, 3.5


@dataclass(frozen=True)
class ForgeRoom(WebuiRoom):
    """A Forge, real or fake, with one checkpoint selected."""

    host: ForgeHost

    def select(self, checkpoint: str = "", storage: str = "Automatic") -> None:
        """Args: storage: Forge's own name, as in "Diffusion in Low Bits" at the top of its page."""
        from modules import shared
        from modules_forge import main_entry

        # "Original" divides by the mean of the hidden states, which is zero in checkpoints of random weights.
        shared.opts.data["emphasis"] = "No norm"
        shared.opts.data["sd_model_checkpoint"] = checkpoint or self.checkpoint
        shared.opts.data["forge_unet_storage_dtype"] = storage
        main_entry.refresh_model_loading_parameters()

    def select_eight_bits(self) -> None:
        self.select(storage="float8-e4m3fn")

    @property
    def engine(self) -> Any:
        """Forge's own engine of the loaded checkpoint."""
        from modules.sd_models import model_data

        return model_data.get_sd_model()

    @property
    def model(self) -> Any:
        return self.engine

    @property
    def precision(self) -> Precision:
        objects = self.engine.forge_objects
        unet, text = objects.unet.model, next(objects.clip.cond_stage_model.parameters())
        return Precision(unet.storage_dtype, unet.computation_dtype, text.dtype, objects.vae.vae_dtype)

    def parts(self) -> list[nn.Module]:
        objects = self.engine.forge_objects_original
        return [objects.unet.model, objects.clip.cond_stage_model, objects.vae.first_stage_model]

    def switches(self) -> Any:
        from backend import stream
        from backend.nn import unet as forge_unet

        return forge_unet.attention_function, stream.should_use_stream

    def hosts_text(self, prompts: Sequence[str], clip_skip: int = 1) -> tuple[Tensor, Tensor | None]:
        with torch.inference_mode():
            self.engine.set_clip_skip(clip_skip)
            cond = self.engine.get_learned_conditioning(Prompts(prompts))
            self.engine.set_clip_skip(1)
            if isinstance(cond, dict):
                return cond["crossattn"].float().clone(), cond["vector"][:, : -6 * 256].float().clone()
            return cond.float().clone(), None

    def prompt_notes(self) -> dict[str, Any]:
        """What the text engines noted for the next infotext."""
        from backend.text_processing import classic_engine

        return dict(classic_engine.last_extra_generation_params)

    def caption_traces(self) -> tuple[dict[str, Any], Any]:
        from backend.text_processing import classic_engine
        from modules.shared import opts

        notes = self.prompt_notes()
        if classic_engine.opts is not opts:
            notes["options"] = classic_engine.opts
        engines = [value for name, value in vars(self.engine).items() if name.startswith("text_processing_engine")]
        return notes, [(engine.clip_skip, engine.emphasis.name) for engine in engines]

    def posterior_mean(self, pixels: Tensor) -> Tensor:
        vae = self.engine.forge_objects.vae
        with torch.inference_mode():
            mean = vae.first_stage_model.encode(pixels.to(vae.device, vae.vae_dtype), lambda found: found.mean)
        return mean.float().cpu().clone() * self.host.drawing_family().latent_scale

    def encode_varied(self, pixels: Tensor) -> Tensor:
        return self.engine.encode_first_stage(pixels).clone()

    def schedule(self) -> Schedule:
        predictor = self._predictor
        alphas_cumprod = 1 / (predictor.sigmas.float().cpu() ** 2 + 1)
        prediction = {"epsilon": "epsilon", "v_prediction": "v"}[predictor.prediction_type]
        return Schedule(alphas_cumprod, prediction, bool(getattr(self.engine.model_config, "ztsnr", False)))

    def denoised(self, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        sigma, scaled = self._as_drawn(x_t, t)
        return self._predictor.calculate_denoised(sigma, output, scaled)

    def drawn_denoised(self, prompts: Sequence[str], x_t: Tensor, t: Tensor) -> Tensor:
        from backend import memory_management

        unet = self.engine.forge_objects.unet
        with torch.inference_mode():
            self.engine.set_clip_skip(1)
            cond = self.engine.get_learned_conditioning(Prompts(prompts))
            memory_management.load_models_gpu([unet])
            cond = cond if isinstance(cond, dict) else {"crossattn": cond}
            extra = {"y": cond["vector"]} if "vector" in cond else {}
            sigma, scaled = self._as_drawn(x_t, t)
            return unet.model.apply_model(scaled, sigma, c_crossattn=cond["crossattn"], transformer_options={}, **extra)

    @property
    def _predictor(self) -> Any:
        return self.engine.forge_objects.unet.model.predictor

    def _as_drawn(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The noise levels (B,) of timesteps, and noisy latents as Forge's sampler holds them: their signal whole."""
        sigma = self._predictor.sigmas.to(x_t.device)[t]
        return sigma, x_t * (sigma.view(-1, 1, 1, 1) ** 2 + 1) ** 0.5

    def hosts_modules(self, names: Sequence[str]) -> list[nn.Module]:
        from backend.patcher.lora import model_lora_keys_clip, model_lora_keys_unet

        unet, clip = self._lora_roots
        known = model_lora_keys_unet(unet, {}), model_lora_keys_clip(clip, {})
        found = []
        for name in names:
            root, keys = (unet, known[0]) if name.startswith("lora_unet_") else (clip, known[1])
            found.append(root.get_submodule(keys[name].removesuffix(".weight")))
        return found

    def unknown_tensors(self, path: Path) -> Collection[str]:
        from backend.patcher.lora import load_lora, model_lora_keys_clip, model_lora_keys_unet

        unet, clip = self._lora_roots
        rest = load_file(path)
        for keys in (model_lora_keys_unet(unet, {}), model_lora_keys_clip(clip, {})):
            _, rest = load_lora(rest, keys)
        return rest.keys()

    @property
    def _lora_roots(self) -> tuple[nn.Module, nn.Module]:
        """The modules that Forge's loader knows keys of: around the UNet, around the text encoders."""
        objects = self.engine.forge_objects
        return objects.unet.model, objects.clip.cond_stage_model

    def models_movers(self) -> list[Callable[[], object]]:
        """`/sdapi/v1/unload-checkpoint`, "Unload all models", and a preprocessor that loads a model of its own."""
        from backend import memory_management
        from modules import sd_models

        device, vae = memory_management.get_torch_device(), self.engine.forge_objects.vae.patcher
        return [
            lambda: sd_models.unload_model_weights(),
            lambda: memory_management.free_memory(1e30, device),
            torch.inference_mode()(lambda: memory_management.load_models_gpu([vae])),
        ]


@contextmanager
def fake_forge(folder: Path, checkpoint: str) -> Iterator[ForgeRoom]:
    """The fake Forge, started in `folder` with a checkpoint per family; its packages are gone on exit."""
    with started(folder, CHECKPOINTS, [FORGE_ROOT]) as thread:
        room = ForgeRoom(ForgeHost(), checkpoint, thread)
        room.select()
        yield room


@contextmanager
def started(folder: Path, checkpoints: Mapping[str, Mapping[str, Any]], roots: Sequence[Path]) -> Iterator[str]:
    """A fake of the Forge family in `folder`; its packages are found in `roots`, the first one first.

    Yields the name of its generation thread.
    """
    for part in ("Lora", "Stable-diffusion"):
        (folder / part).mkdir(parents=True)
    for name, facts in checkpoints.items():
        (folder / "Stable-diffusion" / name).write_text(json.dumps({"seed": 0, **facts}))
    sys.path[:0] = map(str, roots)
    try:
        from modules import paths_internal, sd_models, shared
        from modules_forge import main_thread

        paths_internal.data_path = str(folder)
        shared.cmd_opts.lora_dir = str(folder / "Lora")
        shared.cmd_opts.embeddings_dir = str(folder / "embeddings")
        shared.cmd_opts.ckpt_dir = str(folder / "Stable-diffusion")
        shared.opts.outdir_txt2img_grids = str(folder / "txt2img-grids")
        sd_models.list_models()
        thread = threading.Thread(target=main_thread.loop, name="generation", daemon=True)
        thread.start()
        try:
            yield thread.name
        finally:
            main_thread.stopped.set()
            thread.join()
    finally:
        for root in roots:
            sys.path.remove(str(root))
        for name in list(sys.modules):
            if name.partition(".")[0] in _PACKAGES:
                del sys.modules[name]


CHECKPOINTS = {
    "sd1.safetensors": {"family": "sd1"},
    "sd1-fp16.safetensors": {"family": "sd1", "storage": "float16"},
    "sd1-other.safetensors": {"family": "sd1", "seed": 1},
    "sd1-inpainting.safetensors": {"family": "sd1", "inpaint": True},
    "sd1-edit.safetensors": {"family": "sd1", "in_channels": 8},
    "sd2-v.safetensors": {"family": "sd2", "prediction_type": "v_prediction", "ztsnr": True},
    "sd3.safetensors": {"family": "sd3"},
    "flux.safetensors": {"family": "flux"},
    "flux-kontext.safetensors": {"family": "flux"},
    "flux-alone.safetensors": {"family": "flux", "lacks": "CLIP"},
    "sdxl.safetensors": {"family": "sdxl"},
    "sdxl-rectified.safetensors": {"family": "sdxl", "prediction_type": "const"},
}
