"""The face recipe on a full-size SD 1.5, when that is the checkpoint under test."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from safetensors.torch import load_file

from lib_trainer.recipes.files import PRESET_DIR, load_recipe
from tests.fakes.forge_room import ForgeRoom
from tests.host.contract_runs import drive, pictures  # noqa: F401 - a fixture

pytestmark = pytest.mark.skipif(
    os.environ["TRAIN_LORA_INSIDE_FORGE"] != "sd15.safetensors", reason="the checkpoint is not sd15.safetensors"
)


def test_the_face_recipe_adapts_what_kohya_and_lycoris_adapt(
    forge: ForgeRoom,
    pictures: Path,  # noqa: F811
    capfd: pytest.CaptureFixture[str],
) -> None:
    values = {"train_data_dir": str(pictures), "output_name": "full", "resolution_px": "64,64", "max_train_steps": 2}
    recipe = load_recipe(PRESET_DIR / "loha_face_config_8gb.json").recipe.with_values({**values, "min_bucket_reso": 64})
    clean = forge.picture()
    path = drive(forge, recipe)[-1].path
    assert forge.picture() == clean
    tensors = load_file(path)
    assert len({name.partition(".")[0] for name in tensors}) == 282
    assert len(tensors) == 1514
    capfd.readouterr()
    assert forge.picture("a photo <lora:full:1>") != clean
    said = capfd.readouterr()
    assert "unmatched" not in said.out + said.err
    assert "282 keys" in said.out + said.err
