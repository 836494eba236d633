"""Which pictures a grid will hold."""

from __future__ import annotations

import pytest

from lib_trainer.errors import UserError
from lib_trainer.host.base import GenerateRequest
from lib_trainer.lora.tags import LoraRef
from lib_trainer.preview.grid_spec import checkpoint_grid, combined_grid, lora_grid, strength_grid

BASE = GenerateRequest("", "blurry", 512, 640, 8, 5.0, "Euler", "Karras")


def prompts(spec) -> list[str]:
    return [cell.request.prompt for cell in spec.cells]


def test_prompts_down_strengths_across():
    spec = strength_grid(BASE, ["jeff on a beach", "a cat"], [7], LoraRef("jeff"), [0, 0.5, 1.0])
    assert prompts(spec) == [
        "jeff on a beach", "jeff on a beach <lora:jeff:0.5>", "jeff on a beach <lora:jeff:1>",
        "a cat", "a cat <lora:jeff:0.5>", "a cat <lora:jeff:1>",
    ]  # fmt: skip
    assert [(cell.row, cell.column) for cell in spec.cells] == [(row, column) for row in (0, 1) for column in range(3)]
    assert spec.row_labels == ("jeff on a beach", "a cat")
    assert spec.column_labels == ("jeff 0", "jeff 0.5", "jeff 1")
    assert spec.baseline == 0
    first = spec.cells[0].request
    assert (first.seed, first.negative_prompt, first.height_px, first.scheduler) == (7, "blurry", 640, "Karras")


def test_a_row_a_seed_and_the_same_seed_along_it():
    spec = strength_grid(BASE, ["p"], [1, 2], LoraRef("jeff"), [0.5, 1])
    assert [cell.request.seed for cell in spec.cells] == [1, 1, 2, 2]
    assert spec.row_labels == ("p · seed 1", "p · seed 2")
    assert spec.baseline is None


def test_another_one_takes_part_in_every_picture():
    spec = strength_grid(BASE, ["p"], [1], LoraRef("jeff"), [0, 0.8], [LoraRef("style", 0.6)])
    assert prompts(spec) == ["p <lora:style:0.6>", "p <lora:jeff:0.8> <lora:style:0.6>"]
    assert spec.column_labels[1] == "jeff 0.8 + style 0.6"


def test_saved_steps_down_whatever_step_the_prompt_names():
    stages = [("jeff-000001", "epoch 1"), ("jeff", "final")]
    spec = checkpoint_grid(BASE, ["a <lora:jeff:0.8> b"], [1], stages, [0, 1])
    assert prompts(spec) == ["a b", "a <lora:jeff-000001:1> b", "a b", "a <lora:jeff:1> b"]
    assert (spec.row_labels, spec.column_labels) == (("epoch 1", "final"), ("strength 0", "strength 1"))
    many = checkpoint_grid(BASE, ["p", "q"], [1], stages, [1])
    assert many.row_labels == ("epoch 1 · p", "final · p", "epoch 1 · q", "final · q")


def test_two_against_each_other():
    prompt = "portrait of <lora:jeff:0.8> in <lora:oil:0.6> style"
    spec = combined_grid(BASE, [prompt], [1], (LoraRef("jeff"), [0, 1]), (LoraRef("oil", aliases=("paint",)), [0, 0.5]))
    assert prompts(spec) == [
        "portrait of in style",
        "portrait of in <lora:oil:0.5> style",
        "portrait of <lora:jeff:1> in style",
        "portrait of <lora:jeff:1> in <lora:oil:0.5> style",
    ]
    assert (spec.row_labels, spec.column_labels) == (("jeff 0", "jeff 1"), ("oil 0", "oil 0.5"))
    assert spec.cells[3].loras == (LoraRef("jeff", 1), LoraRef("oil", 0.5))


def test_an_alias_in_the_prompt_is_not_used_twice():
    oil = LoraRef("oil", aliases=("paint",))
    spec = combined_grid(BASE, ["p <lora:paint:1>"], [1], (LoraRef("jeff"), [1]), (oil, [0.5]))
    assert prompts(spec) == ["p <lora:oil:0.5> <lora:jeff:1>"]


def test_columns_may_be_anything():
    spec = lora_grid(BASE, ["p"], [("plain", ()), ("both", (LoraRef("a", 1), LoraRef("b", 1)))])
    assert prompts(spec) == ["p", "p <lora:a:1> <lora:b:1>"]


def test_what_cannot_be_a_grid_is_refused():
    with pytest.raises(UserError, match="with itself"):
        combined_grid(BASE, ["p"], [1], (LoraRef("jeff"), [1]), (LoraRef("jeff"), [1]))
    with pytest.raises(UserError, match="with itself"):
        strength_grid(BASE, ["p"], [1], LoraRef("jeff"), [1], [LoraRef("jeff", 1)])
    with pytest.raises(UserError, match="nothing to draw"):
        strength_grid(BASE, [], [1], LoraRef("jeff"), [1])
    with pytest.raises(UserError, match="too many"):
        strength_grid(BASE, [f"p{n}" for n in range(50)], [1], LoraRef("jeff"), [n / 10 for n in range(9)])


def test_ten_million_pictures_are_refused_before_they_are_listed():
    strengths, seeds = [number / 1000 for number in range(1000)], range(100)
    with pytest.raises(UserError, match="10000 × 1000 pictures are too many"):
        strength_grid(GenerateRequest(""), ["p"] * 100, seeds, LoraRef("a"), strengths)


def test_a_grid_of_more_than_four_hundred_pictures_is_refused():
    base, strengths = GenerateRequest(""), [number / 10 for number in range(40)]
    assert len(strength_grid(base, ["p"] * 10, [1], LoraRef("a"), strengths).cells) == 400
    with pytest.raises(UserError, match="11 × 40 pictures are too many"):
        strength_grid(base, ["p"] * 11, [1], LoraRef("a"), strengths)
