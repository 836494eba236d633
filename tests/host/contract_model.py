"""What the open model answers: latents, hidden states, predictions, layers and weights."""

from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor

from lib_trainer.models.base import SizeCond, TextCond
from lib_trainer.models.families import SDXL
from lib_trainer.models.placement import RECOMPUTED, RESIDENT
from tests.fakes.room import WebuiRoom
from tests.host.helpers import LOHA, gradients, new_adapter, noisy, on_device, relative_error

LONG = ", ".join(f"part {number} of a long caption" for number in range(40))


def _encode(room: WebuiRoom, prompts: list[str], clip_skip: int = 1) -> TextCond:
    def work() -> TextCond:
        with room.host.open_model() as model:
            return model.encode_text(prompts, clip_skip)

    return room.run(work)


def _hosts_own(room: WebuiRoom, prompts: list[str], clip_skip: int = 1) -> tuple[Tensor, Tensor | None]:
    """(context, pooled) as the WebUI makes them for a prompt."""
    return room.run(lambda: room.hosts_text(prompts, clip_skip))


class Images:
    def test_latents_are_the_scaled_mean_of_the_posterior_every_time(self, room: WebuiRoom) -> None:
        pixels = torch.rand((2, 3, 64, 128), generator=torch.Generator().manual_seed(0)) * 2 - 1

        def work() -> tuple[Tensor, Tensor, Tensor]:
            with room.host.open_model() as model:
                return model.encode_images(pixels), model.encode_images(pixels), room.posterior_mean(pixels)

        first, second, wanted = room.run(work)
        assert first.shape == (2, 4, 8, 16) and first.dtype == torch.float32 and first.device.type == "cpu"
        assert not first.is_inference()
        assert torch.equal(first, second)
        # A VAE in half precision rounds each of its layers' outputs.
        exact = room.precision.vae == torch.float32
        assert relative_error(first, wanted) < (1e-3 if exact else 3e-2)

    def test_pictures_of_a_host_vae_vary_afterwards_as_before(self, room: WebuiRoom) -> None:
        def vary() -> bool:
            first, second = (room.encode_varied(torch.zeros(1, 3, 64, 64)) for _ in range(2))
            return not torch.equal(first, second)

        def work() -> None:
            with room.host.open_model() as model:
                model.encode_images(torch.zeros(1, 3, 64, 64))

        room.picture()
        # All but reForge draw a sample.
        before = room.run(vary)
        room.run(work)
        assert room.run(vary) == before


class Text:
    def test_a_plain_caption_is_what_the_host_makes_of_it(self, room: WebuiRoom) -> None:
        for clip_skip in (1, 2):
            ours = _encode(room, ["a photo of a cat"], clip_skip)
            context, pooled = _hosts_own(room, ["a photo of a cat"], clip_skip)
            assert relative_error(ours.context, context) < 1e-5
            assert (ours.pooled is None) == (pooled is None)
            assert pooled is None or relative_error(ours.pooled, pooled) < 1e-5

    def test_chunks_of_75_tokens(self, room: WebuiRoom) -> None:
        short, long = _encode(room, ["a cat"]).context, _encode(room, ["a cat", LONG]).context
        assert short.shape[1] == 77
        assert long.shape[0] == 2 and long.shape[1] % 77 == 0 and long.shape[1] > 2 * 77
        assert short.dtype == torch.float32 and short.device.type == "cpu" and not short.is_inference()
        assert relative_error(long[:1, :77], short) < 1e-4

    @pytest.mark.parametrize("caption", ["a (red) cat [small]", "a ((big cat:1.3)", r"saber \(fate\)"])
    def test_brackets_are_words(self, room: WebuiRoom, caption: str) -> None:
        bare = caption.replace("\\", "")
        literal = "".join(f"\\{c}" if c in "()[]" else c for c in bare)
        # First: a checkpoint that is only selected is loaded by this.
        found = _encode(room, [caption]).context
        wanted, _ = _hosts_own(room, [literal])
        emphasised, _ = _hosts_own(room, [bare])
        assert relative_error(found, wanted) < 1e-5
        assert found.shape != emphasised.shape or relative_error(found, emphasised) > 1e-3

    def test_clip_skip_reaches_back(self, room: WebuiRoom) -> None:
        # SDXL is never read later than the layer before the last.
        one, two, three = (_encode(room, ["a cat"], skip).context for skip in (1, 2, 3))
        assert torch.equal(one, two) == (room.run(lambda: _family(room)) is SDXL)
        assert not torch.equal(two, three)

    def test_captions_leave_no_trace_in_the_next_picture(self, room: WebuiRoom) -> None:
        from modules.shared import opts

        opts.data["emphasis"], before = "No norm", opts.data.get("emphasis", "Original")
        try:
            # A prompt that is new to the WebUI's cache, so that the text encoders are used.
            room.picture(f"leave no trace {time.time_ns()}")
            _, settings = room.caption_traces()
            _encode(room, ["a (cat)"], 4)
            assert room.caption_traces() == ({}, settings)
        finally:
            opts.data["emphasis"] = before


def _family(room: WebuiRoom):
    with room.host.open_model() as model:
        return model.family


