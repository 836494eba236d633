"""The standalone host: what it encodes, predicts, adapts and draws, and that it gives everything back."""

from __future__ import annotations

import threading
from contextlib import ExitStack

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel

from lib_trainer.adapter.attach import Adapter, attached, new_adapter
from lib_trainer.adapter.io import adapter_tensors, save_adapter
from lib_trainer.config.recipe import AdapterConfig
from lib_trainer.errors import UserError
from lib_trainer.host.base import GenerateRequest
from lib_trainer.host.standalone.host import StandaloneHost
from lib_trainer.host.standalone.merge_lora import merged_loras, parse_prompt
from lib_trainer.host.standalone.model import StandaloneModel, blocks_in_order, token_chunks, unet_layers
from lib_trainer.memory.unet_blocks import stretches
from lib_trainer.models.base import CheckpointInfo, SizeCond, TextCond
from lib_trainer.models.checkpoint_file import unet_shape
from lib_trainer.models.families import SD1, SD2, SDXL
from lib_trainer.models.layer_names import diffusers_names
from lib_trainer.models.placement import RECOMPUTED, RESIDENT, Placement
from tests.host.tiny_pipelines import tiny_pipeline, tiny_tokenizer
from tests.models.test_layer_names import SD15 as SD15_CONFIG
from tests.models.test_layer_names import SDXL as SDXL_CONFIG

CPU = torch.device("cpu")
FAMILIES = pytest.mark.parametrize("family", [SD1, SD2, SDXL], ids=lambda family: family.key)


@pytest.fixture
def host(tmp_path):
    tiny_pipeline(SD1, tmp_path).save_pretrained(tmp_path / "tiny")
    host = StandaloneHost(tmp_path / "out", tmp_path / "tiny")
    host.device = CPU
    return host


def model_of(pipeline, undo: ExitStack | None = None) -> StandaloneModel:
    return StandaloneModel(pipeline, CheckpointInfo("tiny", "0"), CPU, undo or ExitStack())


