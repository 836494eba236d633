"""What the borrowed model answers: latents, hidden states, predictions, layers and weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lib_trainer.families import SDXL
from lib_trainer.host.base import RECOMPUTED, RESIDENT, HostModel, SizeCond, TextCond
from tests.fakes.forge_room import ForgeRoom
from tests.host.helpers import LOHA, gradients, new_adapter, noisy, on_device, relative_error

LONG = ", ".join(f"part {number} of a long caption" for number in range(40))


class Prompts(list):
    """What Forge hands its engine: prompts that know the size of the picture."""

    width, height = 64, 64


def _encode(forge: ForgeRoom, prompts: list[str], clip_skip: int = 1) -> TextCond:
    def work() -> TextCond:
        with forge.host.open_model() as model:
            return model.encode_text(prompts, clip_skip)

    return forge.run(work)


def _hosts_own(forge: ForgeRoom, prompts: list[str], clip_skip: int = 1) -> tuple[Tensor, Tensor | None]:
    """(context, pooled) as Forge makes them for a prompt."""

    def work() -> tuple[Tensor, Tensor | None]:
        with torch.inference_mode():
            forge.engine.set_clip_skip(clip_skip)
            cond = forge.engine.get_learned_conditioning(Prompts(prompts))
            forge.engine.set_clip_skip(1)
            if isinstance(cond, dict):
                return cond["crossattn"].float().clone(), cond["vector"][:, : -6 * 256].float().clone()
            return cond.float().clone(), None

    return forge.run(work)


class Images:
    def test_latents_are_the_scaled_mean_of_the_posterior_every_time(self, forge: ForgeRoom) -> None:
        pixels = torch.rand((2, 3, 64, 128), generator=torch.Generator().manual_seed(0)) * 2 - 1

        def work() -> tuple[Tensor, Tensor, Tensor]:
            with forge.host.open_model() as model:
                first, second = model.encode_images(pixels), model.encode_images(pixels)
                vae = forge.engine.forge_objects.vae
                with torch.inference_mode():
                    mean = vae.first_stage_model.encode(pixels.to(vae.device, vae.vae_dtype), lambda found: found.mean)
                return first, second, mean.float().cpu().clone() * model.family.latent_scale

        first, second, wanted = forge.run(work)
        assert first.shape == (2, 4, 8, 16) and first.dtype == torch.float32 and first.device.type == "cpu"
        assert not first.is_inference()
        assert torch.equal(first, second)
        # A VAE in half precision rounds each of its layers' outputs.
        exact = forge.engine.forge_objects.vae.vae_dtype == torch.float32
        assert relative_error(first, wanted) < (1e-3 if exact else 3e-2)

    def test_pictures_of_a_host_vae_still_vary_afterwards(self, forge: ForgeRoom) -> None:
        def work() -> tuple[Tensor, Tensor]:
            with forge.host.open_model() as model:
                model.encode_images(torch.zeros(1, 3, 64, 64))
            return tuple(forge.engine.encode_first_stage(torch.zeros(1, 3, 64, 64)).clone() for _ in range(2))

        first, second = forge.run(work)
        assert not torch.equal(first, second)


class Text:
    def test_a_plain_caption_is_what_the_host_makes_of_it(self, forge: ForgeRoom) -> None:
        for clip_skip in (1, 2):
            ours = _encode(forge, ["a photo of a cat"], clip_skip)
            context, pooled = _hosts_own(forge, ["a photo of a cat"], clip_skip)
            assert relative_error(ours.context, context) < 1e-5
            assert (ours.pooled is None) == (pooled is None)
            assert pooled is None or relative_error(ours.pooled, pooled) < 1e-5

    def test_chunks_of_75_tokens(self, forge: ForgeRoom) -> None:
        short, long = _encode(forge, ["a cat"]).context, _encode(forge, ["a cat", LONG]).context
        assert short.shape[1] == 77
        assert long.shape[0] == 2 and long.shape[1] % 77 == 0 and long.shape[1] > 2 * 77
        assert short.dtype == torch.float32 and short.device.type == "cpu" and not short.is_inference()
        assert relative_error(long[:1, :77], short) < 1e-4

    @pytest.mark.parametrize("caption", ["a (red) cat [small]", "a ((big cat:1.3)", r"saber \(fate\)"])
    def test_brackets_are_words(self, forge: ForgeRoom, caption: str) -> None:
        bare = caption.replace("\\", "")
        literal = "".join(f"\\{c}" if c in "()[]" else c for c in bare)
        wanted, _ = _hosts_own(forge, [literal])
        emphasised, _ = _hosts_own(forge, [bare])
        found = _encode(forge, [caption]).context
        assert relative_error(found, wanted) < 1e-5
        assert found.shape != emphasised.shape or relative_error(found, emphasised) > 1e-3

    def test_clip_skip_reaches_back(self, forge: ForgeRoom) -> None:
        # SDXL is never read later than the layer before the last.
        one, two, three = (_encode(forge, ["a cat"], skip).context for skip in (1, 2, 3))
        assert torch.equal(one, two) == (forge.run(lambda: _family(forge)) is SDXL)
        assert not torch.equal(two, three)

    def test_captions_leave_no_trace_in_the_next_picture(self, forge: ForgeRoom) -> None:
        from backend.text_processing import classic_engine
        from modules.shared import opts

        engines = [value for name, value in vars(forge.engine).items() if name.startswith("text_processing_engine")]
        opts.data["emphasis"], before = "No norm", opts.data.get("emphasis", "Original")
        try:
            # A prompt that is new to the WebUI's cache, so that the engines are used.
            forge.picture(f"leave no trace {id(engines)}")
            seen = [(engine.clip_skip, engine.emphasis.name) for engine in engines]
            _encode(forge, ["a (cat)"], 4)
            assert classic_engine.last_extra_generation_params == {}
            assert classic_engine.opts is opts
            assert [(engine.clip_skip, engine.emphasis.name) for engine in engines] == seen
        finally:
            opts.data["emphasis"] = before


def _family(forge: ForgeRoom):
    with forge.host.open_model() as model:
        return model.family


class Prediction:
    def test_the_unet_says_what_it_says_when_it_draws(self, forge: ForgeRoom) -> None:
        prompts = ["a cat", "a dog"]

        def work() -> tuple[Tensor, Tensor]:
            with forge.host.open_model() as model:
                text = on_device(model, model.encode_text(prompts, 1))
                model.prepare_training(RECOMPUTED, text_encoder=False)
                x_t, t, _ = noisy(model)
                sizes = SizeCond(torch.tensor([[64.0, 64, 0, 0, 64, 64]] * 2, device=model.device))
                with torch.no_grad():
                    ours = model.predict(x_t, t, text, sizes)
                sigma = forge.engine.forge_objects.unet.model.predictor.sigmas.to(model.device)[t]
            return _denoised(forge, model, ours, x_t, sigma), _drawn(forge, prompts, x_t, sigma)

        ours, drawn = forge.run(work)
        exact = forge.engine.forge_objects.unet.model.computation_dtype == torch.float32
        assert relative_error(ours, drawn) < (1e-4 if exact else 3e-2)

    def test_the_schedule_is_the_one_that_pictures_are_drawn_with(self, forge: ForgeRoom) -> None:
        def work() -> tuple[Tensor, str]:
            with forge.host.open_model() as model:
                return model.alphas_cumprod, model.prediction

        alphas, prediction = forge.run(work)
        predictor = forge.engine.forge_objects.unet.model.predictor
        wanted = 1 / (predictor.sigmas.float().cpu() ** 2 + 1)
        assert alphas.shape == (1000,) and alphas.dtype == torch.float32 and alphas.device.type == "cpu"
        assert not alphas.is_inference()
        assert prediction == {"epsilon": "epsilon", "v_prediction": "v"}[predictor.prediction_type]
        if getattr(forge.engine.model_config, "ztsnr", False):
            assert alphas[-1] < 1e-6 and relative_error(alphas[:1], wanted[:1]) < 1e-5
        else:
            assert relative_error(alphas, wanted) < 1e-5

    def test_sizes_matter_to_sdxl_alone(self, forge: ForgeRoom) -> None:
        def work() -> tuple[bool, bool]:
            with forge.host.open_model() as model, torch.no_grad():
                text = on_device(model, model.encode_text(["a cat"] * 2, 1))
                model.prepare_training(RESIDENT, text_encoder=False)
                x_t, t, sizes = noisy(model)
                other = SizeCond(sizes.pixels.flip(1) + 512)
                same = torch.equal(model.predict(x_t, t, text, sizes), model.predict(x_t, t, text, other))
                return same, model.family is SDXL

        same, is_sdxl = forge.run(work)
        assert same != is_sdxl

    def test_drawing_options_are_no_longer_shared(self, forge: ForgeRoom) -> None:
        defaults = forge.engine.forge_objects.unet.model.diffusion_model.forward.__func__.__defaults__

        def work() -> None:
            with forge.host.open_model() as model, torch.no_grad():
                text = on_device(model, model.encode_text(["a cat"] * 2, 1))
                model.prepare_training(RESIDENT, text_encoder=False)
                x_t, t, sizes = noisy(model)
                model.predict(x_t, t, text, sizes)

        forge.picture()
        before = repr(defaults)
        forge.run(work)
        assert repr(defaults) == before


def _denoised(forge: ForgeRoom, model: HostModel, output: Tensor, x_t: Tensor, sigma: Tensor) -> Tensor:
    scaled = x_t * (sigma.view(-1, 1, 1, 1) ** 2 + 1) ** 0.5
    return forge.engine.forge_objects.unet.model.predictor.calculate_denoised(sigma, output, scaled)


def _drawn(forge: ForgeRoom, prompts: list[str], x_t: Tensor, sigma: Tensor) -> Tensor:
    """What Forge's own sampler would get for the same noisy latents."""
    from backend import memory_management

    unet = forge.engine.forge_objects.unet
    with torch.inference_mode():
        cond = forge.engine.get_learned_conditioning(Prompts(prompts))
        memory_management.load_models_gpu([unet])
        cond = cond if isinstance(cond, dict) else {"crossattn": cond}
        extra = {"y": cond["vector"]} if "vector" in cond else {}
        scaled = x_t * (sigma.view(-1, 1, 1, 1) ** 2 + 1) ** 0.5
        return unet.model.apply_model(scaled, sigma, c_crossattn=cond["crossattn"], transformer_options={}, **extra)


