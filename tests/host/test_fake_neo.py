"""The fake has the real one's pitfalls: without these, the contract would prove nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.fakes.neo_room import NeoRoom, fake_neo
from tests.host.helpers import learned_adapter, write_adapter


@pytest.fixture(scope="module")
def neo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NeoRoom]:
    with fake_neo(tmp_path_factory.mktemp("neo"), "sd1.safetensors") as room:
        room.picture()
        yield room


def _written(neo: NeoRoom, name: str) -> Path:
    def adapter():
        with neo.host.open_model() as model:
            return learned_adapter(model.adaptable_layers())

    return write_adapter(neo.host.lora_dir / f"{name}.safetensors", neo.run(adapter))


def test_merged_loras_stay_in_the_weights_when_only_another_copy_is_dropped(neo: NeoRoom) -> None:
    unet = neo.engine.forge_objects_original.unet
    weight = unet.model.diffusion_model.middle_block[0].in_layers[2]
    clean = weight.weight.clone()
    _written(neo, "one")
    neo.picture("a <lora:one:1>")
    assert not torch.equal(weight.weight, clean)
    # All copies share what is needed to take them out.
    assert unet.backup and not unet.patches
    assert not hasattr(unet, "lora_loader")


def test_what_is_merged_in_every_forward_outlives_an_unpatch(neo: NeoRoom) -> None:
    _written(neo, "online")
    neo.select(storage="float8-e4m3fn (fp16 LoRA)")
    try:
        neo.picture("a <lora:online:1>")
        unet = neo.engine.forge_objects.unet
        neo.run(unet.detach)
        assert any(getattr(part, "weight_function", None) for part in unet.model.modules())
    finally:
        neo.select()


def test_its_lora_files_have_no_cache_and_its_vae_no_choice(neo: NeoRoom) -> None:
    import networks
    from backend import stream

    assert not hasattr(networks.load_lora_state_dict, "cache_clear")
    assert not hasattr(stream, "stream_activated")
    with pytest.raises(TypeError):
        neo.engine.first_stage_model = neo.engine.forge_objects.vae.first_stage_model.encode(None, None)


def test_its_weights_of_eight_bits_let_no_gradient_through(neo: NeoRoom) -> None:
    neo.select("sd1-int8.safetensors")
    try:
        neo.picture()
        unet = neo.engine.forge_objects.unet.model.diffusion_model
        layer = next(part for part in unet.modules() if hasattr(getattr(part, "weight", None), "_qdata"))
        with pytest.raises(AssertionError):
            layer(torch.ones(1, layer.in_features, requires_grad=True))
    finally:
        neo.select()
