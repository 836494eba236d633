"""Which saved step becomes the final file, and that the file before it is not lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from lib_trainer.adapter.io import copy_adapter, read_metadata, tensors_hash
from lib_trainer.adapter.metadata import RECIPE_KEY
from lib_trainer.config.recipe import Recipe
from lib_trainer.errors import UserError
from lib_trainer.host.base import GenerateRequest
from lib_trainer.lora.checkpoints import make_final, run_name, saved_steps_of
from lib_trainer.lora.describe import describe_lora
from lib_trainer.lora.tags import LoraRef
from lib_trainer.preview.choose import choose
from lib_trainer.preview.drawing import Drawn
from lib_trainer.preview.grid_spec import Cell
from lib_trainer.preview.picture_file import PictureFolder
from tests.fakes.easel import Easel


class Shelf(Easel):
    """A host that lists what its files say of themselves."""

    def loras(self, *, refresh: bool = False) -> list:
        paths = sorted(self.lora_dir.rglob("*.safetensors"))
        return [describe_lora(path, path.stem, read_metadata(path)) for path in paths]

    def write(self, name: str, value: float, steps: int = 0, *, ours: bool = True) -> Path:
        path = self.lora_dir / f"{name}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {"ss_output_name": name, **({"ss_steps": str(steps)} if steps else {})}
        if ours:
            recipe = Recipe().with_values({"output_name": name, "preferred_weight": 0.8})
            metadata[RECIPE_KEY] = json.dumps(recipe.flat())
        save_file({"lora_unet_x.alpha": torch.tensor(value)}, path, metadata)
        return path

    def value(self, name: str) -> float:
        return float(load_file(self.lora_dir / f"{name}.safetensors")["lora_unet_x.alpha"])

    def names(self) -> list[str]:
        return sorted(path.stem for path in self.lora_dir.glob("*.safetensors"))


@pytest.fixture
def shelf(tmp_path) -> Shelf:
    shelf = Shelf(tmp_path)
    shelf.write("jeff-000001", 1, 100)
    shelf.write("jeff-step00000150", 2, 150)
    shelf.write("jeff", 3, 300)
    shelf.write("jefferson", 9, 1)
    shelf.write("elsewhere/jeff-000002", 9, 200)
    return shelf


def drawn(*refs: LoraRef) -> Drawn:
    picture = Image.new("RGB", (8, 8), "red")
    return Drawn(Cell(0, 0, GenerateRequest("p"), refs), PictureFolder().keep(picture), "p\nSteps: 1")


def final(shelf: Shelf, name: str, strength: float = 0.7) -> Path:
    stage = next(lora for lora in shelf.loras() if lora.name == name)
    return make_final(stage, shelf.loras(), strength)


def test_the_saved_steps_of_a_run_in_the_order_of_training(shelf):
    wanted = [
        ("jeff-000001", "epoch 1 · step 100"),
        ("jeff-step00000150", "step 150"),
        ("jeff", "final · step 300"),
    ]
    for name in ("jeff", "jeff-000001"):
        assert [(lora.name, label) for lora, label in saved_steps_of(name, shelf.loras())] == wanted
    assert run_name("jeff-2024") == "jeff-2024"


def test_a_chosen_step_becomes_the_final_file_and_the_old_one_stays(shelf):
    path = final(shelf, "jeff-000001")
    assert path == shelf.lora_dir / "jeff.safetensors"
    assert shelf.value("jeff") == 1
    assert shelf.value("jeff-step00000300") == 3
    metadata = read_metadata(path)
    assert metadata["ss_output_name"] == "jeff"
    assert metadata["modelspec.usage_hint"] == "<lora:jeff:0.7>"
    assert json.loads(metadata[RECIPE_KEY])["preferred_weight"] == 0.7
    assert json.loads(path.with_suffix(".json").read_text())["preferred weight"] == 0.7


def test_choosing_to_and_fro_keeps_each_file_once(shelf):
    final(shelf, "jeff-000001")
    before = shelf.names()
    final(shelf, "jeff-step00000300")
    assert (shelf.value("jeff"), shelf.names()) == (3, before)
    final(shelf, "jeff", 0.9)
    assert (shelf.value("jeff"), shelf.names()) == (3, before)


def test_another_programs_file_is_not_replaced(shelf):
    shelf.write("jeff", 5, ours=False)
    with pytest.raises(UserError, match="another program"):
        final(shelf, "jeff-000001")
    assert shelf.value("jeff") == 5


def test_choosing_a_picture_says_what_it_did(shelf):
    said = choose(shelf, drawn(LoraRef("jeff-000001", 0.85)))
    assert shelf.changed == [shelf.lora_dir / "jeff.safetensors"]
    assert said.startswith("Done: jeff-000001 is now jeff, the card of jeff proposes strength 0.85, and ")
    with Image.open(shelf.lora_dir / "jeff.png") as kept:
        assert kept.text["parameters"] == "p\nSteps: 1"


def test_of_two_together_only_the_picture_is_taken(shelf):
    assert (
        choose(shelf, drawn(LoraRef("jeff", 0.85), LoraRef("jefferson", 0.5)))
        == "Done: this is the card's picture of jeff."
    )
    assert not (shelf.lora_dir / "jeff.json").exists()
    with pytest.raises(UserError, match="not in this picture"):
        choose(shelf, drawn(LoraRef("jeff", 0)))


def test_a_copy_holds_the_same_numbers_under_another_name(shelf):
    source, target = shelf.lora_dir / "jeff.safetensors", shelf.lora_dir / "ж.safetensors"
    copy_adapter(source, target, "ж")
    assert tensors_hash(source) == tensors_hash(target)
    assert tensors_hash(source) != tensors_hash(shelf.lora_dir / "jefferson.safetensors")
    assert read_metadata(target)["modelspec.usage_hint"] == "<lora:ж:0.8>"
    assert json.loads(read_metadata(target)[RECIPE_KEY])["output_name"] == "ж"
    copy_adapter(target, source, "jeff")
    assert read_metadata(source)["ss_steps"] == "300"
