"""The fake has the real one's pitfalls: without these, the contract would prove nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from lib_trainer.models.checkpoint_file import read_single_file
from tests.fakes.a1111_start import running_a1111

FIRST_RES_BLOCK = "lora_unet_down_blocks_0_resnets_0_conv1"
HALF_A_LAYER = "lora_te2_text_model_encoder_layers_0_self_attn_q_proj"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A fake A1111's data folder, while it runs."""
    place = tmp_path_factory.mktemp("a1111") / "data"
    with running_a1111(place):
        select("sd1.safetensors")
        yield place


def select(checkpoint: str, fp8: str = "Disable") -> Any:
    """The model of a checkpoint, loaded."""
    from modules import sd_models, shared

    shared.opts.data.update(sd_model_checkpoint=checkpoint, fp8_storage=fp8, emphasis="No norm")
    assert shared.sd_model is not None
    return sd_models.reload_model_weights()


def forget() -> None:
    """As when the WebUI has just started: nothing is loaded."""
    from modules import devices, sd_models

    sd_models.model_data.__init__()
    devices.fp8 = False


def draw(prompt: str = "a photo") -> bytes:
    return job(prompt)[1].images[0].tobytes()


def job(prompt: str) -> tuple[Any, Any]:
    from modules import processing

    made = processing.StableDiffusionProcessingTxt2Img(prompt=prompt, seed=7, steps=1, width=64, height=64)
    return made, processing.process_images(made)


