"""The checkpoint is borrowed free of LoRAs and able to be trained on, and given back as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lib_trainer.adapter.attach import attached, new_adapter
from lib_trainer.host.base import RECOMPUTED, RESIDENT, HostModel, Layer, Placement
from lib_trainer.memory.unet import stretches
from tests.fakes.forge_room import ForgeRoom
from tests.host.helpers import (
    LOHA,
    differing,
    gradients,
    learned_adapter,
    noisy,
    on_device,
    parts_of,
    relative_error,
    state_of,
    without_room,
    write_adapter,
)  # fmt: skip


class Failure(Exception):
    pass


class Borrowing:
    def test_every_weight_can_be_saved_for_backward_and_none_asks_for_a_gradient(self, forge: ForgeRoom) -> None:
        def work() -> list[str]:
            with forge.host.open_model() as model:
                model.prepare_training(RESIDENT, text_encoder=False)
                parameters = dict(model.unet.named_parameters())
                assert not any(parameter.requires_grad for parameter in parameters.values())
                # Reading `_version` is what autograd does with what it saves; it fails on inference tensors.
                return [name for name, p in parameters.items() if p.is_inference() or p._version < 0]

        assert forge.run(work) == []

    def test_gradients_reach_every_factor_and_no_saving_of_memory_changes_them(self, forge: ForgeRoom) -> None:
        savings = (RECOMPUTED, Placement(streamed=1.0), Placement(frozenset([0, 2]), int8=True, streamed=0.5))

        def work() -> list[dict[str, torch.Tensor]]:
            found = []
            for placement in (RESIDENT, *savings):
                with forge.host.open_model() as model:
                    layers = model.adaptable_layers()
                    adapter = learned_adapter(layers)
                    text = model.encode_text(["a cat", ""], 1)
                    model.prepare_training(placement, text_encoder=False)
                    found.append(gradients(model, adapter, layers, text))
            return found

        plain, *saving = forge.run(work)
        for name, gradient in plain.items():
            assert torch.isfinite(gradient).all(), name
            assert gradient.abs().max() > 0, name
        for placement, gradients_there in zip(savings, saving, strict=True):
            if placement.int8:
                # Rounded to 8 bits, a weight is off by a hundredth, and the errors of many layers add up.
                whole, rounded = (torch.cat([g[name].flatten() for name in plain]) for g in (plain, gradients_there))
                assert 1e-5 < (rounded - whole).norm() / whole.norm() < 0.1
                continue
            for name, gradient in plain.items():
                # With random weights some gradients are of 1e-9, where the rounding of float32 shows.
                assert relative_error(gradients_there[name], gradient) < 3e-4, (name, placement)

    def test_gradients_reach_the_text_encoders(self, forge: ForgeRoom) -> None:
        def work() -> dict[str, float]:
            with forge.host.open_model() as model:
                layers = model.text_layers()
                adapter = learned_adapter(layers).to(model.device)
                model.prepare_training(RECOMPUTED, text_encoder=True)
                x_t, t, sizes = noisy(model)
                with attached(adapter, layers, model.read_weight):
                    text = model.encode_text(["a cat", "a dog"], 1, grad=True)
                    model.predict(x_t, t, text, sizes).square().mean().backward()
                found = {name: parameter.grad for name, parameter in adapter.named_parameters()}
                return {name: 0.0 if grad is None else float(grad.abs().max()) for name, grad in found.items()}

        found = forge.run(work)
        # SDXL reads its first encoder before the last layer, which then learns nothing.
        first = [int(name.split("layers_")[1].split("_")[0]) for name in found if "lora_te1_" in name]
        unread = f"lora_te1_text_model_encoder_layers_{max(first)}_" if first else "none"
        silent = {name for name, largest in found.items() if not largest > 0}
        assert silent == {name for name in found if unread in name}

    def test_what_it_will_find_is_known_beforehand(self, forge: ForgeRoom) -> None:
        def work() -> tuple[Any, list[tuple[int, ...]], int]:
            with forge.host.open_model() as model:
                layers = model.adaptable_layers()
                blocks = [p for p in model.unet.modules() if type(p).__name__ in ("BasicTransformerBlock", "ResBlock")]
                return model.outlook(), [layer.shape for layer in layers], len(blocks)

        outlook, shapes, blocks = forge.run(work)
        # How much is free at this moment is another matter.
        assert without_room(outlook) == without_room(forge.host.outlook())
        parts = stretches(outlook.shape, 64, 64)
        planned = [stage.operation.shape for part in parts for stage in part.stages if stage.adapted]
        assert sorted(planned) == sorted(shapes)
        assert sum(part.recomputable for part in parts) == blocks
        assert outlook.is_dense and outlook.weight_bytes in (2, 4)

    @pytest.mark.parametrize(
        ("text_encoder", "placement"),
        [(False, RECOMPUTED), (True, RECOMPUTED), (True, Placement(int8=True, streamed=0.5))],
    )
    def test_everything_is_given_back(self, forge: ForgeRoom, text_encoder: bool, placement: Placement) -> None:
        from backend import stream
        from backend.nn import unet as forge_unet

        forge.picture()
        before = state_of(parts_of(forge)), forge_unet.attention_function, stream.stream_activated

        def work() -> None:
            with forge.host.open_model() as model:
                model.encode_images(torch.zeros(1, 3, 64, 64))
                text = model.encode_text(["a cat"] * 2, 2)
                model.prepare_training(placement, text_encoder=text_encoder)
                layers = model.adaptable_layers()
                gradients(model, new_adapter(layers, LOHA, 0), layers, text)

        forge.run(work)
        after = state_of(parts_of(forge)), forge_unet.attention_function, stream.stream_activated
        assert differing(before[0], after[0]) == []
        assert before[1:] == after[1:]

    @pytest.mark.parametrize("phase", ["open", "images", "text", "prepare", "predict", "step", "end"])
    def test_the_same_picture_after_a_failure(self, forge: ForgeRoom, phase: str) -> None:
        before, state = forge.clean_picture(), state_of(parts_of(forge))

        def reach(name: str) -> None:
            if name == phase:
                raise Failure(name)

        def work() -> None:
            with forge.host.open_model() as model:
                _use(model, reach)

        with pytest.raises(Failure):
            forge.run(work)
        assert differing(state, state_of(parts_of(forge))) == []
        assert forge.picture() == before

    def test_training_after_a_lora_starts_from_clean_weights(self, forge: ForgeRoom) -> None:
        clean = forge.clean_picture()
        layers, *untouched = forge.run(lambda: _seen(forge))
        write_adapter(forge.host.lora_dir / "other.safetensors", learned_adapter(layers))
        forge.run(lambda: forge.host.lora_changed(forge.host.lora_dir / "other.safetensors"))
        drawn = forge.picture("a photo <lora:other:1>")
        assert drawn != clean
        _, *seen = forge.run(lambda: _seen(forge))
        assert all(torch.equal(now, before) for now, before in zip(seen, untouched, strict=True))
        assert forge.picture() == clean
        assert forge.picture("a photo <lora:other:1>") == drawn

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

    def test_the_threads_own_autograd_modes_are_left_alone(self, forge: ForgeRoom) -> None:
        def work() -> tuple[bool, ...]:
            with torch.inference_mode():
                with forge.host.open_model() as model:
                    model.prepare_training(RESIDENT, text_encoder=False)
                    inside = torch.is_inference_mode_enabled(), torch.is_grad_enabled()
                return (*inside, torch.is_inference_mode_enabled(), torch.is_grad_enabled())

        assert forge.run(work) == (False, True, True, False)


def _seen(forge: ForgeRoom) -> tuple[list[Layer], Tensor, Tensor, Tensor]:
    """The layers; a weight as it is read at once, the text's hidden states, and a prediction."""
    with forge.host.open_model() as model, torch.no_grad():
        layers = model.adaptable_layers()
        weight = model.read_weight(layers[3], torch.zeros(1, device=model.device))[0].clone()
        text = model.encode_text(["a cat"] * 2, 1)
        model.prepare_training(RESIDENT, text_encoder=False)
        x_t, t, sizes = noisy(model)
        return layers, weight, text.context, model.predict(x_t, t, on_device(model, text), sizes)


def _use(model: HostModel, reach: Callable[[str], None]) -> None:
    """A run in small, that stops where `reach` raises."""
    reach("open")
    model.encode_images(torch.zeros(1, 3, 64, 64))
    reach("images")
    text = on_device(model, model.encode_text(["(a cat)"] * 2, 2))
    reach("text")
    model.prepare_training(RECOMPUTED, text_encoder=False)
    reach("prepare")
    layers = model.adaptable_layers()
    adapter = learned_adapter(layers).to(model.device)
    x_t, t, sizes = noisy(model)
    with attached(adapter, layers, model.read_weight):
        loss = model.predict(x_t, t, text, sizes).square().mean()
        reach("predict")
        loss.backward()
        reach("step")
    reach("end")