class Layers:
    def test_every_name_is_one_that_the_host_finds(self, forge: ForgeRoom) -> None:
        from backend.patcher.lora import model_lora_keys_clip, model_lora_keys_unet

        def work() -> None:
            with forge.host.open_model() as model:
                objects = forge.engine.forge_objects
                unet, clip = objects.unet.model, objects.clip.cond_stage_model
                known = dict(model_lora_keys_unet(unet, {})), dict(model_lora_keys_clip(clip, {}))
                for layers, keys, root in zip(
                    (model.adaptable_layers(), model.text_layers()), known, (unet, clip), strict=True
                ):
                    assert len({layer.name for layer in layers}) == len(layers) > 0
                    for layer in layers:
                        path = keys[layer.name].removesuffix(".weight")
                        assert root.get_submodule(path) is layer.module, layer.name
                        assert tuple(layer.module.weight.shape) == layer.shape
                        assert layer.kind == {2: "linear", 4: "conv2d"}[len(layer.shape)]

        forge.run(work)

    def test_every_layer_with_a_kernel_or_matrix_inside_a_block_is_there(self, forge: ForgeRoom) -> None:
        def work() -> set[str]:
            with forge.host.open_model() as model:
                adapted = {id(layer.module) for layer in model.adaptable_layers()}
                weighted = {n: m for n, m in model.unet.named_modules() if getattr(m, "weight", None) is not None}
                return {name for name, m in weighted.items() if m.weight.ndim > 1 and id(m) not in adapted}

        outside = forge.run(work)
        if forge.run(lambda: _family(forge)) is SDXL:
            ends = {"time_embed.0", "time_embed.2", "input_blocks.0.0", "out.2"}
            assert outside == ends | {"label_emb.0.0", "label_emb.0.2"}
        else:
            assert outside == set()


