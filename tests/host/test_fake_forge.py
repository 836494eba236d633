"""The fake has the real one's pitfalls: without these, the contract would prove nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.fakes.forge_room import ForgeRoom, fake_forge
from tests.host.helpers import learned_adapter, write_adapter


@pytest.fixture(scope="module")
def forge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForgeRoom]:
    with fake_forge(tmp_path_factory.mktemp("forge"), "sd1.safetensors") as room:
        room.picture()
        yield room


def _forward(forge: ForgeRoom, unet: torch.nn.Module) -> torch.Tensor:
    context = torch.randn(1, 77, 16)
    return unet(torch.randn(1, 4, 8, 8), torch.tensor([5.0]), context=context, transformer_options={})


def test_weights_are_inference_tensors_that_ask_for_gradients(forge: ForgeRoom) -> None:
    unet = forge.engine.forge_objects.unet.model.diffusion_model
    assert all(parameter.is_inference() and parameter.requires_grad for parameter in unet.parameters())
    with pytest.raises(RuntimeError, match="Inference tensors"):
        _forward(forge, unet).sum().backward()


def test_its_linear_is_no_linear_and_its_convolution_is_one(forge: ForgeRoom) -> None:
    unet = forge.engine.forge_objects.unet.model.diffusion_model
    kinds = {type(module).__name__: module for module in unet.modules()}
    assert not isinstance(kinds["Linear"], torch.nn.Linear)
    assert isinstance(kinds["Conv2d"], torch.nn.Conv2d)


def test_it_adds_in_place_and_cannot_checkpoint(forge: ForgeRoom) -> None:
    from backend.nn.unet import BasicTransformerBlock, checkpoint

    block = BasicTransformerBlock(8, 2, 4, 8)
    with pytest.raises(RuntimeError, match="inplace"):
        block(torch.randn(1, 3, 8, requires_grad=True) * 1, torch.randn(1, 2, 8)).sum().backward()
    with pytest.raises(NotImplementedError):
        checkpoint(lambda: None, (), None, True)


def test_its_attention_lets_no_gradient_through(forge: ForgeRoom) -> None:
    from backend.attention import attention_pytorch, attention_sub_quad

    q, k, v = torch.randn(3, 1, 4, 8, requires_grad=True)
    assert torch.allclose(attention_sub_quad(q, k, v, 2), attention_pytorch(q, k, v, 2), atol=1e-6)
    with pytest.raises(RuntimeError):
        attention_sub_quad(q, k, v, 2).sum().backward()


def test_merged_loras_stay_in_the_weights_and_the_model_remembers_them_by_name(forge: ForgeRoom) -> None:
    def adapter(seed: int):
        with forge.host.open_model() as model:
            return learned_adapter(model.adaptable_layers(), seed=seed)

    path = write_adapter(forge.host.lora_dir / "one.safetensors", forge.run(lambda: adapter(1)))
    unet = forge.engine.forge_objects.unet.model.diffusion_model
    clean = unet.middle_block[0].in_layers[2].weight.clone()
    first = forge.picture("a <lora:one:1>")
    assert not torch.equal(unet.middle_block[0].in_layers[2].weight, clean)
    write_adapter(path, forge.run(lambda: adapter(2)))
    assert forge.picture("a <lora:one:1>") == first


def test_one_unknown_name_drops_all_of_a_prompt(forge: ForgeRoom) -> None:
    from modules import processing

    def draw(prompt: str) -> bytes:
        job = processing.StableDiffusionProcessingTxt2Img(prompt=prompt, seed=7, steps=1, width=64, height=64)
        return processing.process_images(job).images[0].tobytes()

    assert forge.run(lambda: draw("a <lora:one:1> <lora:none:1>")) == forge.run(lambda: draw("a "))


def test_its_thread_swallows_what_its_jobs_raise(forge: ForgeRoom) -> None:
    from modules_forge import main_thread

    assert main_thread.run_and_wait_result(lambda: 1 / 0) is None


def test_its_packages_are_gone_afterwards() -> None:
    # In a process of its own, because this one has the module's fake in it.
    code = (
        "import sys, tempfile, pathlib\n"
        "from tests.fakes.forge_room import fake_forge\n"
        "before = list(sys.path)\n"
        "with fake_forge(pathlib.Path(tempfile.mkdtemp(), 'forge'), 'sd1.safetensors'):\n"
        "    assert 'modules.shared' in sys.modules\n"
        "assert sys.path == before\n"
        "assert not {'modules', 'modules_forge', 'backend', 'networks'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True)
