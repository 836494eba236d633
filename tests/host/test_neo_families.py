"""What NeoHost says and does for each kind of checkpoint, and in which forms it reads weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from lib_trainer.adapter.attach import new_adapter
from lib_trainer.dataset.cache_store import entry_path
from lib_trainer.errors import UserError
from lib_trainer.models.families import FAMILIES, SD2
from lib_trainer.models.placement import RECOMPUTED
from tests.fakes.neo_room import NeoRoom, fake_neo
from tests.host.contract_families import opened
from tests.host.helpers import LOHA, gradients


@pytest.fixture(scope="module")
def neo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NeoRoom]:
    with fake_neo(tmp_path_factory.mktemp("neo"), "sd1-int8.safetensors") as room:
        yield room


@pytest.fixture
def other(neo: NeoRoom) -> Iterator[NeoRoom]:
    yield neo
    neo.select()


def trained(neo: NeoRoom) -> tuple[dict[str, Tensor], set[str]]:
    """Gradients, and the types of the linear layers' weights."""

    def work() -> tuple[dict[str, Tensor], set[str]]:
        with neo.host.open_model() as model:
            layers = model.adaptable_layers()
            text = model.encode_text(["a cat"] * 2, 1)
            model.prepare_training(RECOMPUTED, text_encoder=False)
            kinds = {type(layer.module.weight).__name__ for layer in layers if layer.kind == "linear"}
            return gradients(model, new_adapter(layers, LOHA, 0), layers, text), kinds

    return neo.run(work)


def test_gradients_are_those_of_the_weights_that_the_eight_bits_stand_for(neo: NeoRoom) -> None:
    before = neo.picture()
    found, kinds = trained(neo)
    assert "QuantizedTensor" in kinds
    assert neo.picture() == before
    for part in neo.engine.forge_objects_original.unet.model.modules():
        weight = part._parameters.get("weight")
        if hasattr(weight, "_qdata"):
            part.weight = nn.Parameter(weight.dequantize(), requires_grad=False)
    wanted, kinds = trained(neo)
    assert kinds == {"Parameter"}
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-4, atol=1e-6)


def test_the_memory_profile_counts_eight_bits(neo: NeoRoom) -> None:
    def work() -> tuple[float, bool]:
        with neo.host.open_model() as model:
            memory_profile = model.memory_profile()
            return memory_profile.weight_bytes, memory_profile.is_dense

    neo.host.run_exclusive(lambda: setattr(_data(), "forge_hash", ""))
    weight_bytes, is_dense = neo.run(work)
    # Convolutions stay in 32 bits.
    assert 1 < weight_bytes < 4 and not is_dense


def _data():
    from modules.sd_models import model_data

    return model_data


def test_gguf_is_read_as_what_it_stands_for(neo: NeoRoom) -> None:
    from lib_trainer.host.neo.model import read_dense

    packed = nn.Parameter(torch.tensor([1, 2, 3], dtype=torch.uint8), requires_grad=False)
    packed.gguf_cls = SimpleNamespace(dequantize_pytorch=lambda tensor: tensor.to(torch.float16) / 2)
    # What keeps its number format in such a file has no class.
    plain = nn.Parameter(torch.ones(2, dtype=torch.float16), requires_grad=False)
    plain.gguf_cls = None
    like = torch.zeros(1, dtype=torch.bfloat16)
    assert torch.equal(read_dense(packed, like), torch.tensor([0.5, 1.0, 1.5], dtype=torch.bfloat16))
    assert torch.equal(read_dense(plain, like), torch.ones(2, dtype=torch.bfloat16))


def test_a_form_that_cannot_be_read_is_refused_by_name(neo: NeoRoom) -> None:
    layer = next(m for m in neo.engine.forge_objects_original.unet.model.modules() if isinstance(m, nn.Conv2d))
    own = layer.weight
    layer.weight = nn.Parameter(torch.zeros(own.shape, dtype=torch.int8), requires_grad=False)
    try:
        with pytest.raises(UserError, match=r"sd1-int8.safetensors holds its weights as Parameter of int8") as caught:
            opened(neo)
    finally:
        layer.weight = own
    assert "GGUF" in caught.value.hint


@pytest.mark.parametrize(
    ("checkpoint", "said"),
    [
        ("sd3.safetensors", "is a StableDiffusion3 checkpoint"),
        ("sd1-inpainting.safetensors", "inpainting"),
        ("sd1-edit.safetensors", "8 channels"),
        ("sdxl-rectified.safetensors", "rectified-flow"),
    ],
)
def test_what_cannot_be_trained_is_named(other: NeoRoom, checkpoint: str, said: str) -> None:
    other.select(checkpoint)
    with pytest.raises(UserError, match=said) as caught:
        opened(other)
    assert checkpoint in caught.value.message and caught.value.hint


def test_the_hint_names_every_family_that_is_trained(other: NeoRoom) -> None:
    other.select("sd3.safetensors")
    with pytest.raises(UserError) as caught:
        opened(other)
    labels = [family.label for family in FAMILIES.values() if family is not SD2]
    assert [label for label in labels if label not in caught.value.hint] == []


def test_a_caption_depends_on_the_sentence_that_lumina_gets_before_prompts(other: NeoRoom) -> None:
    from modules import shared

    other.select("lumina2.safetensors")
    own = shared.opts.data.get("neta_template_positive")
    first = opened(other).checkpoint
    shared.opts.data["neta_template_positive"] = "Draw it otherwise."
    try:
        second = opened(other).checkpoint
    finally:
        shared.opts.data["neta_template_positive"] = own
    assert (first.before_captions, second.before_captions) == ("Draw it well.", "Draw it otherwise.")
    folder, caption = Path("cache"), {"caption": "a cat"}
    assert entry_path(folder, first, caption) != entry_path(folder, second, caption)
