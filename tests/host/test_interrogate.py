"""The WebUI's interrogators: the sentence where weights are missing, and its own options put back."""

from __future__ import annotations

import sys
import types

import pytest
from PIL import Image

from lib_trainer.errors import UserError
from lib_trainer.host.webui.interrogate import BLIP, DEEPBOORU, WebuiInterrogator
from lib_trainer.host.webui.tagger_extension import extension_taggers

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


class WaifuTagger:
    """As in the extension: it asks for its file by the name that its module imported."""

    model_path = "model.onnx"

    def __init__(self, module):
        self._module = module

    def interrogate(self, picture):
        self._module.hf_hub_download(repo_id="SmilingWolf/x", filename=self.model_path)
        return {"general": 0.9}, {"blue_eyes": 0.5, "1girl": 0.9, "rin_(vocaloid)": 0.4, "hat": 0.1}


class DanbooruProject:
    """It would have packages installed."""

    project_path = "models/deepdanbooru/x"

    def interrogate(self, picture):
        pytest.fail("it would install TensorFlow")


@pytest.fixture
def extension(monkeypatch):
    """The modules that the WD14 tagger extension leaves loaded; `there` decides whether its weights are."""
    module, utils = types.ModuleType("tagger.interrogator"), types.ModuleType("tagger.utils")

    def hf_hub_download(repo_id, filename, local_files_only=False):
        assert local_files_only, "it would fetch"
        if not module.there:
            raise FileNotFoundError(filename)

    module.hf_hub_download, module.there = hf_hub_download, True
    utils.interrogators = {"wd14-vit.v2": WaifuTagger(module), "dd": DanbooruProject()}
    monkeypatch.setitem(sys.modules, "tagger.interrogator", module)
    monkeypatch.setitem(sys.modules, "tagger.utils", utils)
    monkeypatch.setattr("lib_trainer.host.webui.tagger_extension.find_spec", lambda _name: True)
    return module


def test_the_tagger_extension_tags_by_its_own_code_and_fetches_nothing(extension):
    (tagger,) = extension_taggers()
    assert tagger.label == "WD14 extension: wd14-vit.v2"
    fetch = extension.hf_hub_download
    assert tagger.caption(PICTURE, 0.35) == "1girl, blue eyes, rin \\(vocaloid\\)"
    extension.there = False
    with pytest.raises(UserError, match=r"needs its weights \(model.onnx\)"):
        tagger.caption(PICTURE, 0.35)
    assert extension.hf_hub_download is fetch, "the extension's own page may fetch"


def test_without_the_tagger_extension_or_its_package_there_is_a_sentence_at_most(extension, monkeypatch):
    monkeypatch.setattr("lib_trainer.host.webui.tagger_extension.find_spec", lambda _name: None)
    with pytest.raises(UserError, match="onnxruntime"):
        extension_taggers()[0].caption(PICTURE, 0.35)
    monkeypatch.delitem(sys.modules, "tagger.utils")
    assert extension_taggers() == []