def save_random_adapter(model: StandaloneModel, path, seed: int, *, text: bool = False, layers=None):
    """A LoHa on every layer whose ΔW is about as large as the weights."""
    layers = layers or [*model.adaptable_layers(), *(model.text_layers() if text else [])]
    adapter = new_adapter(layers, AdapterConfig(network_dim=4, conv_dim=2, use_tucker=True), seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_adapter(path, adapter_tensors(adapter, "fp32"), {})
    return adapter


def inputs(model: StandaloneModel) -> tuple:
    generator = torch.Generator().manual_seed(1)
    sizes = SizeCond(torch.tensor([[64.0, 64, 0, 0, 64, 64]] * 2))
    x_t = torch.randn((2, 4, 8, 8), generator=generator)
    return x_t, torch.tensor([10, 700]), model.encode_text(["a red circle", "a cat"], 1), sizes


# --- what is adapted


def test_a_full_sd15_has_the_282_layers_of_kohya_and_lycoris():
    with torch.device("meta"):
        unet = UNet2DConditionModel(**SD15_CONFIG)
    names = {layer.name for layer in unet_layers(unet, SD1)}
    assert len(names) == 282
    assert {"lora_unet_conv_in", "lora_unet_time_embedding_linear_2"} <= names
    assert "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_ff_net_0_proj" in names


def test_a_full_sdxl_has_every_layer_of_its_blocks_under_ldm_names():
    with torch.device("meta"):
        unet = UNet2DConditionModel(**SDXL_CONFIG)
    names = {layer.name for layer in unet_layers(unet, SDXL)}
    assert len(names) == 788
    assert "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q" in names
    # kohya + LyCORIS leave these to the base model.
    assert not [name for name in names if "label_emb" in name or "time_embed" in name or name.endswith("_0_0")]


def test_layers_say_how_they_compute(tmp_path):
    layers = {layer.name: layer for layer in model_of(tiny_pipeline(SD1, tmp_path)).adaptable_layers()}
    down = layers["lora_unet_down_blocks_0_downsamplers_0_conv"]
    assert (down.kind, down.shape, down.stride, down.padding) == ("conv2d", (32, 32, 3, 3), (2, 2), (1, 1))
    assert layers["lora_unet_time_embedding_linear_1"].kind == "linear"


@FAMILIES
def test_text_layers_have_the_prefix_of_their_encoder(family, tmp_path):
    names = [layer.name for layer in model_of(tiny_pipeline(family, tmp_path)).text_layers()]
    prefixes = ("lora_te1_", "lora_te2_") if family is SDXL else ("lora_te_",)
    assert len(names) == 3 * 6 * len(prefixes)
    for prefix in prefixes:
        assert f"{prefix}text_model_encoder_layers_2_self_attn_out_proj" in names
        assert f"{prefix}text_model_encoder_layers_0_mlp_fc1" in names


# --- what is encoded


def test_long_captions_are_cut_into_chunks_of_75_tokens(tmp_path):
    tokenizer = tiny_tokenizer(tmp_path, "!")
    first, second = token_chunks(tokenizer, ["a" * 76, "b", ""], 77)
    start, end, pad = 512, 513, 0
    a, last_a, b = (tokenizer.convert_tokens_to_ids(token) for token in ("a", "a</w>", "b</w>"))
    assert first[0].tolist() == [start, *[a] * 75, end]
    assert second[0].tolist() == [start, last_a, end, *[pad] * 74]
    assert first[1].tolist() == [start, b, end, *[pad] * 74]
    assert second[1].tolist() == first[2].tolist() == [start, end, *[pad] * 75]


@pytest.mark.parametrize("clip_skip", [1, 2])
def test_sd1_reads_the_asked_for_layer_and_normalises_it(clip_skip, tmp_path):
    pipeline = tiny_pipeline(SD1, tmp_path)
    text = model_of(pipeline).encode_text(["x" * 80, "y"], clip_skip)
    assert text.context.shape == (2, 154, 32)
    assert text.pooled is None
    encoder = pipeline.text_encoder
    second = token_chunks(pipeline.tokenizer, ["x" * 80, "y"], 77)[1]
    with torch.no_grad():
        hidden = encoder(second, output_hidden_states=True).hidden_states[-clip_skip]
        wanted = getattr(encoder, "text_model", encoder).final_layer_norm(hidden)
    torch.testing.assert_close(text.context[:, 77:], wanted)


@pytest.mark.parametrize(("clip_skip", "layer"), [(1, -2), (2, -2), (3, -3)])
def test_sdxl_reads_both_encoders_at_least_one_layer_down(clip_skip, layer, tmp_path):
    pipeline = tiny_pipeline(SDXL, tmp_path)
    text = model_of(pipeline).encode_text(["x" * 80], clip_skip)
    chunks = [token_chunks(tokenizer, ["x" * 80], 77) for tokenizer in (pipeline.tokenizer, pipeline.tokenizer_2)]
    with torch.no_grad():
        first = pipeline.text_encoder(chunks[0][0], output_hidden_states=True)
        second = pipeline.text_encoder_2(chunks[1][0], output_hidden_states=True)
    wanted = torch.cat([first.hidden_states[layer], second.hidden_states[layer]], dim=2)
    torch.testing.assert_close(text.context[:, :77], wanted)
    torch.testing.assert_close(text.pooled, second.text_embeds)
    assert text.context.shape == (1, 154, 96)


def test_text_carries_its_graph_only_when_asked(tmp_path):
    model = model_of(tiny_pipeline(SD1, tmp_path))
    assert model.encode_text(["a"], 1, grad=True).context.requires_grad
    assert not model.encode_text(["a"], 1).context.requires_grad


def test_pictures_become_the_scaled_mean_of_their_posterior(tmp_path):
    pipeline = tiny_pipeline(SDXL, tmp_path)
    pixels = torch.rand((2, 3, 64, 48), generator=torch.Generator().manual_seed(0)) * 2 - 1
    latents = model_of(pipeline).encode_images(pixels)
    with torch.no_grad():
        torch.testing.assert_close(latents, pipeline.vae.encode(pixels).latent_dist.mean * 0.13025)
    assert latents.shape == (2, 4, 8, 6)
    assert latents.is_contiguous()


# --- what is predicted, and what is given back


@FAMILIES
def test_predictions_are_those_of_diffusers(family, tmp_path):
    pipeline = tiny_pipeline(family, tmp_path)
    model = model_of(pipeline)
    x_t, t, text, sizes = inputs(model)
    extra = {"added_cond_kwargs": {"text_embeds": text.pooled, "time_ids": sizes.pixels}} if family is SDXL else {}
    with torch.no_grad():
        wanted = pipeline.unet(x_t, t, encoder_hidden_states=text.context, **extra).sample
        torch.testing.assert_close(model.predict(x_t, t, text, sizes), wanted)
        if family is SDXL:
            other = SizeCond(sizes.pixels * 2)
            assert not torch.allclose(model.predict(x_t, t, text, other), wanted)


LEAN = [Placement(int8=True), Placement(streamed=1.0), Placement(frozenset([0, 3]), int8=True, streamed=0.5)]


@pytest.mark.parametrize("placement", [RESIDENT, RECOMPUTED, *LEAN])
def test_training_gets_gradients_and_leaves_nothing_behind(placement, tmp_path):
    pipeline = tiny_pipeline(SD1, tmp_path)
    before = {name: value.clone() for name, value in pipeline.unet.state_dict().items()}
    with ExitStack() as undo:
        model = model_of(pipeline, undo)
        layers = model.adaptable_layers()
        model.prepare_training(placement, text_encoder=False)
        recomputed = [block for block in blocks_in_order(pipeline.unet) if "forward" in vars(block)]
        places = range(len(blocks_in_order(pipeline.unet)))
        assert len(recomputed) == sum(placement.recomputes(place) for place in places)
        adapter = new_adapter(layers, AdapterConfig(algo="locon", network_dim=2, conv_dim=0), 0)
        with attached(adapter, layers, model.read_weight):
            model.predict(*inputs(model)).square().mean().backward()
        assert all(parameter.grad is not None for parameter in adapter.parameters())
        assert not any(parameter.requires_grad for parameter in pipeline.unet.parameters())
    assert all(parameter.requires_grad for parameter in pipeline.unet.parameters())
    assert not pipeline.unet.training
    assert not any("forward" in part.__dict__ for part in pipeline.unet.modules())
    assert all(torch.equal(before[name], value) for name, value in pipeline.unet.state_dict().items())


@pytest.mark.parametrize("family", [SD1, SDXL])
@pytest.mark.parametrize("placement", [RECOMPUTED, *LEAN])
def test_no_saving_of_memory_changes_a_gradient(family, placement, tmp_path):
    pipeline = tiny_pipeline(family, tmp_path)
    plain, saving = (gradient_of_input(pipeline, place) for place in (RESIDENT, placement))
    if placement.int8:
        error = (saving - plain).norm() / plain.norm()
        assert 1e-5 < error < 0.03
    else:
        torch.testing.assert_close(saving, plain)


def gradient_of_input(pipeline, placement):
    with ExitStack() as undo:
        model = model_of(pipeline, undo)
        layers = model.adaptable_layers()
        x_t, t, text, sizes = inputs(model)
        model.prepare_training(placement, text_encoder=False)
        x_t.requires_grad_()
        with attached(Adapter({}), layers, model.read_weight):
            # Three times: what is fetched ahead is known after the first.
            for _ in range(3):
                x_t.grad = None
                model.predict(x_t, t, text, sizes).square().mean().backward()
        return x_t.grad


@pytest.mark.parametrize("family", [SD1, SD2, SDXL])
def test_the_blocks_that_can_be_recomputed_are_known_in_the_order_of_forward(family, tmp_path):
    pipeline = tiny_pipeline(family, tmp_path)
    blocks, seen = blocks_in_order(pipeline.unet), []
    handles = [block.register_forward_pre_hook(lambda part, _: seen.append(part)) for block in blocks]
    with ExitStack() as undo:
        model = model_of(pipeline, undo)
        model.predict(*inputs(model))
    for handle in handles:
        handle.remove()
    assert seen == blocks and len(blocks) > 10
    parts = stretches(unet_shape(pipeline.unet.config, family), 64, 64)
    assert len(blocks) == sum(part.recomputable for part in parts)
    shapes = [stage.operation.shape for part in parts for stage in part.stages if stage.adapted]
    assert sorted(shapes) == sorted(layer.shape for layer in unet_layers(pipeline.unet, family))


def test_training_computes_in_another_dtype_than_the_weights_are_stored_in(tmp_path):
    pipeline = tiny_pipeline(SDXL, tmp_path)
    with ExitStack() as undo:
        model = model_of(pipeline, undo)
        x_t, t, text, sizes = inputs(model)
        pipeline.unet.half()
        model.prepare_training(RESIDENT, text_encoder=False)
        in_float = model.predict(x_t, t, text, sizes)
        half = TextCond(text.context.bfloat16(), text.pooled.bfloat16())
        in_bfloat = model.predict(x_t.bfloat16(), t, half, sizes)
        assert pipeline.unet.dtype == torch.float16
    pipeline.unet.float()
    torch.testing.assert_close(in_float, model.predict(x_t, t, text, sizes))
    torch.testing.assert_close(in_bfloat, in_float, atol=0.05, rtol=0.05)


def test_weights_are_read_as_the_input_is(tmp_path):
    model = model_of(tiny_pipeline(SD1, tmp_path))
    layer = next(layer for layer in model.adaptable_layers() if layer.name.endswith("attn1_to_q"))
    weight, bias = model.read_weight(layer, torch.zeros(1, dtype=torch.float64))
    assert (weight.dtype, weight.shape, bias, weight.requires_grad) == (torch.float64, layer.shape, None, False)


# --- LoRAs in prompts


def test_tags_are_read_and_taken_out():
    prompt, wanted = parse_prompt("portrait of <lora:jeff:0.8> in <lora:my style:-0.6> style <lora:x>")
    assert prompt == "portrait of in style"
    assert [(item.name, item.strength) for item in wanted] == [("jeff", 0.8), ("my style", -0.6), ("x", 1.0)]
    with pytest.raises(UserError, match="strong"):
        parse_prompt("<lora:jeff:strong>")


@FAMILIES
def test_a_merged_file_computes_what_the_attached_adapter_does(family, tmp_path):
    model = model_of(tiny_pipeline(family, tmp_path))
    layers, given = model.adaptable_layers(), inputs(model)
    adapter = save_random_adapter(model, tmp_path / "a.safetensors", 1)
    with torch.no_grad():
        plain = model.predict(*given)
        with attached(adapter, layers, model.read_weight, strength=0.5):
            wanted = model.predict(*given)
        with merged_loras(layers, [(tmp_path / "a.safetensors", 0.5)]):
            merged = model.predict(*given)
        assert torch.equal(model.predict(*given), plain)
    assert (wanted - plain).abs().max() > 0.1
    torch.testing.assert_close(merged, wanted, atol=1e-4, rtol=1e-4)


def test_a_file_of_another_family_is_refused_and_nothing_changes(tmp_path):
    model = model_of(tiny_pipeline(SD1, tmp_path))
    save_random_adapter(model, tmp_path / "good.safetensors", 1)
    save_random_adapter(model_of(tiny_pipeline(SDXL, tmp_path)), tmp_path / "sdxl.safetensors", 1)
    before = {name: value.clone() for name, value in model.unet.state_dict().items()}
    files = [(tmp_path / "good.safetensors", 1.0), (tmp_path / "sdxl.safetensors", 1.0)]
    with pytest.raises(UserError, match=r"sdxl\.safetensors"), merged_loras(model.adaptable_layers(), files):
        pass
    assert all(torch.equal(before[name], value) for name, value in model.unet.state_dict().items())


# --- the host


def request(prompt: str, **changes) -> GenerateRequest:
    return GenerateRequest(**{"prompt": prompt, "width_px": 64, "height_px": 64, "steps": 1, "seed": 7, **changes})


def drawn(host, prompt: str, **changes) -> list[np.ndarray]:
    return [np.asarray(picture, dtype=np.int16) for picture in host.generate(request(prompt, **changes))]


def test_the_same_seed_draws_the_same_picture_and_loras_leave_no_trace(host):
    with host.open_model() as model:
        save_random_adapter(model, host.lora_dir / "one.safetensors", 1)
        save_random_adapter(model, host.lora_dir / "folder" / "two.safetensors", 2)
        save_random_adapter(model, host.lora_dir / "text.safetensors", 3, layers=model.text_layers())
    plain = drawn(host, "a cat")[0]
    assert plain.shape == (64, 64, 3)
    seen = [plain, drawn(host, "a cat", seed=8)[0]]
    for tag in ("<lora:one:0.5>", "<lora:two:0.5>", "<lora:one:0.5><lora:two:0.5>", "<lora:text:1>", "<lora:one:1>"):
        seen.append(drawn(host, f"a cat {tag}")[0])
        assert np.array_equal(drawn(host, "a cat")[0], plain)
    for number, picture in enumerate(seen):
        assert not any(np.array_equal(picture, other) for other in seen[:number])
    assert np.array_equal(drawn(host, "a cat <lora:one:0>")[0], plain)


@pytest.mark.parametrize("sampler", ["Euler", "Euler a", "DDIM", "DPM++ 2M"])
def test_every_picture_of_a_batch_has_its_own_seed(sampler, host):
    first, second = drawn(host, "a cat", batch_size=2, sampler=sampler)
    assert np.abs(first - drawn(host, "a cat", sampler=sampler)[0]).max() <= 1
    assert np.abs(second - drawn(host, "a cat", seed=8, sampler=sampler)[0]).max() <= 1
    assert np.abs(first - second).max() > 1


def test_guidance_and_negative_prompt_have_a_say(host):
    pictures = [drawn(host, "cat")[0], drawn(host, "cat", cfg_scale=1.0)[0], drawn(host, "cat", negative_prompt="x")[0]]
    assert not any(np.array_equal(a, b) for a, b in zip(pictures, pictures[1:] + pictures[:1], strict=True))


def test_pictures_can_be_drawn_while_training(host):
    with host.open_model() as model:
        layers = model.adaptable_layers()
        adapter = save_random_adapter(model, host.lora_dir / "one.safetensors", 1)
        given = inputs(model)
        plain = drawn(host, "a cat")[0]
        model.prepare_training(RECOMPUTED, text_encoder=False)
        with attached(adapter, layers, model.read_weight):
            before = model.predict(*given)
            assert np.abs(drawn(host, "a cat")[0] - drawn(host, "a cat <lora:one:0.5>")[0]).max() > 1
            assert not np.array_equal(drawn(host, "a cat")[0], plain)
            after = model.predict(*given)
            assert torch.equal(after, before)
            after.square().mean().backward()
            assert all(parameter.grad is not None for parameter in adapter.parameters())
    merged = drawn(host, "a cat <lora:one:1>")[0]
    with host.open_model() as model, attached(adapter, layers, model.read_weight):
        assert np.abs(drawn(host, "a cat")[0] - merged).max() <= 1
    assert np.array_equal(drawn(host, "a cat")[0], plain)


def test_sdxl_draws(tmp_path):
    tiny_pipeline(SDXL, tmp_path).save_pretrained(tmp_path / "xl")
    host = StandaloneHost(tmp_path, tmp_path / "xl")
    assert drawn(host, "a cat", width_px=72)[0].shape == (64, 72, 3)


def test_bad_requests_are_refused_before_anything_is_loaded(host):
    host.checkpoint = host.lora_dir / "never looked at"
    for bad, said in (
        (request("a <lora:nobody:0.5>"), "no LoRA named nobody"),
        (request("a", width_px=60), "60×64"),
        (request("a", sampler="PLMS"), "PLMS"),
    ):
        with pytest.raises(UserError, match=said):
            host.generate(bad)


def test_one_caller_at_a_time_and_errors_come_back(host):
    inside, order = threading.Event(), []

    def slow():
        inside.set()
        threading.Event().wait(0.1)
        order.append("first")

    thread = threading.Thread(target=host.run_exclusive, args=(slow,))
    thread.start()
    inside.wait()
    host.run_exclusive(lambda: order.append("second"))
    thread.join()
    assert order == ["first", "second"]
    with pytest.raises(ZeroDivisionError):
        host.run_exclusive(lambda: 1 / 0)
    assert host.run_exclusive(lambda: "free again") == "free again"


def test_it_says_what_it_works_with(host):
    assert host.describe() == "tiny · SD 1.x · float32 · on the CPU"
    assert host.native_size_px == 64
    with host.open_model() as model:
        assert (model.family, model.prediction, len(model.alphas_cumprod)) == (SD1, "epsilon", 1000)
        assert model.checkpoint.name == "tiny"
        assert len(model.checkpoint.sha256) == 64


def test_the_names_are_those_that_a_webui_reads_from_its_own_unet(tmp_path):
    """SD 1.x names made from LDM names, as the WebUI hosts make them, are the ones made here."""
    from lib_trainer.models.layer_names import kohya_name, ldm_names

    pipeline = tiny_pipeline(SD1, tmp_path)
    weighted = [n for n, m in pipeline.unet.named_modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)]
    through_ldm = diffusers_names(ldm_names(weighted).values())
    ours = {layer.name for layer in unet_layers(pipeline.unet, SD1)}
    assert ours <= {kohya_name(name) for name in through_ldm.values()}
