"""What A1111Host says and does for each kind of checkpoint, and with little memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lib_trainer.errors import UserError
from lib_trainer.models.placement import RECOMPUTED
from lib_trainer.utils.file_mark import file_mark
from tests.fakes.a1111_room import A1111Room, fake_a1111
from tests.host.contract_families import Families, opened
from tests.host.contract_first_load import FirstLoad
from tests.host.contract_model import Prediction
from tests.host.helpers import differing, gradients, learned_adapter, state_of


@pytest.fixture(scope="module", params=["sd2-v.safetensors"])
def room(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[A1111Room]:
    with fake_a1111(tmp_path_factory.mktemp("a1111"), request.param) as room:
        yield room


class TestFirstLoad(FirstLoad):
    pass


class TestPrediction(Prediction):
    pass


class TestFamilies(Families):
    pass


def _gradients(room: A1111Room) -> dict[str, torch.Tensor]:
    with room.host.open_model() as model:
        layers = model.adaptable_layers()
        text = model.encode_text(["a cat"] * 2, 1)
        model.encode_images(torch.zeros(1, 3, 64, 64))
        model.prepare_training(RECOMPUTED, text_encoder=False)
        return gradients(model, learned_adapter(layers), layers, text)


@pytest.mark.parametrize(
    ("checkpoint", "said"), [("sd3.safetensors", "cannot be trained"), ("sd1-inpainting.safetensors", "inpainting")]
)
def test_what_cannot_be_trained_is_named(room: A1111Room, checkpoint: str, said: str) -> None:
    room.select(checkpoint)
    with pytest.raises(UserError, match=said) as caught:
        opened(room)
    assert checkpoint in caught.value.message and caught.value.hint
    if said != "inpainting":
        assert said in room.host.describe()
    room.select()


def test_a_checkpoint_that_predicts_the_picture_is_refused(room: A1111Room, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(room)
    monkeypatch.setattr(room.host._resident(), "parameterization", "x0")
    with pytest.raises(UserError, match="predicts x0"):
        opened(room)


def test_without_hashes_the_file_itself_names_the_cache(room: A1111Room, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(room)
    info = room.host._resident().sd_checkpoint_info
    monkeypatch.setattr(info, "sha256", None)
    monkeypatch.setattr(info, "shorthash", None)
    assert opened(room).checkpoint.sha256 == file_mark(Path(info.filename)) != ""


def test_no_checkpoint_at_all(room: A1111Room) -> None:
    from modules import sd_models

    kept = dict(sd_models.checkpoints_list), dict(sd_models.checkpoint_aliases)
    sd_models.checkpoints_list.clear()
    sd_models.checkpoint_aliases.clear()
    try:
        assert room.host.describe().startswith("no checkpoint")
        assert room.host.memory_profile() is None
        with pytest.raises(UserError, match="No checkpoint"):
            opened(room)
    finally:
        sd_models.checkpoints_list.update(kept[0])
        sd_models.checkpoint_aliases.update(kept[1])


def test_a_vae_of_its_own_is_named_in_what_the_cache_is_kept_by(room: A1111Room) -> None:
    from modules import sd_vae

    room.picture()
    kept, sd_vae.loaded_vae_file = sd_vae.loaded_vae_file, "/models/VAE/vivid.safetensors"
    try:
        assert opened(room).checkpoint.vae == "vivid.safetensors"
    finally:
        sd_vae.loaded_vae_file = kept


def test_a_vae_that_makes_no_numbers_is_an_error_and_keeps_its_own(room: A1111Room) -> None:
    def work() -> None:
        with room.host.open_model() as model:
            model.encode_images(torch.full((1, 3, 64, 64), torch.nan))

    stored = room.precision.vae
    with pytest.raises(UserError, match="VAE"):
        room.run(work)
    assert room.precision.vae == stored


def test_a_vae_that_half_precision_is_too_little_for_encodes_in_float32(room: A1111Room) -> None:
    def work() -> tuple[torch.Tensor, torch.dtype]:
        with room.host.open_model() as model:
            vae = room.parts()[2].half()
            # A number on the way that is too large for float16.
            vae.encoder.conv_in.register_forward_hook(lambda _layer, _inputs, found: found * 1e5 / 1e5)
            latents = model.encode_images(torch.ones(1, 3, 64, 64))
            return latents, next(vae.parameters()).dtype

    try:
        latents, stored = room.run(work)
        assert torch.isfinite(latents).all() and stored == torch.float16
    finally:
        from modules import sd_models

        sd_models.model_data.__init__()


def test_half_precision_is_trained_in_the_dtype_of_the_input(room: A1111Room) -> None:
    """A card's weights are float16; what is trained here has the CPU's float32."""
    room.picture()
    unet = room.parts()[0]
    unet.half()
    try:
        found = room.run(lambda: _gradients(room))
    finally:
        unet.float()
    assert all(torch.isfinite(gradient).all() and gradient.abs().max() > 0 for gradient in found.values())


@pytest.mark.parametrize("option", ["medvram", "lowvram"])
@pytest.mark.parametrize("checkpoint", ["sd1.safetensors", "sdxl.safetensors"])
def test_parts_that_hooks_move_stay_while_the_model_is_open(room: A1111Room, checkpoint: str, option: str) -> None:
    from modules import lowvram, sd_models, shared

    def hooks() -> list[tuple[str, int]]:
        model = shared.sd_model
        return [(name, len(part._forward_pre_hooks)) for name, part in model.named_modules() if part._forward_pre_hooks]

    def while_open() -> list[tuple[str, int]]:
        with room.host.open_model():
            return hooks()

    sd_models.model_data.__init__()
    room.select(checkpoint)
    plain = room.run(lambda: _gradients(room))
    sd_models.model_data.__init__()
    try:
        setattr(shared.cmd_opts, option, True)
        drawn, parts = room.picture(), room.parts()
        before, own = state_of(parts), hooks()
        assert own and room.run(while_open) == []
        found = room.run(lambda: _gradients(room))
        assert all(torch.equal(gradient, plain[name]) for name, gradient in found.items())
        assert differing(before, state_of(parts)) == [] and hooks() == own and lowvram.module_in_gpu is None
        assert room.picture() == drawn
    finally:
        setattr(shared.cmd_opts, option, False)
        sd_models.model_data.__init__()
        room.select()


def test_a_checkpoint_that_is_only_selected_is_known_by_its_file(room: A1111Room) -> None:
    from modules import sd_models, shared

    for checkpoint in ("sd1.safetensors", "sdxl.safetensors"):
        sd_models.model_data.__init__()
        room.select(checkpoint)
        announced = room.host.memory_profile()
        assert sd_models.model_data.sd_model is None and "loaded when training starts" in room.host.describe()
        room.picture()
        assert room.host.memory_profile() == announced
    shared.cmd_opts.no_half = False
    try:
        room.select("sd1.safetensors")
        assert room.host.memory_profile().weight_bytes == 2.0
    finally:
        shared.cmd_opts.no_half = True
        room.select()


def test_a_file_that_is_no_checkpoint_is_left_to_loading(tmp_path: Path, room: A1111Room) -> None:
    from modules import sd_models

    (tmp_path / "odd.ckpt").write_bytes(b"no checkpoint")
    kept = sd_models.select_checkpoint
    sd_models.select_checkpoint = lambda: SimpleNamespace(filename=str(tmp_path / "odd.ckpt"))
    try:
        assert room.host.memory_profile() is None
    finally:
        sd_models.select_checkpoint = kept
