"""A running A1111 as the contract tests see it: the fake one and the real one."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.fakes.a1111_start import running_a1111
from tests.fakes.room import Precision, Schedule, WebuiRoom


class A1111Room(WebuiRoom):
    """An A1111, real or fake."""

    def select(self, checkpoint: str = "") -> None:
        self._choose(checkpoint or self.checkpoint, "Disable")

    def select_eight_bits(self) -> None:
        self._choose(self.checkpoint, "Enable")

    def _choose(self, checkpoint: str, fp8: str) -> None:
        from modules import devices, sd_models, shared

        if devices.fp8 and fp8 == "Disable":
            # Back from eight bits, A1111 loads into what it has made half precision, noise schedule and all. Pictures
            # would not be those from before: it is to load a model as when it has just started.
            if sd_models.model_data.sd_model is not None:
                sd_models.send_model_to_trash(sd_models.model_data.sd_model)
            sd_models.model_data.__init__()
            devices.fp8 = False
        # "Original" divides by the mean of the hidden states, which is zero in checkpoints of random weights.
        shared.opts.data["emphasis"] = "No norm"
        shared.opts.data["sd_model_checkpoint"] = checkpoint
        shared.opts.data["fp8_storage"] = fp8

    @property
    def _sd_model(self) -> Any:
        """A1111's own model. Reading it loads one where there is none yet."""
        from modules import shared

        return shared.sd_model

    @property
    def _unet(self) -> nn.Module:
        return self._sd_model.model.diffusion_model

    @property
    def model(self) -> Any:
        """The model, and what was loaded into it: another checkpoint of its kind is written over its weights."""
        from modules import devices
        from modules.sd_models import model_data

        loaded = model_data.sd_model
        return loaded, getattr(loaded, "sd_model_checkpoint", None), devices.fp8

    @property
    def precision(self) -> Precision:
        from modules import devices

        stored = self._unet.input_blocks[0][0].weight.dtype
        text = next(part.weight.dtype for part in self._text.modules() if isinstance(part, nn.Linear))
        on_cpu = devices.device.type == "cpu"
        computed = torch.bfloat16 if devices.fp8 and on_cpu else devices.dtype
        return Precision(stored, computed, text, devices.dtype_vae)

    @property
    def trains_text(self) -> bool:
        return self._sd_model.is_sd1

    @property
    def _text(self) -> nn.Module:
        model = self._sd_model
        return model.conditioner if model.is_sdxl else model.cond_stage_model

    def parts(self) -> list[nn.Module]:
        return [self._sd_model.model, self._text, self._sd_model.first_stage_model]

    def switches(self) -> Any:
        import ldm.modules.attention
        import networks
        import sgm.modules.attention
        from modules import lowvram, sd_hijack, sd_hijack_clip, sd_unet, shared

        attentions = [part.CrossAttention.forward for part in (ldm.modules.attention, sgm.modules.attention)]
        hijack = sd_hijack.model_hijack
        return (
            attentions,
            (hijack.optimization_method, hijack.circular_enabled, hijack.clip is self._sd_model.cond_stage_model),
            (sd_hijack_clip.opts is shared.opts, sd_unet.current_unet, lowvram.module_in_gpu),
            (list(shared.loaded_hypernetworks), [net.name for net in networks.loaded_networks]),
            self._sd_model.alphas_cumprod.tolist(),
        )

    def hosts_text(self, prompts: Sequence[str], clip_skip: int = 1) -> tuple[Tensor, Tensor | None]:
        from modules import devices, shared

        chosen = patch.dict(shared.opts.data, CLIP_stop_at_last_layers=clip_skip)
        with chosen, torch.no_grad(), devices.autocast():
            cond = self._sd_model.get_learned_conditioning(conditioning(prompts))
        if isinstance(cond, dict):
            return cond["crossattn"].float().clone(), cond["vector"][:, : -6 * 256].float().clone()
        return cond.float().clone(), None

    def caption_traces(self) -> tuple[dict[str, Any], Any]:
        from modules import sd_hijack, sd_hijack_clip, shared

        hijack, opts = sd_hijack.model_hijack, shared.opts
        settings = (opts.CLIP_stop_at_last_layers, opts.emphasis, sd_hijack_clip.opts is opts, hijack.fixes)
        wrappers = [part for part in self._text.modules() if hasattr(part, "wrapped") and hasattr(part, "is_trainable")]
        trainable = [(part.is_trainable, part.return_pooled) for part in wrappers]
        return dict(hijack.extra_generation_params), (settings, list(hijack.comments), trainable)

    def posterior_mean(self, pixels: Tensor) -> Tensor:
        model, vae = self._sd_model, self._sd_model.first_stage_model
        weight = next(vae.parameters())
        pixels = pixels.to(weight.device, weight.dtype)
        with torch.no_grad():
            # SDXL's is a kind of VAE that hands over a sample; the kind above it hands over the distribution.
            found = super(type(vae), vae).encode(pixels) if model.is_sdxl else type(vae).encode(vae, pixels)
            return (found.mode() * model.scale_factor).float().cpu().clone()

    def encode_varied(self, pixels: Tensor) -> Tensor:
        model = self._sd_model
        weight = next(model.first_stage_model.parameters())
        with torch.no_grad():
            found = model.encode_first_stage(pixels.to(weight.device, weight.dtype))
            return model.get_first_stage_encoding(found).clone()

    def schedule(self) -> Schedule:
        from modules import shared

        model = self._sd_model
        prediction = "v" if model.parameterization == "v" else "epsilon"
        zero_terminal = shared.opts.sd_noise_schedule == "Zero Terminal SNR"
        return Schedule(model.alphas_cumprod_original.float().cpu(), prediction, zero_terminal)

    def denoised(self, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        sampler = self._sampler()
        sigma = _at(sampler.sigmas, t, x_t)
        *skip, out, _ = sampler.get_scalings(sigma)
        scaled = x_t * (sigma**2 + 1) ** 0.5
        return output * out + scaled * (skip[0] if skip else 1.0)

    def drawn_denoised(self, prompts: Sequence[str], x_t: Tensor, t: Tensor) -> Tensor:
        from modules import devices

        with torch.no_grad(), devices.autocast():
            cond = self._sd_model.get_learned_conditioning(conditioning(prompts))
            cond = dict(cond) if isinstance(cond, dict) else {"c_crossattn": [cond]}
            cond["c_concat"] = [x_t.new_zeros(len(x_t), 5, 1, 1)]
            sampler = self._sampler()
            sigma = _at(sampler.sigmas, t, x_t)
            return sampler(x_t * (sigma**2 + 1) ** 0.5, sigma.flatten(), cond=cond)

    def _sampler(self) -> Any:
        """What A1111's samplers wrap around the model."""
        from k_diffusion import external

        model = self._sd_model
        kind = external.CompVisVDenoiser if model.parameterization == "v" else external.CompVisDenoiser
        return kind(model, quantize=True)

    def hosts_modules(self, names: Sequence[str]) -> list[nn.Module]:
        found = self._layers_of({f"{name}.diff": torch.zeros(1) for name in names})
        return [found[name] for name in names]

    def unknown_tensors(self, path: Path) -> Collection[str]:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        known = self._layers_of(tensors)
        return [name for name in tensors if name.partition(".")[0] not in known]

    def _layers_of(self, tensors: dict[str, Tensor]) -> dict[str, nn.Module]:
        """kohya's name -> module, for all that the loader of the Lora extension makes something of."""
        import networks

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "asked.safetensors")
            save_file(tensors, path)
            net = networks.load_network("asked", SimpleNamespace(filename=str(path)))
        return {found.network_key.partition(".")[0]: found.sd_module for found in net.modules.values()}

    def models_movers(self) -> list[Callable[[], object]]:
        from modules import sd_models, shared

        # The buttons of the settings' page, and `/sdapi/v1/unload-checkpoint` and `/sdapi/v1/reload-checkpoint`.
        return [
            lambda: sd_models.unload_model_weights(),
            lambda: sd_models.send_model_to_device(shared.sd_model),
            lambda: sd_models.reload_model_weights(),
        ]


def conditioning(prompts: Sequence[str]) -> Any:
    from modules import prompt_parser

    return prompt_parser.SdConditioning(prompts, width=64, height=64)


def _at(sigmas: Tensor, t: Tensor, x_t: Tensor) -> Tensor:
    return sigmas.to(x_t)[t].view(-1, 1, 1, 1)


@contextmanager
def fake_a1111(folder: Path, checkpoint: str) -> Iterator[A1111Room]:
    """The fake A1111, started in `folder` with a checkpoint per family; its packages are gone on exit."""
    from lib_trainer.host.a1111.host import A1111Host

    with running_a1111(folder):
        room = A1111Room(A1111Host(), checkpoint, threading.current_thread().name)
        room.select()
        yield room
