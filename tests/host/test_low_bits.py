"""Training on what Forge holds in four bits. Forge's own release of bitsandbytes does that on graphics cards only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lib_trainer.adapter.attach import attached, new_adapter
from lib_trainer.models.placement import RECOMPUTED, RESIDENT
from tests.fakes.forge_room import ForgeRoom, fake_forge
from tests.host.helpers import LOHA, gradients, noisy, on_device

bitsandbytes = pytest.importorskip("bitsandbytes")
RELEASE = tuple(int(part) for part in bitsandbytes.__version__.split(".")[:2])
pytestmark = pytest.mark.skipif(RELEASE < (0, 49), reason="bitsandbytes before 0.49 has no CPU kernels")


@pytest.fixture
def forge(tmp_path: Path) -> Iterator[ForgeRoom]:
    with fake_forge(tmp_path, "sd1-fp16.safetensors") as room:
        room.select(storage="bnb-nf4")
        yield room


def trained(forge: ForgeRoom) -> tuple[dict[str, Tensor], list[str]]:
    """Gradients, and the types of the linear layers' weights."""

    def work() -> tuple[dict[str, Tensor], list[str]]:
        with forge.host.open_model() as model:
            layers = model.adaptable_layers()
            text = model.encode_text(["a cat"] * 2, 1)
            model.prepare_training(RECOMPUTED, text_encoder=False)
            kinds = [type(layer.module.weight).__name__ for layer in layers if layer.kind == "linear"]
            return gradients(model, new_adapter(layers, LOHA, 0), layers, text), kinds

    return forge.run(work)


def test_gradients_are_those_of_the_weights_that_the_four_bits_stand_for(forge: ForgeRoom) -> None:
    before = forge.picture()
    found, kinds = trained(forge)
    assert set(kinds) == {"ForgeParams4bit"}
    assert forge.picture() == before
    with dense(forge):
        wanted, kinds = trained(forge)
    assert "ForgeParams4bit" not in kinds
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-4, atol=1e-6)


@contextmanager
def dense(forge: ForgeRoom) -> Iterator[None]:
    """The same weights, written out."""
    from backend.operations_bnb import functional_dequantize_4bit

    packed = {}
    for part in forge.engine.forge_objects_original.unet.model.diffusion_model.modules():
        weight = part._parameters.get("weight")
        if hasattr(weight, "bnb_quantized"):
            packed[part] = weight
            part.weight = nn.Parameter(functional_dequantize_4bit(weight), requires_grad=False)
    try:
        yield
    finally:
        for part, weight in packed.items():
            part.weight = weight


def test_no_dequantised_copy_is_kept_for_backward(forge: ForgeRoom) -> None:
    def kept(storage: str) -> int:
        forge.select(storage=storage)

        def work() -> int:
            with forge.host.open_model() as model:
                layers = model.adaptable_layers()
                adapter, text = new_adapter(layers, LOHA, 0), model.encode_text(["a cat"] * 2, 1)
                model.prepare_training(RESIDENT, text_encoder=False)
                x_t, t, sizes = noisy(model)
                found = {parameter.untyped_storage().data_ptr(): 0 for parameter in model.unet.parameters()}

                def see(tensor: Tensor) -> Tensor:
                    storage = tensor.untyped_storage()
                    found.setdefault(storage.data_ptr(), 0 if isinstance(tensor, nn.Parameter) else storage.nbytes())
                    return tensor

                hooks = torch.autograd.graph.saved_tensors_hooks(see, lambda tensor: tensor)
                with attached(adapter, layers, model.read_weight), hooks:
                    y = model.predict(x_t, t, on_device(model, text), sizes)
                # The graph holds what was counted until here, so no address was used twice.
                del y
                return sum(found.values())

        return forge.run(work)

    assert kept("bnb-nf4") == kept("Automatic")


def test_the_memory_profile_counts_four_bits_and_their_scales(forge: ForgeRoom) -> None:
    def work() -> tuple[float, bool]:
        with forge.host.open_model() as model:
            memory_profile = model.memory_profile()
            return memory_profile.weight_bytes, memory_profile.is_dense

    weight_bytes, is_dense = forge.run(work)
    linear = 0.5 + 4 / 64
    # Convolutions stay in half precision.
    assert linear < weight_bytes < 2 and not is_dense
