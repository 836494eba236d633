"""Pitfalls of Forge's own: its memory management, its defaults that calls share, and how it merges LoRAs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from lib_trainer.adapter.attach import Adapter
from lib_trainer.adapter.keys import FILE_KEYS
from lib_trainer.jobs.queue import Jobs
from lib_trainer.models.placement import RESIDENT
from tests.fakes.forge_room import ForgeRoom
from tests.host.contract_loras import learned, written
from tests.host.contract_runs import recipe, same_file, undisturbed
from tests.host.contract_watching import PATIENCE_S, STEPS, until
from tests.host.helpers import LOKR_TUCKER, noisy, on_device, parts_of


class ForgeMemory:
    def test_only_what_is_trained_stays_on_the_device(self, forge: ForgeRoom) -> None:
        from backend import memory_management

        def loaded() -> list[object]:
            return [item.model.model for item in memory_management.current_loaded_models]

        def work(text_encoder: bool) -> list[object]:
            with forge.host.open_model() as model:
                model.encode_images(torch.zeros(1, 3, 64, 64))
                model.encode_text(["a cat"], 1)
                model.prepare_training(RESIDENT, text_encoder=text_encoder)
                return loaded()

        forge.picture()
        unet, text, _ = parts_of(forge)
        assert forge.run(lambda: work(False)) == [unet]
        assert set(forge.run(lambda: work(True))) == {unet, text}
        assert forge.run(loaded) == []

    def test_weights_are_not_cast_on_a_second_stream_whatever_a_page_sets(
        self, forge: ForgeRoom, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Forge frees what it cast there after the forward pass, and backward would read it."""
        from backend import stream

        # Every page that is opened sets it again; a CPU has no second stream by itself.
        own = lambda: True  # noqa: E731 - told apart by identity
        monkeypatch.setattr(stream, "should_use_stream", own)

        def work() -> bool:
            with forge.host.open_model() as model:
                model.prepare_training(RESIDENT, text_encoder=False)
                return stream.should_use_stream()

        assert forge.run(work) is False
        assert stream.should_use_stream is own


class ForgePrediction:
    def test_drawing_options_are_no_longer_shared(self, forge: ForgeRoom) -> None:
        forge.picture()
        defaults = forge.engine.forge_objects.unet.model.diffusion_model.forward.__func__.__defaults__

        def work() -> None:
            with forge.host.open_model() as model, torch.no_grad():
                text = on_device(model, model.encode_text(["a cat"] * 2, 1))
                model.prepare_training(RESIDENT, text_encoder=False)
                x_t, t, sizes = noisy(model)
                model.predict(x_t, t, text, sizes)

        before = repr(defaults)
        forge.run(work)
        assert repr(defaults) == before


class ForgeLoras:
    def test_those_that_are_merged_in_every_forward_are_taken_out(self, forge: ForgeRoom) -> None:
        forge.select(storage="float8-e4m3fn (fp16 LoRA)")

        def work() -> None:
            with forge.host.open_model() as model:
                assert not any(hasattr(module, "forge_online_loras") for module in model.unet.modules())
                for layer in model.adaptable_layers()[:8]:
                    weight, _ = model.read_weight(layer, torch.zeros(1, device=model.device))
                    assert torch.equal(weight, layer.module.weight.to(weight))

        try:
            plain = forge.picture()
            written(forge, "online", learned(forge))
            assert forge.picture("a photo <lora:online:1>") != plain
            assert any(hasattr(m, "forge_online_loras") for m in forge.engine.forge_objects.unet.model.modules())
            forge.run(work)
            assert forge.picture() == plain
        finally:
            forge.select()

    def test_one_that_broke_while_it_was_merged_is_taken_out_whole(self, forge: ForgeRoom) -> None:
        clean = forge.clean_picture()
        # LoKr's tucker core, as other programs write it: Forge hands torch.kron a view of it, and that fails.
        path = forge.host.lora_dir / "broken.safetensors"
        save_file(_tucker_tensors(learned(forge, LOKR_TUCKER)), path, {"ss_network_module": "lycoris.kohya"})
        forge.run(lambda: forge.host.lora_changed(path))
        with pytest.raises(RuntimeError):
            forge.picture("a photo <lora:broken:1>")

        def first_weights() -> list[Tensor]:
            with forge.host.open_model() as model:
                like = torch.zeros(1, device=model.device)
                return [model.read_weight(layer, like)[0].clone() for layer in model.adaptable_layers()[:8]]

        weights = forge.run(first_weights)
        assert forge.picture() == clean
        assert all(torch.equal(now, then) for now, then in zip(forge.run(first_weights), weights, strict=True))


def _tucker_tensors(adapter: Adapter) -> dict[str, Tensor]:
    return {
        f"{layer}.{FILE_KEYS['lokr'][name]}": value.detach().clone()
        for layer, factors in adapter.layers.items()
        for name, value in factors.tensors.items()
    }


class ForgeWatching:
    def test_another_choice_at_the_top_of_the_page_counts_after_the_run(
        self, forge: ForgeRoom, pictures: Path, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from backend import stream
        from modules import sd_models

        clean = forge.clean_picture()
        before = undisturbed(forge, pictures, steps=STEPS)
        jobs.start(recipe(pictures, "chosen", max_train_steps=STEPS))
        until(jobs, lambda status: status.step >= 1)
        try:
            forge.select(storage="Automatic (fp16 LoRA)")
            chosen = dict(sd_models.model_data.forge_loading_parameters)
            # As every page does that is opened.
            monkeypatch.setattr(stream, "stream_activated", True, raising=False)
            assert jobs.wait(PATIENCE_S).state == "done"
            assert sd_models.model_data.forge_loading_parameters == chosen and stream.stream_activated
            assert same_file(before, jobs.status().path)
        finally:
            forge.select()
        assert forge.picture() == clean
