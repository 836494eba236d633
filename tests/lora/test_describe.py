"""What a LoRA file and its card say about it, whatever is in them: the list of all LoRAs must not break at one."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from lib_trainer.adapter.metadata import RECIPE_KEY
from lib_trainer.host.standalone.merge_lora import list_loras
from lib_trainer.lora.describe import describe_lora
from lib_trainer.models.families import SD1, SDXL

NESTED = "[" * 100_000 + "]" * 100_000


def written(path: Path, header: str, card: str = "") -> Path:
    text = header.encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    if card:
        path.with_suffix(".json").write_text(card, encoding="utf-8")
    return path


CARDS = {
    "nested": NESTED,
    "nested inside": f'{{"notes": {NESTED}}}',
    "a list": "[1, 2]",
    "a number": "7",
    "infinite": '{"preferred weight": 1e999, "activation text": null}',
    "no number": '{"preferred weight": NaN}',
    "an object": '{"preferred weight": {"a": 1}, "sd version": ["SD1"]}',
    "a word": '{"preferred weight": "strong", "sd version": 1}',
}


@pytest.mark.parametrize("card", CARDS.values(), ids=CARDS.keys())
def test_a_card_of_any_kind_leaves_the_file_usable(tmp_path: Path, card: str) -> None:
    info = describe_lora(written(tmp_path / "a.safetensors", "{}", card), "a", {"ss_steps": "300"})
    assert (info.name, info.strength, info.trigger_words, info.steps) == ("a", 0.0, "", 300)
    json.dumps([info.strength, info.steps, info.trigger_words], allow_nan=False)


@pytest.mark.parametrize("value", [None, 5, 1.5, True, [], ["sd_v1"], {"a": {}}, "", "nan", "inf", "1e999", math.inf])
def test_metadata_of_any_kind_is_read_as_far_as_it_goes(tmp_path: Path, value: Any) -> None:
    names = ("ss_steps", "modelspec.architecture", "ss_base_model_version", "modelspec.trigger_phrase")
    info = describe_lora(written(tmp_path / "a.safetensors", "{}"), "a", dict.fromkeys(names, value))
    assert info.steps in (0, 1, 5) and info.family in (None, SD1, SDXL)


def test_files_of_any_kind_are_listed_with_their_problem(tmp_path: Path) -> None:
    metadata = {"ss_steps": 5, "modelspec.architecture": ["x"], "ss_base_model_version": "sd_v1", "note": None}
    written(tmp_path / "odd.safetensors", json.dumps({"__metadata__": metadata}), NESTED)
    written(tmp_path / "nested.safetensors", NESTED)
    written(tmp_path / "list.safetensors", '{"__metadata__": [1]}')
    (tmp_path / "half.safetensors").write_bytes(b"\x01")
    listed = {lora.name: lora for lora in list_loras(tmp_path)}
    assert listed["odd"].problem == "" and listed["odd"].family == SD1 and listed["odd"].steps == 0
    assert all("cannot be read" in listed[name].problem for name in ("nested", "list", "half"))


@pytest.mark.parametrize(
    ("recipe", "over"),
    [
        ({"base_weights": "oil.safetensors, ink", "base_weights_multiplier": "0.7"}, (("oil", 0.7), ("ink", 1.0))),
        ({"base_weights": "oil", "base_weights_multiplier": "much"}, ()),
        ({"base_weights": None}, ()),
        ([], ()),
    ],
)
def test_what_it_was_trained_over(tmp_path: Path, recipe: Any, over: tuple[tuple[str, float], ...]) -> None:
    assert describe_lora(tmp_path / "a.safetensors", "a", {RECIPE_KEY: json.dumps(recipe)}).trained_over == over