class Prediction:
    def test_the_unet_says_what_it_says_when_it_draws(self, room: WebuiRoom) -> None:
        prompts = ["a cat", "a dog"]

        def work() -> tuple[Tensor, Tensor]:
            with room.host.open_model() as model:
                text = on_device(model, model.encode_text(prompts, 1))
                model.prepare_training(RECOMPUTED, text_encoder=False)
                x_t, t, _ = noisy(model)
                sizes = SizeCond(torch.tensor([[64.0, 64, 0, 0, 64, 64]] * 2, device=model.device))
                with torch.no_grad():
                    ours = model.predict(x_t, t, text, sizes)
            return room.denoised(ours, x_t, t), room.drawn_denoised(prompts, x_t, t)

        ours, drawn = room.run(work)
        exact = room.precision.computed == torch.float32
        assert relative_error(ours, drawn) < (1e-4 if exact else 3e-2)

    def test_the_schedule_is_the_one_that_pictures_are_drawn_with(self, room: WebuiRoom) -> None:
        def work() -> tuple[Tensor, str]:
            with room.host.open_model() as model:
                return model.alphas_cumprod, model.prediction

        alphas, prediction = room.run(work)
        wanted = room.schedule()
        assert alphas.shape == (1000,) and alphas.dtype == torch.float32 and alphas.device.type == "cpu"
        assert not alphas.is_inference()
        assert prediction == wanted.prediction
        if wanted.zero_terminal:
            assert alphas[-1] < 1e-6 and relative_error(alphas[:1], wanted.alphas_cumprod[:1]) < 1e-5
        else:
            assert relative_error(alphas, wanted.alphas_cumprod) < 1e-5

    def test_sizes_matter_to_sdxl_alone(self, room: WebuiRoom) -> None:
        def work() -> tuple[bool, bool]:
            with room.host.open_model() as model, torch.no_grad():
                text = on_device(model, model.encode_text(["a cat"] * 2, 1))
                model.prepare_training(RESIDENT, text_encoder=False)
                x_t, t, sizes = noisy(model)
                other = SizeCond(sizes.pixels.flip(1) + 512)
                same = torch.equal(model.predict(x_t, t, text, sizes), model.predict(x_t, t, text, other))
                return same, model.family is SDXL

        same, is_sdxl = room.run(work)
        assert same != is_sdxl


class Layers:
    def test_every_name_is_one_that_the_host_finds(self, room: WebuiRoom) -> None:
        def work() -> None:
            with room.host.open_model() as model:
                for layers in (model.adaptable_layers(), *([model.text_layers()] if room.trains_text else [])):
                    names = [layer.name for layer in layers]
                    assert len(set(names)) == len(layers) > 0
                    for layer, hosts in zip(layers, room.hosts_modules(names), strict=True):
                        assert hosts is layer.module, layer.name
                        assert tuple(layer.module.weight.shape) == layer.shape
                        assert layer.kind == {2: "linear", 4: "conv2d"}[len(layer.shape)]

        room.run(work)

    def test_every_layer_with_a_kernel_or_matrix_inside_a_block_is_there(self, room: WebuiRoom) -> None:
        def work() -> set[str]:
            with room.host.open_model() as model:
                adapted = {id(layer.module) for layer in model.adaptable_layers()}
                weighted = {n: m for n, m in model.unet.named_modules() if getattr(m, "weight", None) is not None}
                return {name for name, m in weighted.items() if m.weight.ndim > 1 and id(m) not in adapted}

        outside = room.run(work)
        if room.run(lambda: _family(room)) is SDXL:
            ends = {"time_embed.0", "time_embed.2", "input_blocks.0.0", "out.2"}
            assert outside == ends | {"label_emb.0.0", "label_emb.0.2"}
        else:
            assert outside == set()


class Weights:
    @pytest.mark.parametrize("eight_bits", [False, True])
    def test_weights_read_dense_however_they_are_stored(self, room: WebuiRoom, eight_bits: bool) -> None:
        if eight_bits:
            room.select_eight_bits()
        else:
            room.select()

        def work() -> None:
            with room.host.open_model() as model:
                assert (room.precision.stored == torch.float8_e4m3fn) == eight_bits
                for dtype in (torch.float32, torch.bfloat16):
                    like = torch.zeros(1, dtype=dtype, device=model.device)
                    text = model.text_layers()[:6] if room.trains_text else []
                    for layer in (*model.adaptable_layers()[:12], *text):
                        weight, bias = model.read_weight(layer, like)
                        assert weight.dtype == dtype and tuple(weight.shape) == layer.shape
                        assert torch.equal(weight, layer.module.weight.to(weight)), layer.name
                        assert (bias is None) == (layer.module.bias is None)
                        assert bias is None or bias.dtype == dtype

        try:
            room.run(work)
        finally:
            room.select()

    def test_a_weight_that_lies_elsewhere_comes_to_the_device(self, room: WebuiRoom) -> None:
        """As with a card that is too small for the host: some weights lie on the CPU, and the input on the device."""

        def work() -> set[str]:
            with room.host.open_model() as model:
                model.prepare_training(RESIDENT, text_encoder=False)
                elsewhere = torch.zeros(1, device="meta", dtype=torch.bfloat16)
                read = [model.read_weight(layer, elsewhere) for layer in model.adaptable_layers()]
                assert {weight.dtype for weight, _ in read} == {torch.bfloat16}
                return {tensor.device.type for pair in read for tensor in pair if tensor is not None}

        assert room.run(work) == {"meta"}

    def test_weights_of_eight_bits_can_be_trained_on(self, room: WebuiRoom) -> None:
        room.select_eight_bits()

        def work() -> dict[str, Tensor]:
            with room.host.open_model() as model:
                layers = model.adaptable_layers()
                text = model.encode_text(["a cat"] * 2, 1)
                model.prepare_training(RECOMPUTED, text_encoder=False)
                return gradients(model, new_adapter(layers, LOHA, 0), layers, text)

        try:
            before = room.picture()
            found = room.run(work)
            assert all(torch.isfinite(gradient).all() for gradient in found.values())
            # LoHa's w2_a starts at zero: the others' gradients are zero until it has moved.
            assert all(gradient.abs().max() > 0 for name, gradient in found.items() if name.endswith("w2_a"))
            assert room.picture() == before
        finally:
            room.select()
