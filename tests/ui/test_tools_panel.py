"""The panel of LoRA tools: what it writes, lists and refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest.importorskip("gradio")

import gradio as gr

from lib_trainer.adapter.attach import Adapter
from lib_trainer.adapter.io import adapter_tensors, read_adapter, save_adapter
from lib_trainer.adapter.modules import AdapterModule
from lib_trainer.host.access import Access
from lib_trainer.ui.tools_panel import EXTRACT, INTO, MERGE, RESIZE, ToolsActions, bind_tools, choose_tool, place_tools
from tests.ui.fakes import FakeHost

LAYER = "lora_unet_mid_block_attentions_0_proj_in"


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    host = FakeHost(tmp_path)
    for name in ("jeff", "style"):
        module = AdapterModule("locon", {"up": torch.randn(6, 4), "down": torch.randn(4, 5)}, 4.0)
        save_adapter(host.lora_dir / f"{name}.safetensors", adapter_tensors(Adapter({LAYER: module}), "fp32"), {})
    return host


def pressed(host: FakeHost, access: Access | None = None, *, replace: bool = False, **entered):
    values = {"tool": MERGE, "loras": "<lora:jeff:0.8> <lora:style:0.5>", "checkpoint": "", "base": ""}
    values |= {"rank": 0, "energy": 1.0, "precision": "fp32", "name": "both", **entered}
    actions = ToolsActions(host, access or Access())
    return (actions.replace_existing if replace else actions.run)(*values.values())


def delta(host: FakeHost, name: str) -> torch.Tensor:
    return read_adapter(host.lora_dir / f"{name}.safetensors").factors[LAYER].delta().detach()


def test_loras_are_merged_at_their_strengths_and_the_result_is_listed_at_once(host):
    message, replace = pressed(host)
    assert "&lt;lora:both:1&gt;: 1 layers of rank 5 to 5" in message and replace["visible"] is False
    assert host.changed == [host.lora_dir / "both.safetensors"]
    wanted = 0.8 * delta(host, "jeff") + 0.5 * delta(host, "style")
    torch.testing.assert_close(delta(host, "both"), wanted, rtol=1e-4, atol=1e-4)
    pressed(host, tool=RESIZE, loras="<lora:jeff:0.3>", rank=2, name="small")
    assert read_adapter(host.lora_dir / "small.safetensors").factors[LAYER].rank == 2


def test_nothing_is_overwritten_without_a_yes(host):
    before = (host.lora_dir / "jeff.safetensors").read_bytes()
    message, replace = pressed(host, name="jeff")
    assert "jeff.safetensors exists already" in message and replace["visible"] is True
    assert (host.lora_dir / "jeff.safetensors").read_bytes() == before and host.changed == []
    message, replace = pressed(host, name="jeff", replace=True)
    assert "lora:jeff:1" in message and replace["visible"] is False
    assert (host.lora_dir / "jeff.safetensors").read_bytes() != before


def test_checkpoints_outside_the_allowed_folders_are_refused(host, tmp_path):
    (tmp_path / "outside").mkdir()
    secret = tmp_path / "outside" / "model.safetensors"
    secret.write_bytes(b"")
    open_to_others = Access(local_only=False, folders=(tmp_path / "pictures",))
    for tool in (INTO, EXTRACT):
        message, _ = pressed(host, open_to_others, tool=tool, checkpoint=str(secret), base=str(secret))
        assert "lies outside the folders" in message
    assert not host.changed and not (secret.parent / "both.safetensors").exists()


@pytest.mark.parametrize(
    ("entered", "said"),
    [
        ({"name": "../both"}, "needs a name"),
        ({"loras": "<lora:jef:1>"}, "no LoRA named jef"),
        ({"loras": ""}, "No LoRA is named"),
        ({"loras": "<lora:jeff:much>"}, "&#x27;much&#x27; is not a strength"),
        ({"tool": RESIZE}, "Resize takes one LoRA"),
        ({"tool": RESIZE, "loras": "<lora:jeff:1>", "energy": 2}, "an energy above 0"),
        ({"tool": EXTRACT, "checkpoint": "gone.safetensors"}, "no such checkpoint file"),
    ],
)
def test_what_is_wrong_is_said(host, entered, said):
    message, replace = pressed(host, **entered)
    assert said in message and replace["visible"] is False and host.changed == []


def test_each_tool_shows_the_inputs_that_it_reads():
    _, loras, checkpoint, base, cut, _ = [update.get("visible") for update in choose_tool(INTO)]
    assert (loras, checkpoint, base, cut) == (True, True, False, False)


@pytest.mark.parametrize("version", ["3.41.2", "4.40.0"])
def test_progress_is_tracked_where_a_webui_without_a_queue_still_starts(host, version, monkeypatch):
    monkeypatch.setattr(gr, "__version__", version)
    with gr.Blocks() as blocks:
        bind_tools(host, None, place_tools(), {"queue": False})
    functions = blocks.fns.values() if isinstance(blocks.fns, dict) else blocks.fns
    assert any(function.tracks_progress for function in functions) == (version[0] == "4")
