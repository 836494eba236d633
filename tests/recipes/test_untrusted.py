"""Recipe files come from anywhere: whatever they hold is answered with a recipe or one sentence, never a traceback."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from lib_trainer.config.recipe import field_types
from lib_trainer.errors import UserError
from lib_trainer.recipes.files import load_recipe, recipe_from_metadata, recipe_from_object
from lib_trainer.recipes.kohya_table import FIELDS
from lib_trainer.recipes.onetrainer import ONETRAINER_NAMES
from lib_trainer.recipes.sd_scripts import SD_SCRIPTS_NAMES
from lib_trainer.recipes.source import MAX_DEPTH, MAX_FILE_BYTES

NAMES = sorted({*FIELDS, *field_types(), *SD_SCRIPTS_NAMES, *ONETRAINER_NAMES})
ODD = [
    *(None, True, False, 0, -1, 1.5, 10**30, 10**400, -(10**400), 1e308, "", " ", "0", "None", "nan", "inf", "1e999"),
    *("\ud800", "\0", "a\nb", "ä" * 5000, "512,512", "512,", ",", "'unclosed", '"', "--", "--a --b=c", "=", "a=b=c"),
    *([], [[]], [None], [1, 2, 3], ["a=b"], ["a"], [{}], [{"a": 1}], {}, {"a": []}, {"train": True}, {"optimizer": 3}),
]


def odd_value(random: Random, depth: int = 0) -> Any:
    if depth < 3 and random.random() < 0.2:
        inner = [odd_value(random, depth + 1) for _ in range(random.randrange(4))]
        return inner if random.random() < 0.5 else {random.choice(NAMES): value for value in inner}
    return random.choice(ODD)


def is_said_well(text: str) -> bool:
    """One line that every console and page can show."""
    return "\n" not in text and len(text) < 1000 and text.encode() != b""


def check(data: dict[str, Any]) -> None:
    try:
        loaded = recipe_from_object(data, "file.json")
    except UserError as error:
        assert is_said_well(error.message)
        return
    json.dumps(loaded.recipe.flat()).encode()
    for text in (*loaded.notices, *loaded.problems.values()):
        assert is_said_well(text), text


def test_whatever_a_file_holds() -> None:
    random = Random(7)
    for _ in range(400):
        names = random.sample(NAMES, random.randrange(1, 12))
        if random.random() < 0.3:
            names.append(random.choice(["\ud800", "a" * 3000, "", "x\ny"]))
        check({name: odd_value(random) for name in names})


@pytest.mark.parametrize("name", ["LoRA_type", "network_args", "lr_warmup_steps", "max_train_steps", "text_encoder_lr"])
def test_every_odd_value_in_fields_that_are_looked_into(name: str) -> None:
    for value in ODD:
        check({"LoRA_type": "LyCORIS/LoHa", "network_dim": 8, name: value})
        check({"network_module": "lycoris.kohya", "learning_rate": 1e-4, name: value})


def test_metadata_of_any_kind() -> None:
    random = Random(8)
    names = ["network_module", "network_args", "datasets", "optimizer", "resolution", "network_dim", "lr_warmup_steps"]
    for _ in range(200):
        values = {f"ss_{name}": json.dumps(odd_value(random)) for name in random.sample(names, 3)}
        check(values)
        try:
            recipe_from_metadata({**values, "ss_network_module": "networks.lora"})
        except UserError as error:
            assert is_said_well(error.message)


def test_deep_and_large_files(tmp_path: Path) -> None:
    path = tmp_path / "deep.json"
    deep: Any = 1
    for _ in range(MAX_DEPTH + 1):
        deep = {"a": deep}
    for text in (json.dumps({"network_dim": deep}), '{"a":' * 100_000, "9" * 100_000):
        path.write_text(text)
        with pytest.raises(UserError) as caught:
            load_recipe(path)
        assert len(caught.value.message) < 300
    with path.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(UserError, match="too large"):
        load_recipe(path)


@pytest.mark.parametrize(
    "text", ["[", "a = ", "= 1", "a = 1\na = 2", "[[a]]\n[a]", "\0", "a = nan\n", "a" * 5000, "network_dim = [1, {]}"]
)
def test_bad_toml(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(UserError) as caught:
        load_recipe(tmp_path / "bad.toml")
    assert is_said_well(caught.value.message)


def test_a_header_that_promises_more_than_there_is(tmp_path: Path) -> None:
    path = tmp_path / "huge.safetensors"
    path.write_bytes((2**40).to_bytes(8, "little") + b"{}")
    with pytest.raises(UserError, match="not an adapter file"):
        load_recipe(path)
