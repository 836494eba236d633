"""What ReforgeHost says and does for each kind of checkpoint, and the pitfalls of the fake one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from lib_trainer.errors import UserError
from tests.fakes.reforge_room import ReforgeRoom, fake_reforge
from tests.host.contract_families import Families, opened
from tests.host.contract_first_load import FirstLoad
from tests.host.contract_loras import learned, written
from tests.host.contract_model import Prediction


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReforgeRoom]:
    with fake_reforge(tmp_path_factory.mktemp("reforge"), "sd2-v.safetensors") as room:
        yield room


@pytest.fixture
def other(room: ReforgeRoom) -> Iterator[ReforgeRoom]:
    yield room
    room.select()


class TestFirstLoad(FirstLoad):
    pass


class TestPrediction(Prediction):
    pass


class TestFamilies(Families):
    pass


@pytest.mark.parametrize(
    ("checkpoint", "said"),
    [
        ("sd1-inpainting.safetensors", "inpainting"),
        ("sdxl-edm.safetensors", "EDM"),
        ("sdxl-rectified.safetensors", "rectified-flow"),
    ],
)
def test_what_cannot_be_trained_is_named(other: ReforgeRoom, checkpoint: str, said: str) -> None:
    other.select(checkpoint)
    with pytest.raises(UserError, match=said) as caught:
        opened(other)
    assert checkpoint in caught.value.message and caught.value.hint


def test_scaled_weights_are_read_as_what_they_stand_for(room: ReforgeRoom) -> None:
    def work() -> None:
        with room.host.open_model() as model:
            layer = next(layer for layer in model.adaptable_layers() if layer.kind == "linear")
            like = torch.zeros(1, device=model.device)
            plain, _ = model.read_weight(layer, like)
            layer.module.scale_weight = nn.Parameter(torch.tensor(0.5), requires_grad=False)
            try:
                assert torch.equal(model.read_weight(layer, like)[0], plain * 0.5)
            finally:
                del layer.module.scale_weight

    room.run(work)


def test_text_encoders_of_another_file_are_named_in_what_the_cache_is_kept_by(room: ReforgeRoom) -> None:
    from modules.shared import opts

    opts.sd_text_encoder = "TE: vivid"
    try:
        assert "vivid" in opened(room).checkpoint.vae
        opts.sd_text_encoder = "Automatic"
        assert opened(room).checkpoint.vae == ""
    finally:
        del opts.data["sd_text_encoder"]


def test_the_fakes_copies_keep_what_they_have_replaced_for_themselves(room: ReforgeRoom) -> None:
    written(room, "one", learned(room))
    room.picture("a <lora:one:1>")
    used = room._sd_model.forge_objects.unet
    original = room._sd_model.forge_objects_original.unet
    assert used.backup and not original.backup and used.model is original.model
    room.run(original.unpatch_model)
    assert used.backup


def test_the_fake_adds_in_place_and_its_attention_lets_no_gradient_through(room: ReforgeRoom) -> None:
    room.picture()
    from ldm_patched.ldm.modules.attention import BasicTransformerBlock, attention_sub_quad

    q, k, v = torch.randn(3, 1, 4, 8, requires_grad=True)
    with pytest.raises(RuntimeError):
        attention_sub_quad(q, k, v, 2).sum().backward()
    with pytest.raises(RuntimeError, match="inplace"):
        block = BasicTransformerBlock(8, 2, 4, 8)
        block(torch.randn(1, 3, 8, requires_grad=True) * 1, torch.randn(1, 2, 8)).sum().backward()
