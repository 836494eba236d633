"""`<lora:…>` in prompts."""

from __future__ import annotations

import pytest

from lib_trainer.lora.tags import LoraRef, bare, names_in, with_lora, without


def test_a_tag_goes_to_the_end_or_stays_where_it_stands():
    assert with_lora("jeff on a beach", LoraRef("jeff", 0.5)) == "jeff on a beach <lora:jeff:0.5>"
    assert with_lora("a <lora:jeff:1:0.3> b", LoraRef("jeff", 0.5)) == "a <lora:jeff:0.5> b"
    assert with_lora("<lora:jeff> b", LoraRef("jeff", -0.25)) == "<lora:jeff:-0.25> b"
    assert with_lora("", LoraRef("jeff", 1)) == "<lora:jeff:1>"


@pytest.mark.parametrize(
    "prompt", ["a b", "a <lora:jeff:1> b", "a b <lora:jeff:1>", "<lora:jeff:1> a b", "a<lora:jeff:1> b <lora:jeff:2>"]
)
def test_strength_0_is_the_prompt_without_it(prompt):
    assert with_lora(prompt, LoraRef("jeff", 0)) == "a b"


def test_only_the_first_of_several_tags_stays():
    assert with_lora("a <lora:j:1> b <lora:j:0.5>", LoraRef("j", 0.2)) == "a <lora:j:0.2> b"


def test_others_stay_untouched():
    assert with_lora("p <lora:style:0.6>", LoraRef("jeff", 0)) == "p <lora:style:0.6>"
    assert with_lora("p <lora:style:0.6>", LoraRef("jeff", 1)) == "p <lora:style:0.6> <lora:jeff:1>"


def test_an_alias_is_replaced_by_the_name():
    assert with_lora("p <lora:old:1>", LoraRef("jeff", 0.5, ("old",))) == "p <lora:jeff:0.5>"
    assert with_lora("p <lora:old:1>", LoraRef("jeff", 0, ("old",))) == "p"


@pytest.mark.parametrize("name", ["v1.5", "my style", "jeff (old) [x]", "日本", "a+b|c", "{x}"])
def test_any_name_is_found_again(name):
    prompt = with_lora("p", LoraRef(name, 0.5))
    assert names_in(prompt) == [name]
    assert with_lora(prompt, LoraRef(name, 1)) == f"p <lora:{name}:1>"
    assert without(prompt, [name]) == bare(prompt) == "p"


def test_lines_are_kept():
    assert with_lora("a\n<lora:x:1>\nb", LoraRef("x", 0)) == "a\n\nb"