class Weights:
    @pytest.mark.parametrize("storage", ["Automatic", "float8-e4m3fn"])
    def test_weights_read_dense_however_they_are_stored(self, forge: ForgeRoom, storage: str) -> None:
        forge.select(storage=storage)

        def work() -> None:
            with forge.host.open_model() as model:
                stored = forge.engine.forge_objects.unet.model.storage_dtype
                assert (stored == torch.float8_e4m3fn) == (storage == "float8-e4m3fn")
                for dtype in (torch.float32, torch.bfloat16):
                    like = torch.zeros(1, dtype=dtype, device=model.device)
                    for layer in (*model.adaptable_layers()[:12], *model.text_layers()[:6]):
                        weight, bias = model.read_weight(layer, like)
                        assert weight.dtype == dtype and tuple(weight.shape) == layer.shape
                        assert torch.equal(weight, layer.module.weight.to(weight)), layer.name
                        assert (bias is None) == (layer.module.bias is None)
                        assert bias is None or bias.dtype == dtype

        try:
            forge.run(work)
        finally:
            forge.select()

    def test_a_weight_that_lies_elsewhere_comes_to_the_device(self, forge: ForgeRoom) -> None:
        """As with Forge's "GPU Weights" turned down: some weights lie on the CPU, and the input on the device."""

        def work() -> set[str]:
            with forge.host.open_model() as model:
                model.prepare_training(RESIDENT, text_encoder=False)
                elsewhere = torch.zeros(1, device="meta", dtype=torch.bfloat16)
                read = [model.read_weight(layer, elsewhere) for layer in model.adaptable_layers()]
                assert {weight.dtype for weight, _ in read} == {torch.bfloat16}
                return {tensor.device.type for pair in read for tensor in pair if tensor is not None}

        assert forge.run(work) == {"meta"}

    def test_weights_of_eight_bits_can_be_trained_on(self, forge: ForgeRoom) -> None:
        forge.select(storage="float8-e4m3fn")

        def work() -> dict[str, Tensor]:
            with forge.host.open_model() as model:
                layers = model.adaptable_layers()
                text = model.encode_text(["a cat"] * 2, 1)
                model.prepare_training(RECOMPUTED, text_encoder=False)
                return gradients(model, new_adapter(layers, LOHA, 0), layers, text)

        try:
            before = forge.picture()
            found = forge.run(work)
            assert all(torch.isfinite(gradient).all() for gradient in found.values())
            # LoHa's w2_a starts at zero: the others' gradients are zero until it has moved.
            assert all(gradient.abs().max() > 0 for name, gradient in found.items() if name.endswith("w2_a"))
            assert forge.picture() == before
        finally:
            forge.select()
