"""What the real A1111 does with LoRAs, and so must the fake one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.host.a1111_pictures import FIRST_RES_BLOCK, HALF_A_LAYER, draw, first_weight, job, select, write


def test_loras_lie_in_the_weights_and_layers_know_them_by_name(a1111_folder: Path) -> None:
    from modules import processing

    select("sd1.safetensors")
    plain, clean = draw(), first_weight().clone()
    write(a1111_folder, "one", seed=1)
    first = draw("a photo <lora:one:1>")
    assert first != plain and not torch.equal(first_weight(), clean)
    # Its file is read again, being newer; but the layers hold one of that name already.
    write(a1111_folder, "one", seed=2)
    assert draw("a photo <lora:one:1>") == first
    assert draw() == plain and torch.equal(first_weight(), clean)
    assert draw("a photo <lora:one:1>") != first
    assert processing.StableDiffusionProcessing.cached_c[0] is not None


def test_a_lora_in_the_weights_cannot_be_taken_out_where_gradients_are_on(a1111_folder: Path) -> None:
    import networks
    from modules import shared

    select("sd1.safetensors")
    write(a1111_folder, "leaf", seed=3)
    draw("a photo <lora:leaf:1>")
    networks.load_networks([])
    layer = shared.sd_model.model.diffusion_model.input_blocks[1][0].in_layers[2]
    with pytest.raises(RuntimeError, match="leaf Variable"):
        layer(torch.randn(1, 64, 8, 8))
    draw()


def test_what_is_amiss_with_a_lora_is_no_error(a1111_folder: Path) -> None:
    plain = draw()
    made, done = job("a photo <lora:no_such_one:1>")
    assert done.images[0].tobytes() == plain and "no_such_one" in "".join(made.comments)
    path, wrong = a1111_folder / "Lora" / "amiss.safetensors", {"up": (3, 1), "down": (1, 3)}
    save_file({f"{FIRST_RES_BLOCK}.lora_{part}.weight": torch.ones(shape) for part, shape in wrong.items()}, path)
    made, done = job("a photo <lora:amiss:1>")
    assert done.images[0].tobytes() == plain and "amiss (1)" in "".join(made.comments)


def test_one_unknown_name_leaves_the_others(a1111_folder: Path) -> None:
    write(a1111_folder, "known", seed=4)
    assert draw("a photo <lora:known:1> <lora:nobody:1>") == draw("a photo <lora:known:1>") != draw()


def test_query_key_and_value_of_the_second_text_encoder_are_one_weight(a1111_folder: Path) -> None:
    model = select("sdxl.safetensors")
    whole = model.conditioner.embedders[1].wrapped.model.transformer.resblocks[0].attn
    assert isinstance(whole, torch.nn.MultiheadAttention) and not hasattr(whole, "weight")
    plain, before = draw("a cat"), whole.in_proj_weight.clone()
    # All four parts, or none of them, without a word.
    write(a1111_folder, "half", 5, HALF_A_LAYER)
    assert draw("a cat <lora:half:1>") == plain
    parts = [HALF_A_LAYER.replace("q_proj", f"{part}_proj") for part in ("q", "k", "v", "out")]
    write(a1111_folder, "whole", 6, *parts)
    assert draw("a cat <lora:whole:1>") != plain and not torch.equal(whole.in_proj_weight, before)
    assert draw("a cat") == plain and torch.equal(whole.in_proj_weight, before)
    select("sd1.safetensors")
