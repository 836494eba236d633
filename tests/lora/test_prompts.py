"""Prompts that are proposed, and how a person's are read."""

from __future__ import annotations

from pathlib import Path

from lib_trainer.lora.info import LoraInfo
from lib_trainer.lora.prompts import kind_of, prompt_lines, propose_combined, propose_prompts
from lib_trainer.lora.tags import LoraRef


def test_prompts_follow_from_kind_and_word():
    assert propose_prompts("face", "jeff_person")[0] == "jeff_person as a superhero"
    assert propose_prompts("style", "oil")[0] == "cat in oil style"
    assert propose_prompts("face", "") == []


def test_two_together_are_called_by_tag_and_words():
    jeff, oil = ("jeff_person", LoraRef("jeff", 0.8)), ("oil_paint", LoraRef("oil", 0.6))
    wanted = "portrait of jeff_person <lora:jeff:0.8> in oil_paint <lora:oil:0.6> style"
    assert propose_combined("face", jeff, oil) == propose_combined("style", oil, jeff) == wanted
    assert propose_combined("face", ("", jeff[1]), ("", oil[1])) == (
        "portrait of <lora:jeff:0.8> in <lora:oil:0.6> style"
    )


def test_brackets_of_a_trigger_word_are_no_emphasis():
    assert propose_prompts("face", "jeff (actor)")[0] == r"jeff \(actor\) as a superhero"
    assert propose_prompts("style", r"oil \(2\)[x]")[0] == r"cat in oil \(2\)\[x\] style"
    words, tag = "a (b)", LoraRef("a (b)", 0.8)
    assert r"a \(b\) <lora:a (b):0.8>" in propose_combined("face", (words, tag), ("", tag))


def test_a_line_is_a_prompt():
    assert prompt_lines(" a \n\n b\na") == ["a", "b"]


def test_the_kind_is_guessed_from_the_name():
    assert kind_of(LoraInfo("style_name", Path("x"))) == "style"
    assert kind_of(LoraInfo("jeff", Path("x"), trigger_words="jeff_person")) == "face"
