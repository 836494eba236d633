"""The standalone host: what it encodes, predicts, adapts and draws, and that it gives everything back."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from lib_trainer.adapter.attach import attached
from lib_trainer.errors import UserError
from lib_trainer.host.base import GenerateRequest
from lib_trainer.host.standalone.host import StandaloneHost
from lib_trainer.host.standalone.merge_lora import merged_loras, parse_prompt
from lib_trainer.models.families import SD1, SDXL
from lib_trainer.models.placement import RECOMPUTED
from tests.host.standalone_models import CPU, FAMILIES, inputs, model_of, save_random_adapter
from tests.host.tiny_pipelines import tiny_pipeline
from tests.waiting import PATIENCE_S


@pytest.fixture
def host(tmp_path):
    tiny_pipeline(SD1, tmp_path).save_pretrained(tmp_path / "tiny")
    host = StandaloneHost(tmp_path / "out", tmp_path / "tiny")
    host.device = CPU
    return host


def test_tags_are_read_and_taken_out():
    prompt, wanted = parse_prompt("portrait of <lora:jeff:0.8> in <lora:my style:-0.6> style <lora:x>")
    assert prompt == "portrait of in style"
    assert [(item.name, item.strength) for item in wanted] == [("jeff", 0.8), ("my style", -0.6), ("x", 1.0)]
    with pytest.raises(UserError, match="strong"):
        parse_prompt("<lora:jeff:strong>")


def test_brackets_are_written_as_for_a_webui():
    assert parse_prompt(r"jeff \(actor\) <lora:a:1>")[0] == "jeff (actor)"


@FAMILIES
def test_a_merged_file_computes_what_the_attached_adapter_does(family, tmp_path):
    model = model_of(tiny_pipeline(family, tmp_path))
    layers, given = model.adaptable_layers(), inputs(model)
    adapter = save_random_adapter(model, tmp_path / "a.safetensors", 1)
    with torch.no_grad():
        plain = model.predict(*given)
        with attached(adapter, layers, model.read_weight, strength=0.5):
            wanted = model.predict(*given)
        with merged_loras(layers, [(tmp_path / "a.safetensors", 0.5)]):
            merged = model.predict(*given)
        assert torch.equal(model.predict(*given), plain)
    assert (wanted - plain).abs().max() > 0.1
    torch.testing.assert_close(merged, wanted, atol=1e-4, rtol=1e-4)


def test_a_file_of_another_family_is_refused_and_nothing_changes(tmp_path):
    model = model_of(tiny_pipeline(SD1, tmp_path))
    save_random_adapter(model, tmp_path / "good.safetensors", 1)
    save_random_adapter(model_of(tiny_pipeline(SDXL, tmp_path)), tmp_path / "sdxl.safetensors", 1)
    before = {name: value.clone() for name, value in model.unet.state_dict().items()}
    files = [(tmp_path / "good.safetensors", 1.0), (tmp_path / "sdxl.safetensors", 1.0)]
    with pytest.raises(UserError, match=r"sdxl\.safetensors"), merged_loras(model.adaptable_layers(), files):
        pass
    assert all(torch.equal(before[name], value) for name, value in model.unet.state_dict().items())


def request(prompt: str, **changes) -> GenerateRequest:
    return GenerateRequest(**{"prompt": prompt, "width_px": 64, "height_px": 64, "steps": 1, "seed": 7, **changes})


def drawn(host, prompt: str, **changes) -> list[np.ndarray]:
    return [np.asarray(picture, dtype=np.int16) for picture in host.generate(request(prompt, **changes))]


def test_the_same_seed_draws_the_same_picture_and_loras_leave_no_trace(host):
    with host.open_model() as model:
        save_random_adapter(model, host.lora_dir / "one.safetensors", 1)
        save_random_adapter(model, host.lora_dir / "folder" / "two.safetensors", 2)
        save_random_adapter(model, host.lora_dir / "text.safetensors", 3, layers=model.text_layers())
    plain = drawn(host, "a cat")[0]
    assert plain.shape == (64, 64, 3)
    seen = [plain, drawn(host, "a cat", seed=8)[0]]
    for tag in ("<lora:one:0.5>", "<lora:two:0.5>", "<lora:one:0.5><lora:two:0.5>", "<lora:text:1>", "<lora:one:1>"):
        seen.append(drawn(host, f"a cat {tag}")[0])
        assert np.array_equal(drawn(host, "a cat")[0], plain)
    for number, picture in enumerate(seen):
        assert not any(np.array_equal(picture, other) for other in seen[:number])
    assert np.array_equal(drawn(host, "a cat <lora:one:0>")[0], plain)


@pytest.mark.parametrize("sampler", ["Euler", "Euler a", "DDIM", "DPM++ 2M"])
def test_every_picture_of_a_batch_has_its_own_seed(sampler, host):
    first, second = drawn(host, "a cat", batch_size=2, sampler=sampler)
    assert np.abs(first - drawn(host, "a cat", sampler=sampler)[0]).max() <= 1
    assert np.abs(second - drawn(host, "a cat", seed=8, sampler=sampler)[0]).max() <= 1
    assert np.abs(first - second).max() > 1


def test_guidance_and_negative_prompt_have_a_say(host):
    pictures = [drawn(host, "cat")[0], drawn(host, "cat", cfg_scale=1.0)[0], drawn(host, "cat", negative_prompt="x")[0]]
    assert not any(np.array_equal(a, b) for a, b in zip(pictures, pictures[1:] + pictures[:1], strict=True))


def test_pictures_can_be_drawn_while_training(host):
    with host.open_model() as model:
        layers = model.adaptable_layers()
        adapter = save_random_adapter(model, host.lora_dir / "one.safetensors", 1)
        given = inputs(model)
        plain = drawn(host, "a cat")[0]
        model.prepare_training(RECOMPUTED, text_encoder=False)
        with attached(adapter, layers, model.read_weight):
            before = model.predict(*given)
            assert np.abs(drawn(host, "a cat")[0] - drawn(host, "a cat <lora:one:0.5>")[0]).max() > 1
            assert not np.array_equal(drawn(host, "a cat")[0], plain)
            after = model.predict(*given)
            assert torch.equal(after, before)
            after.square().mean().backward()
            assert all(parameter.grad is not None for parameter in adapter.parameters())
    merged = drawn(host, "a cat <lora:one:1>")[0]
    with host.open_model() as model, attached(adapter, layers, model.read_weight):
        assert np.abs(drawn(host, "a cat")[0] - merged).max() <= 1
    assert np.array_equal(drawn(host, "a cat")[0], plain)


def test_sdxl_draws(tmp_path):
    tiny_pipeline(SDXL, tmp_path).save_pretrained(tmp_path / "xl")
    host = StandaloneHost(tmp_path, tmp_path / "xl")
    assert drawn(host, "a cat", width_px=72)[0].shape == (64, 72, 3)


def test_bad_requests_are_refused_before_anything_is_loaded(host):
    host.checkpoint = host.lora_dir / "never looked at"
    for bad, said in (
        (request("a <lora:nobody:0.5>"), "no LoRA named nobody"),
        (request("a", width_px=60), "60×64"),
        (request("a", sampler="PLMS"), "PLMS"),
    ):
        with pytest.raises(UserError, match=said):
            host.generate(bad)


def test_one_caller_at_a_time_and_errors_come_back(host):
    inside, order = threading.Event(), []

    def slow():
        inside.set()
        threading.Event().wait(0.1)
        order.append("first")

    thread = threading.Thread(target=host.run_exclusive, args=(slow,))
    thread.start()
    assert inside.wait(PATIENCE_S)
    host.run_exclusive(lambda: order.append("second"))
    thread.join(PATIENCE_S)
    assert order == ["first", "second"]
    with pytest.raises(ZeroDivisionError):
        host.run_exclusive(lambda: 1 / 0)
    assert host.run_exclusive(lambda: "free again") == "free again"


def test_it_says_what_it_works_with(host):
    assert host.describe() == "tiny · SD 1.x · float32 · on the CPU"
    assert host.native_size_px == 64
    with host.open_model() as model:
        assert (model.family, model.prediction, len(model.alphas_cumprod)) == (SD1, "epsilon", 1000)
        assert model.checkpoint.name == "tiny"
        assert len(model.checkpoint.sha256) == 64