def write(folder: Path, name: str, seed: int, *layers: str) -> Path:
    """A LoRA file. Its time differs from an older one's of the same name."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {FIRST_RES_BLOCK: ((64, 64, 3, 3), 4)} if not layers else dict.fromkeys(layers, ((24, 24), 4))
    tensors = {}
    for layer, ((out, inside, *kernel), rank) in shapes.items():
        tensors[f"{layer}.lora_up.weight"] = torch.randn((out, rank, *[1] * len(kernel)), generator=generator)
        tensors[f"{layer}.lora_down.weight"] = torch.randn((rank, inside, *kernel), generator=generator)
    path = folder / "Lora" / f"{name}.safetensors"
    save_file(tensors, path)
    os.utime(path, (seed, seed))
    return path


def first_weight() -> torch.nn.Parameter:
    from modules import shared

    return shared.sd_model.model.diffusion_model.input_blocks[1][0].in_layers[2].weight


def test_weights_are_normal_tensors_and_the_unets_ask_for_gradients(folder: Path) -> None:
    model = select("sd1.safetensors")
    assert not any(parameter.is_inference() for parameter in model.parameters())
    assert all(parameter.requires_grad for parameter in model.model.parameters())
    parts = (model.cond_stage_model, model.first_stage_model)
    assert not any(parameter.requires_grad for part in parts for parameter in part.parameters())


def test_its_attention_lets_no_gradient_through_and_stands_in_the_class(folder: Path) -> None:
    import ldm.modules.attention
    import sgm.modules.attention
    from modules import sd_hijack_optimizations

    attention = ldm.modules.attention.CrossAttention(8, 8, 2, 4)
    assert attention.forward.__func__ is sd_hijack_optimizations.sub_quad_attention_forward
    assert sgm.modules.attention.CrossAttention is not ldm.modules.attention.CrossAttention
    x = torch.randn(1, 3, 8, requires_grad=True)
    plain = sd_hijack_optimizations.scaled_dot_product_attention_forward
    assert torch.allclose(attention(x), plain(attention, x), atol=1e-6)
    with pytest.raises(RuntimeError):
        attention(x).sum().backward()


def test_its_checkpointing_finds_no_gradient_for_what_it_was_not_told_of(folder: Path) -> None:
    from ldm.modules.diffusionmodules.util import checkpoint

    x, told, untold = torch.ones(3, requires_grad=True), torch.nn.Parameter(torch.ones(3)), torch.ones(3)
    untold.requires_grad_(True)
    checkpoint(lambda given: given * told * untold, (x,), [told], True).sum().backward()
    assert told.grad is not None and untold.grad is None
    with pytest.raises(RuntimeError):
        frozen = torch.nn.Parameter(torch.ones(3), requires_grad=False)
        checkpoint(lambda given: given * 2, (x,), [frozen], True).sum().backward()


def test_another_checkpoint_is_written_into_the_same_weights(folder: Path) -> None:
    model, weight = select("sd1.safetensors"), first_weight()
    before = weight.clone()
    assert select("sd1-other.safetensors") is model and first_weight() is weight
    assert not torch.equal(weight, before)
    assert model.sd_checkpoint_info.name == "sd1-other.safetensors"
    select("sd1.safetensors")
    assert torch.equal(weight, before)


def test_a_model_of_another_kind_leaves_the_old_one_without_weights(folder: Path) -> None:
    old = select("sd1.safetensors")
    new = select("sdxl.safetensors")
    assert new is not old and {parameter.device.type for parameter in old.parameters()} == {"meta"}
    assert (new.is_sd1, new.is_sdxl, new.parameterization) == (False, True, "eps")
    assert select("sd2-v.safetensors").parameterization == "v"
    assert select("sd3.safetensors").is_sd3
    select("sd1.safetensors")


def test_eight_bits_are_a_reason_to_load_the_same_model_again(folder: Path) -> None:
    from modules import devices

    model, clean = select("sd1.safetensors"), draw()
    schedule, weight = model.alphas_cumprod.clone(), first_weight().clone()
    assert select("sd1.safetensors", "Enable") is model
    assert devices.fp8 and first_weight().dtype == torch.float8_e4m3fn
    assert model.cond_stage_model.wrapped.transformer.text_model.encoder.layers[0].mlp.fc1.weight.dtype.itemsize == 1
    assert draw() != clean
    select("sd1.safetensors")
    assert not devices.fp8 and torch.equal(first_weight(), weight)
    # On the way everything was made half precision, the noise schedule as well: it stays rounded.
    assert torch.equal(model.alphas_cumprod, schedule.half().float()) and draw() != clean
    forget()
    select("sd1.safetensors")
    assert draw() == clean


def test_loras_lie_in_the_weights_and_layers_know_them_by_name(folder: Path) -> None:
    from modules import processing

    select("sd1.safetensors")
    plain, clean = draw(), first_weight().clone()
    write(folder, "one", seed=1)
    first = draw("a photo <lora:one:1>")
    assert first != plain and not torch.equal(first_weight(), clean)
    # Its file is read again, being newer; but the layers hold one of that name already.
    write(folder, "one", seed=2)
    assert draw("a photo <lora:one:1>") == first
    assert draw() == plain and torch.equal(first_weight(), clean)
    assert draw("a photo <lora:one:1>") != first
    assert processing.StableDiffusionProcessing.cached_c[0] is not None


def test_a_lora_in_the_weights_cannot_be_taken_out_where_gradients_are_on(folder: Path) -> None:
    import networks
    from modules import shared

    select("sd1.safetensors")
    write(folder, "leaf", seed=3)
    draw("a photo <lora:leaf:1>")
    networks.load_networks([])
    layer = shared.sd_model.model.diffusion_model.input_blocks[1][0].in_layers[2]
    with pytest.raises(RuntimeError, match="leaf Variable"):
        layer(torch.randn(1, 64, 8, 8))
    draw()


def test_what_is_amiss_with_a_lora_is_no_error(folder: Path) -> None:
    plain = draw()
    made, done = job("a photo <lora:no_such_one:1>")
    assert done.images[0].tobytes() == plain and "no_such_one" in "".join(made.comments)
    path, wrong = folder / "Lora" / "amiss.safetensors", {"up": (3, 1), "down": (1, 3)}
    save_file({f"{FIRST_RES_BLOCK}.lora_{part}.weight": torch.ones(shape) for part, shape in wrong.items()}, path)
    made, done = job("a photo <lora:amiss:1>")
    assert done.images[0].tobytes() == plain and "amiss (1)" in "".join(made.comments)


def test_one_unknown_name_leaves_the_others(folder: Path) -> None:
    write(folder, "known", seed=4)
    assert draw("a photo <lora:known:1> <lora:nobody:1>") == draw("a photo <lora:known:1>") != draw()


def test_query_key_and_value_of_the_second_text_encoder_are_one_weight(folder: Path) -> None:
    model = select("sdxl.safetensors")
    whole = model.conditioner.embedders[1].wrapped.model.transformer.resblocks[0].attn
    assert isinstance(whole, torch.nn.MultiheadAttention) and not hasattr(whole, "weight")
    plain, before = draw("a cat"), whole.in_proj_weight.clone()
    # All four parts, or none of them, without a word.
    write(folder, "half", 5, HALF_A_LAYER)
    assert draw("a cat <lora:half:1>") == plain
    parts = [HALF_A_LAYER.replace("q_proj", f"{part}_proj") for part in ("q", "k", "v", "out")]
    write(folder, "whole", 6, *parts)
    assert draw("a cat <lora:whole:1>") != plain and not torch.equal(whole.in_proj_weight, before)
    assert draw("a cat") == plain and torch.equal(whole.in_proj_weight, before)
    select("sd1.safetensors")


def test_sdxl_encodes_a_picture_to_a_sample_and_text_under_no_grad(folder: Path) -> None:
    model, pixels = select("sdxl.safetensors"), torch.zeros(1, 3, 64, 64)
    assert not torch.equal(model.first_stage_model.encode(pixels), model.first_stage_model.encode(pixels))
    text = model.conditioner.embedders[0].wrapped.transformer
    text.requires_grad_(True)
    assert not model.get_learned_conditioning(["a cat"])["crossattn"].requires_grad
    text.requires_grad_(False)
    model = select("sd1.safetensors")
    assert torch.equal(model.encode_first_stage(pixels).mode(), model.encode_first_stage(pixels).mode())


def test_prompts_leave_notes_and_their_options_are_looked_up_in_the_module(folder: Path) -> None:
    from modules import sd_hijack, sd_hijack_clip, shared

    model = select("sd1.safetensors")
    assert sd_hijack_clip.opts is shared.opts
    sd_hijack.model_hijack.clear_comments()
    weighted = model.get_learned_conditioning(["a (red:1.5) cat"])
    assert sd_hijack.model_hijack.extra_generation_params == {"Emphasis": "No norm"}
    assert weighted.shape == (1, 77, 16)
    assert not torch.equal(weighted, model.get_learned_conditioning(["a red cat"]))
    assert model.get_learned_conditioning([", ".join(["a word or two"] * 30)]).shape == (1, 2 * 77, 16)
    assert "Emphasis" in job("a (red) cat")[1].infotexts[0]


def test_with_medvram_hooks_move_the_parts_about(folder: Path) -> None:
    from modules import lowvram, shared

    plain = draw()
    shared.cmd_opts.medvram = True
    try:
        forget()
        model = select("sd1.safetensors")
        assert model.lowvram and "encode" in vars(model.first_stage_model)
        model.get_learned_conditioning(["a cat"])
        assert lowvram.module_in_gpu is model.cond_stage_model.wrapped
        assert draw() == plain and lowvram.module_in_gpu is None
    finally:
        shared.cmd_opts.medvram = False
        forget()
    assert not select("sd1.safetensors").lowvram


@pytest.mark.parametrize(
    ("checkpoint", "family"), [("sd1.safetensors", "sd1"), ("sd2-v.safetensors", "sd2"), ("sdxl.safetensors", "sdxl")]
)
def test_its_checkpoints_are_known_by_the_shapes_in_their_files(folder: Path, checkpoint: str, family: str) -> None:
    found = read_single_file(folder / "Stable-diffusion" / checkpoint)
    assert found.family.key == family
    assert found.configs["unet"]["block_out_channels"] == [64, 128]


def test_its_packages_and_what_it_changed_in_torch_are_gone_afterwards() -> None:
    # In a process of its own, because this one has the module's fake in it.
    code = (
        "import sys, tempfile, pathlib, torch\n"
        "from tests.fakes.a1111_start import running_a1111\n"
        "kinds = (torch.nn.Linear, torch.nn.Conv2d, torch.nn.GroupNorm, torch.nn.LayerNorm)\n"
        "before = list(sys.path), [dict(vars(kind)) for kind in kinds]\n"
        "with running_a1111(pathlib.Path(tempfile.mkdtemp(), 'a1111')):\n"
        "    assert 'modules.shared' in sys.modules and 'forward' in vars(torch.nn.Linear)\n"
        "    assert before[1] != [dict(vars(kind)) for kind in kinds]\n"
        "assert (list(sys.path), [dict(vars(kind)) for kind in kinds]) == before\n"
        "gone = {'modules', 'ldm', 'sgm', 'k_diffusion', 'open_clip', 'networks', 'network', 'lora_patches'}\n"
        "assert not gone & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True)
