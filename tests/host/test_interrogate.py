"""The WebUI's interrogators: the sentence where weights are missing, and its own options put back."""

from __future__ import annotations

import sys
import types

import pytest
from PIL import Image

from lib_trainer.errors import UserError
from lib_trainer.host.webui.interrogate import BLIP, DEEPBOORU, WebuiInterrogator

PICTURE = Image.new("RGB", (8, 8))


@pytest.fixture
def webui(tmp_path, monkeypatch):
    """The WebUI's modules as far as interrogators touch them."""
    opts = types.SimpleNamespace(data={"interrogate_deepbooru_score_threshold": 0.5})
    shared = types.SimpleNamespace(opts=opts, cmd_opts=types.SimpleNamespace(no_half=True))
    model = types.SimpleNamespace(tag=lambda picture: f"above {opts.data['interrogate_deepbooru_score_threshold']}")
    modules = types.ModuleType("modules")
    modules.shared, modules.paths = shared, types.SimpleNamespace(models_path=str(tmp_path))
    modules.deepbooru = types.SimpleNamespace(model=model)
    monkeypatch.setitem(sys.modules, "modules", modules)
    return shared


@pytest.mark.parametrize(
    ("name", "file"), [(BLIP, "model_base_caption_capfilt_large.pth"), (DEEPBOORU, "model-resnet_custom_v3.pt")]
)
def test_missing_weights_are_named_and_not_fetched(webui, tmp_path, name, file):
    webui.interrogator = types.SimpleNamespace(blip_model=None, load_blip_model=lambda: pytest.fail("it would fetch"))
    with pytest.raises(UserError, match=file) as caught:
        WebuiInterrogator(name).caption(PICTURE, 0.5)
    assert str(tmp_path) in caught.value.hint


def test_deepbooru_takes_our_threshold_for_one_picture(webui, tmp_path):
    (tmp_path / "torch_deepdanbooru").mkdir()
    (tmp_path / "torch_deepdanbooru/model.pt").write_bytes(b"weights")
    assert WebuiInterrogator(DEEPBOORU).caption(PICTURE, 0.25) == "above 0.25"
    assert webui.opts.data == {"interrogate_deepbooru_score_threshold": 0.5}
