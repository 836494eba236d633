from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio")

import gradio as gr
import torch
from PIL import Image
from safetensors.torch import save_file

from lib_trainer.config.recipe import Recipe
from lib_trainer.errors import OutOfMemory
from lib_trainer.events import Event, Notice
from lib_trainer.host.access import Access
from lib_trainer.jobs.queue import Jobs
from lib_trainer.memory.plan import GIB
from lib_trainer.memory.planner import plan_from_profile
from lib_trainer.memory.unet_blocks import unet_blocks
from lib_trainer.models.families import SD1, SDXL
from lib_trainer.models.placement import MemoryProfile
from lib_trainer.ui.actions import Actions
from lib_trainer.ui.form import Form
from lib_trainer.ui.memory_bar import UNKNOWN, show_memory
from lib_trainer.ui.proposals import Proposed
from tests.ui.fakes import FakeHost
from tests.waiting import PATIENCE_S


def bar(folder: Path, memory_profile: MemoryProfile | None, **values: Any) -> str:
    host = FakeHost(folder)
    host.memory_profile = lambda: memory_profile
    return show_memory(host, {**Recipe().flat(), **values})


def test_the_bar_says_how_much_of_how_much_and_its_parts(tmp_path: Path) -> None:
    memory_profile = MemoryProfile(SDXL, SDXL.shape, 2, available_bytes=round(7.2 * GIB), total_bytes=8 * GIB)
    html = bar(tmp_path, memory_profile, resolution_px="1024,1024")
    assert re.search(r"<b>\d\.\d of 7\.2 GB</b>", html) and "over" not in html
    widths = [float(width) for width in re.findall(r"width: ([\d.]+)%", html)]
    assert 80 < sum(widths) <= 100
    for part in ("the checkpoint", "the adapter", "its optimizer", "activations", "reserve"):
        assert f'title="{part}: ' in html


def test_it_is_red_with_a_sentence_when_it_does_not_fit(tmp_path: Path) -> None:
    html = bar(tmp_path, MemoryProfile(SDXL, SDXL.shape, 2, available_bytes=GIB, total_bytes=8 * GIB))
    assert "train-lora-memory over" in html and "This will probably not fit." in html


def test_on_a_cpu_there_is_no_limit(tmp_path: Path) -> None:
    assert re.search(r"<b>\d+\.\d GB</b>", bar(tmp_path, MemoryProfile(SD1, SD1.shape, 4)))


def test_layers_and_ranks_of_a_continued_lora_are_counted_where_the_recipe_takes_them(tmp_path: Path) -> None:
    sites = [site for block in unet_blocks(SD1.shape, 512, 512) for site in block.sites]
    shapes = {site.name: site.operation.shape for site in sites if site.name.endswith("attn2_to_k")}
    tensors = {f"{name}.lora_up.weight": torch.zeros(out, 300) for name, (out, _) in shapes.items()}
    tensors |= {f"{name}.lora_down.weight": torch.zeros(300, inner) for name, (_, inner) in shapes.items()}
    host = FakeHost(tmp_path)
    host.lora_dir.mkdir(parents=True, exist_ok=True)
    save_file(tensors, host.lora_dir / "style.safetensors")
    profile = MemoryProfile(SD1, SD1.shape, 2, available_bytes=7 * GIB, total_bytes=8 * GIB)
    plan = plan_from_profile(profile, Recipe(), host.lora_dir / "style.safetensors")
    assert plan.parts.adapter == sum(tensor.nbytes for tensor in tensors.values())
    start = {"network_weights": "style", "dim_from_weights": True}
    assert f"{plan.total_bytes / GIB:.1f} of 7.0 GB" in bar(tmp_path, profile, **start)
    plain = bar(tmp_path, profile)
    assert bar(tmp_path, profile, **start) != plain == bar(tmp_path, profile, **{**start, "network_weights": "missing"})
    by_path = {**start, "network_weights": str(host.lora_dir / "style.safetensors")}
    assert bar(tmp_path, profile, **by_path) == bar(tmp_path, profile, **start)
    # A page that other machines reach may not ask for files outside the allowed folders.
    host.memory_profile = lambda: profile
    remote = Access(local_only=False)
    assert show_memory(host, {**Recipe().flat(), **by_path}, remote) == ""


def test_frozen_loras_are_counted_by_name_and_by_path(tmp_path: Path) -> None:
    host = FakeHost(tmp_path)
    host.lora_dir.mkdir(parents=True, exist_ok=True)
    path = host.lora_dir / "style.safetensors"
    layer = "lora_unet_down_blocks_0_attentions_0_proj_in"
    tensors = {f"{layer}.lora_up.weight": torch.zeros(320, 8), f"{layer}.lora_down.weight": torch.zeros(8, 320)}
    save_file({**tensors, f"{layer}.alpha": torch.zeros(1), "bundle_emb.x.clip_l": torch.zeros(9, 768)}, path)
    profile = MemoryProfile(SD1, SD1.shape, 2, available_bytes=7 * GIB, total_bytes=8 * GIB)
    plain, ours = plan_from_profile(profile, Recipe()), plan_from_profile(profile, Recipe(), None, [path])
    assert ours.parts.base - plain.parts.base == sum(tensor.nbytes for tensor in tensors.values())
    shown = bar(tmp_path, profile, base_weights="style")
    assert shown == bar(tmp_path, profile, base_weights=str(path)) != bar(tmp_path, profile)


def test_before_a_checkpoint_is_loaded_that_is_said(tmp_path: Path) -> None:
    assert UNKNOWN in bar(tmp_path, None)


@pytest.mark.parametrize("values", [{"network_dim": "many"}, {"network_dim": None}, {"train_batch_size": -3}])
def test_values_that_cannot_be_leave_it_empty(tmp_path: Path, values: dict[str, Any]) -> None:
    assert bar(tmp_path, MemoryProfile(SD1, SD1.shape, 2), **values) == ""


def test_a_run_that_ran_out_of_memory_offers_a_smaller_plan_with_one_click(tmp_path: Path) -> None:
    pictures = tmp_path / "2_jeff"
    pictures.mkdir()
    Image.new("RGB", (64, 64)).save(pictures / "a.png")
    started: list[Recipe] = []

    def run(_host: FakeHost, recipe: Recipe, _folder: Path | None = None) -> Iterator[Event]:
        started.append(recipe)
        yield Notice("begun")
        if len(started) == 1:
            settings = {"vram_budget_gb": 5.5}
            raise OutOfMemory("The memory is not enough.", "Train with a plan for less memory.", settings)

    host = FakeHost(tmp_path)
    jobs = Jobs(host, run)
    with gr.Blocks():
        form = Form({})
        form.place_rest()
    actions = Actions(host, jobs, form)
    values = {**Recipe().flat(), "train_data_dir": str(pictures), "output_name": "jeff"}
    entered = ["face", None, "{}", "", Proposed(), *(values[name] for name in form.inputs)]
    actions.start.train(*entered)
    assert jobs.wait(PATIENCE_S).remedy == {"vram_budget_gb": 5.5}
    assert {"visible": True}.items() <= actions.live.show()[-3].items()
    outputs = actions.start.train_with_less(*entered)
    assert jobs.wait(PATIENCE_S).state != "failed"
    assert [recipe.training.vram_budget_gb for recipe in started] == [0.0, 5.5]
    assert outputs[1 + list(form.inputs).index("vram_budget_gb")]["value"] == 5.5
    assert {"visible": False}.items() <= actions.live.show()[-3].items()
