"""The fake has the real one's pitfalls: without these, the contract would prove nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lib_trainer.models.checkpoint_file import read_single_file
from tests.host.a1111_pictures import draw, first_weight, forget, job, select


def test_weights_are_normal_tensors_and_the_unets_ask_for_gradients(a1111_folder: Path) -> None:
    model = select("sd1.safetensors")
    assert not any(parameter.is_inference() for parameter in model.parameters())
    assert all(parameter.requires_grad for parameter in model.model.parameters())
    parts = (model.cond_stage_model, model.first_stage_model)
    assert not any(parameter.requires_grad for part in parts for parameter in part.parameters())


def test_its_attention_lets_no_gradient_through_and_stands_in_the_class(a1111_folder: Path) -> None:
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


def test_its_checkpointing_finds_no_gradient_for_what_it_was_not_told_of(a1111_folder: Path) -> None:
    from ldm.modules.diffusionmodules.util import checkpoint

    x, told, untold = torch.ones(3, requires_grad=True), torch.nn.Parameter(torch.ones(3)), torch.ones(3)
    untold.requires_grad_(True)
    checkpoint(lambda given: given * told * untold, (x,), [told], True).sum().backward()
    assert told.grad is not None and untold.grad is None
    with pytest.raises(RuntimeError):
        frozen = torch.nn.Parameter(torch.ones(3), requires_grad=False)
        checkpoint(lambda given: given * 2, (x,), [frozen], True).sum().backward()


def test_another_checkpoint_is_written_into_the_same_weights(a1111_folder: Path) -> None:
    model, weight = select("sd1.safetensors"), first_weight()
    before = weight.clone()
    assert select("sd1-other.safetensors") is model and first_weight() is weight
    assert not torch.equal(weight, before)
    assert model.sd_checkpoint_info.name == "sd1-other.safetensors"
    select("sd1.safetensors")
    assert torch.equal(weight, before)


def test_a_model_of_another_kind_leaves_the_old_one_without_weights(a1111_folder: Path) -> None:
    old = select("sd1.safetensors")
    new = select("sdxl.safetensors")
    assert new is not old and {parameter.device.type for parameter in old.parameters()} == {"meta"}
    assert (new.is_sd1, new.is_sdxl, new.parameterization) == (False, True, "eps")
    assert select("sd2-v.safetensors").parameterization == "v"
    assert select("sd3.safetensors").is_sd3
    select("sd1.safetensors")


def test_eight_bits_are_a_reason_to_load_the_same_model_again(a1111_folder: Path) -> None:
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


def test_sdxl_encodes_a_picture_to_a_sample_and_text_under_no_grad(a1111_folder: Path) -> None:
    model, pixels = select("sdxl.safetensors"), torch.zeros(1, 3, 64, 64)
    assert not torch.equal(model.first_stage_model.encode(pixels), model.first_stage_model.encode(pixels))
    text = model.conditioner.embedders[0].wrapped.transformer
    text.requires_grad_(True)
    assert not model.get_learned_conditioning(["a cat"])["crossattn"].requires_grad
    text.requires_grad_(False)
    model = select("sd1.safetensors")
    assert torch.equal(model.encode_first_stage(pixels).mode(), model.encode_first_stage(pixels).mode())


def test_prompts_leave_notes_and_their_options_are_looked_up_in_the_module(a1111_folder: Path) -> None:
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


def test_with_medvram_hooks_move_the_parts_about(a1111_folder: Path) -> None:
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
def test_its_checkpoints_are_known_by_the_shapes_in_their_files(
    a1111_folder: Path, checkpoint: str, family: str
) -> None:
    found = read_single_file(a1111_folder / "Stable-diffusion" / checkpoint)
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
