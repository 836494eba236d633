"""What ForgeHost says and does for each kind of checkpoint."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from lib_trainer.errors import UserError
from lib_trainer.host.forge.inspect import profile_of_file
from lib_trainer.models.families import SDXL
from lib_trainer.models.placement import RECOMPUTED
from lib_trainer.utils.file_mark import file_mark
from tests.fakes.forge_room import ForgeRoom, fake_forge
from tests.host.contract_families import Families, opened
from tests.host.contract_forge import ForgePrediction
from tests.host.contract_model import Prediction
from tests.host.helpers import gradients, learned_adapter
from tests.host.tiny_pipelines import tiny_pipeline, write_single_file


@pytest.fixture(scope="module", params=["sd1-fp16.safetensors", "sd2-v.safetensors"])
def forge(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForgeRoom]:
    with fake_forge(tmp_path_factory.mktemp("forge"), request.param) as room:
        yield room


class TestPrediction(Prediction):
    pass


class TestForgePrediction(ForgePrediction):
    pass


class TestFamilies(Families):
    pass


def test_a_separate_vae_is_named_in_what_the_cache_is_kept_by(forge: ForgeRoom) -> None:
    from modules.shared import opts

    opts.forge_additional_modules = ["/models/VAE/vivid.safetensors"]
    try:
        assert "vivid" in opened(forge).checkpoint.vae
    finally:
        opts.forge_additional_modules = []
    assert opened(forge).checkpoint.vae == ""


@pytest.mark.parametrize(
    ("checkpoint", "said"),
    [
        ("sd3.safetensors", "StableDiffusion3"),
        ("sd1-inpainting.safetensors", "inpainting"),
        ("sd1-edit.safetensors", "8 channels"),
        ("sdxl-rectified.safetensors", "rectified-flow"),
        ("flux-kontext.safetensors", "editing"),
        ("flux-alone.safetensors", "without its CLIP"),
    ],
)
def test_what_cannot_be_trained_is_named(forge: ForgeRoom, checkpoint: str, said: str) -> None:
    forge.select(checkpoint)
    with pytest.raises(UserError, match=said) as caught:
        opened(forge)
    assert checkpoint in caught.value.message and caught.value.hint
    if said == "StableDiffusion3":
        assert "cannot be trained" in forge.host.describe()
    forge.select()


def test_without_hashes_the_file_itself_names_the_cache(forge: ForgeRoom, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with Forge's --no-hashing: a file of the same name must not find the latents of another."""
    opened(forge)
    engine = forge.host._resident()
    monkeypatch.setattr(engine.sd_checkpoint_info, "sha256", None)
    monkeypatch.setattr(engine, "sd_model_hash", None)
    assert opened(forge).checkpoint.sha256 == file_mark(Path(engine.sd_checkpoint_info.filename)) != ""


@pytest.mark.parametrize("prediction", ["sample", "edm"])
def test_other_predictions_are_refused(forge: ForgeRoom, monkeypatch: pytest.MonkeyPatch, prediction: str) -> None:
    opened(forge)
    predictor = forge.host._resident().forge_objects_original.unet.model.predictor
    monkeypatch.setattr(predictor, "prediction_type", prediction)
    with pytest.raises(UserError, match=f"predicts {prediction}"):
        opened(forge)


def test_no_checkpoint_at_all(tmp_path: Path, forge: ForgeRoom) -> None:
    from modules import sd_models

    kept = dict(sd_models.checkpoints_list), dict(sd_models.checkpoint_aliases)
    sd_models.checkpoints_list.clear()
    sd_models.checkpoint_aliases.clear()
    try:
        forge.select("")
        assert forge.host.describe().startswith("no checkpoint")
        with pytest.raises(UserError, match="No checkpoint"):
            opened(forge)
    finally:
        sd_models.checkpoints_list.update(kept[0])
        sd_models.checkpoint_aliases.update(kept[1])
        forge.select()


def test_a_file_may_be_announced_before_any_checkpoint_is_loaded(tmp_path: Path) -> None:
    code = (
        "import pathlib\n"
        "from tests.fakes.forge_room import fake_forge\n"
        f"with fake_forge(pathlib.Path({str(tmp_path)!r}, 'forge'), 'sd1.safetensors') as room:\n"
        "    room.run(lambda: room.host.lora_changed(room.host.lora_dir / 'new.safetensors'))\n"
        "    assert not hasattr(room.engine, 'forge_objects')\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True)


def test_a_vae_that_makes_no_numbers_is_an_error(forge: ForgeRoom) -> None:
    def work() -> None:
        with forge.host.open_model() as model:
            model.encode_images(torch.full((1, 3, 64, 64), torch.nan))

    with pytest.raises(UserError, match="VAE"):
        forge.run(work)


def test_half_precision_is_trained_in_the_dtype_of_the_input(forge: ForgeRoom) -> None:
    def work() -> dict[str, torch.Tensor]:
        with forge.host.open_model() as model:
            layers = model.adaptable_layers()
            text = model.encode_text(["a cat"] * 2, 1)
            model.prepare_training(RECOMPUTED, text_encoder=False)
            return gradients(model, learned_adapter(layers), layers, text)

    before = forge.clean_picture()
    found = forge.run(work)
    assert all(torch.isfinite(gradient).all() and gradient.abs().max() > 0 for gradient in found.values())
    assert forge.picture() == before


@pytest.mark.parametrize(("storage", "weight_bytes"), [(None, 4.0), (torch.float8_e4m3fn, 1.0), ("nf4", 0.5625)])
def test_a_checkpoint_that_is_only_selected_is_known_by_its_file(
    forge: ForgeRoom, tmp_path: Path, storage: object, weight_bytes: float
) -> None:
    (tmp_path / "parts").mkdir()
    path = write_single_file(tiny_pipeline(SDXL, tmp_path / "parts"), SDXL, tmp_path / "tiny.safetensors")
    memory_profile = profile_of_file(path, storage)
    assert (memory_profile.family, memory_profile.weight_bytes, memory_profile.is_dense) == (
        SDXL,
        weight_bytes,
        storage is None,
    )
    assert memory_profile.shape.channels and memory_profile.shape.pooled_dim
    (tmp_path / "notes.safetensors").write_bytes(b"no checkpoint")
    for name in ("notes.safetensors", "none.safetensors"):
        assert profile_of_file(tmp_path / name, storage) is None
