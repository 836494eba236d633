"""Likeness by a CLIP on the disk: a stand-in of random weights, in the layout that transformers writes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from lib_trainer.evaluation.final_report import leave_report
from lib_trainer.evaluation.likeness import compare_with_dataset, find_clip
from tests.evaluation.test_report import FIRST, SECOND


@pytest.fixture(autouse=True)
def no_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Hugging Face's cache, empty."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def write_clip(folder: Path, *, safe: bool = True) -> Path:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(1)
    encoder = CLIPVisionModelWithProjection(CLIPVisionConfig(**small, image_size=32, patch_size=8, projection_dim=8))
    encoder.save_pretrained(folder)
    if not safe:
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    return folder


def write_pictures(folder: Path) -> list[Path]:
    folder.mkdir()
    paths = [folder / f"{colour}.png" for colour in ("red", "green", "blue")]
    for path in paths:
        Image.new("RGB", (48, 40), path.stem).save(path)
    return paths


def test_the_nearest_training_picture_is_named(tmp_path: Path) -> None:
    write_clip(tmp_path / "models" / "clip_vision" / "vit")
    pictures = [*write_pictures(tmp_path / "pictures"), tmp_path / "pictures" / "gone.png"]
    drawn = {"step 8 at 1": Image.new("RGB", (80, 96), "green"), "step 4 at 0.8": Image.open(pictures[2])}
    first, second = compare_with_dataset(tmp_path / "models", drawn, pictures)
    assert (first.label, first.nearest) == ("step 8 at 1", ("green.png", pytest.approx(1, abs=1e-4)))
    assert (second.label, second.nearest[0]) == ("step 4 at 0.8", "blue.png")
    assert -1 <= first.mean < 1, "the average is over all three"


def test_without_a_clip_nothing_is_shown(tmp_path: Path, no_cache: Path) -> None:
    drawn, pictures = {"x": Image.new("RGB", (32, 32))}, write_pictures(tmp_path / "pictures")
    assert compare_with_dataset(tmp_path / "models", drawn, pictures) == []
    write_clip(tmp_path / "models" / "CLIP" / "pickled", safe=False)
    assert find_clip(tmp_path / "models") is None, "a pickle is left alone"
    text = tmp_path / "models" / "clip" / "text"
    text.mkdir(parents=True)
    (text / "model.safetensors").touch()
    for content in ('{"model_type": "clip_text_model"}', "[]", "{"):
        (text / "config.json").write_text(content)
        assert find_clip(tmp_path / "models") is None
    cached = write_clip(no_cache / "models--openai--clip-vit-base-patch32" / "snapshots" / "1")
    assert find_clip(tmp_path / "models") == cached


def test_a_broken_clip_costs_the_report_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "clip" / "broken"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "clip"}')
    (folder / "model.safetensors").write_bytes(b"no tensors")
    host = SimpleNamespace(lora_dir=tmp_path / "models" / "Lora")
    compared = SimpleNamespace(
        sampling=SimpleNamespace(host=host), pictures={"step 8 at 1": Image.new("RGB", (32, 32))}, png=b""
    )
    evaluation = SimpleNamespace(found=[FIRST, SECOND], pictures=write_pictures(tmp_path / "pictures"))
    path = tmp_path / "jeff.report.html"
    (said,) = leave_report(path, evaluation, SECOND, compared)
    assert "Likeness could not be measured" in said.text and "Done." in path.read_text("utf-8")
