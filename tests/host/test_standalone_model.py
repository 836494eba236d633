"""The standalone host's model: its layers, what it encodes and predicts, and how it is trained."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import torch
from diffusers import UNet2DConditionModel

from lib_trainer.adapter.attach import Adapter, attached, new_adapter
from lib_trainer.config.recipe import AdapterConfig
from lib_trainer.host.standalone.model import blocks_in_order, unet_layers
from lib_trainer.host.standalone.words import token_chunks
from lib_trainer.memory.unet_blocks import unet_blocks
from lib_trainer.models.base import SizeCond, TextCond
from lib_trainer.models.checkpoint_file import unet_shape
from lib_trainer.models.families import SD1, SD2, SDXL
from lib_trainer.models.layer_names import diffusers_names
from lib_trainer.models.placement import RECOMPUTED, RESIDENT, Placement
from tests.host.standalone_models import FAMILIES, inputs, model_of
from tests.host.tiny_pipelines import tiny_pipeline, tiny_tokenizer
from tests.models.test_layer_names import SD15 as SD15_CONFIG
from tests.models.test_layer_names import SDXL as SDXL_CONFIG


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


def test_long_captions_are_cut_into_chunks_of_75_tokens(tmp_path):
    tokenizer = tiny_tokenizer(tmp_path, "!")
    first, second = token_chunks(tokenizer, ["a" * 76, "b", ""], 77, {})
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
    second = token_chunks(pipeline.tokenizer, ["x" * 80, "y"], 77, {})[1]
    with torch.no_grad():
        hidden = encoder(second, output_hidden_states=True).hidden_states[-clip_skip]
        wanted = getattr(encoder, "text_model", encoder).final_layer_norm(hidden)
    torch.testing.assert_close(text.context[:, 77:], wanted)


@pytest.mark.parametrize(("clip_skip", "layer"), [(1, -2), (2, -2), (3, -3)])
def test_sdxl_reads_both_encoders_at_least_one_layer_down(clip_skip, layer, tmp_path):
    pipeline = tiny_pipeline(SDXL, tmp_path)
    text = model_of(pipeline).encode_text(["x" * 80], clip_skip)
    chunks = [token_chunks(tokenizer, ["x" * 80], 77, {}) for tokenizer in (pipeline.tokenizer, pipeline.tokenizer_2)]
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


OFFLOADED = [Placement(int8=True), Placement(streamed=1.0), Placement(frozenset([0, 3]), int8=True, streamed=0.5)]


@pytest.mark.parametrize("placement", [RESIDENT, RECOMPUTED, *OFFLOADED])
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
@pytest.mark.parametrize("placement", [RECOMPUTED, *OFFLOADED])
def test_no_saving_of_memory_changes_a_gradient(family, placement, tmp_path):
    plain, saving = (gradient_of_input(family, tmp_path, place) for place in (RESIDENT, placement))
    if placement.int8:
        error = (saving - plain).norm() / plain.norm()
        assert 1e-5 < error < 0.03
    else:
        torch.testing.assert_close(saving, plain)


def gradient_of_input(family, folder, placement):
    with ExitStack() as undo:
        model = model_of(tiny_pipeline(family, folder), undo)
        layers = model.adaptable_layers()
        x_t, t, text, sizes = inputs(model)
        model.prepare_training(placement, text_encoder=False)
        x_t.requires_grad_()
        with attached(Adapter({}), layers, model.read_weight):
            # Twice: what is fetched ahead is known after the first.
            for _ in range(1 if placement == RESIDENT else 2):
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
    parts = unet_blocks(unet_shape(pipeline.unet.config, family), 64, 64)
    assert len(blocks) == sum(part.recomputable for part in parts)
    planned = [(site.name, site.operation.shape) for part in parts for site in part.sites if site.adapted]
    assert sorted(planned) == sorted((layer.name, layer.shape) for layer in unet_layers(pipeline.unet, family))


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


def test_the_names_are_those_that_a_webui_reads_from_its_own_unet(tmp_path):
    """SD 1.x names made from LDM names, as the WebUI hosts make them, are the ones made here."""
    from lib_trainer.models.layer_names import kohya_name, ldm_names

    pipeline = tiny_pipeline(SD1, tmp_path)
    weighted = [n for n, m in pipeline.unet.named_modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)]
    through_ldm = diffusers_names(ldm_names(weighted).values())
    ours = {layer.name for layer in unet_layers(pipeline.unet, SD1)}
    assert ours <= {kohya_name(name) for name in through_ldm.values()}
