"""The checkpoint opens free of LoRAs and trainable, and is restored exactly when it is closed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lib_trainer.adapter.attach import Adapter, attached
from lib_trainer.memory.unet_blocks import unet_blocks
from lib_trainer.models.base import HostModel
from lib_trainer.models.placement import RECOMPUTED, RESIDENT, Placement
from tests.fakes.room import WebuiRoom
from tests.host.contract_loras import learned, written
from tests.host.helpers import (
    differing,
    gradients,
    learned_adapter,
    noisy,
    on_device,
    parts_of,
    relative_error,
    state_of,
    text_layers,
    without_room,
)  # fmt: skip


class Failure(Exception):
    pass


class OpenModel:
    def test_every_weight_can_be_saved_for_backward_and_none_asks_for_a_gradient(self, room: WebuiRoom) -> None:
        def work() -> list[str]:
            with room.host.open_model() as model:
                model.prepare_training(RESIDENT, text_encoder=False)
                parameters = dict(model.unet.named_parameters())
                assert not any(parameter.requires_grad for parameter in parameters.values())
                # Reading `_version` is what autograd does with what it saves; it fails on inference tensors.
                return [name for name, p in parameters.items() if p.is_inference() or p._version < 0]

        assert room.run(work) == []

    def test_gradients_reach_every_factor_and_no_saving_of_memory_changes_them(self, room: WebuiRoom) -> None:
        adapter = learned(room)
        savings = (RECOMPUTED, Placement(streamed=1.0), Placement(frozenset([0, 2]), int8=True, streamed=0.5))

        def work() -> list[dict[str, torch.Tensor]]:
            found = []
            for placement in (RESIDENT, *savings):
                with room.host.open_model() as model:
                    layers = model.adaptable_layers()
                    text = model.encode_text(["a cat", ""], 1)
                    model.prepare_training(placement, text_encoder=False)
                    found.append(gradients(model, adapter, layers, text))
            return found

        plain, *saving = room.run(work)
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

    def test_gradients_reach_the_text_encoders(self, room: WebuiRoom) -> None:
        def work() -> dict[str, float]:
            with room.host.open_model() as model:
                layers = text_layers(room, model)
                adapter = learned_adapter(layers).to(model.device)
                model.prepare_training(RECOMPUTED, text_encoder=True)
                x_t, t, sizes = noisy(model)
                with attached(adapter, layers, model.read_weight):
                    text = model.encode_text(["a cat", "a dog"], 1, grad=True)
                    model.predict(x_t, t, text, sizes).square().mean().backward()
                found = {name: parameter.grad for name, parameter in adapter.named_parameters()}
                return {name: 0.0 if grad is None else float(grad.abs().max()) for name, grad in found.items()}

        found = room.run(work)
        # SDXL reads its first encoder before the last layer, which then learns nothing.
        first = [int(name.split("layers_")[1].split("_")[0]) for name in found if "lora_te1_" in name]
        unread = f"lora_te1_text_model_encoder_layers_{max(first)}_" if first else "none"
        silent = {name for name, largest in found.items() if not largest > 0}
        assert silent == {name for name in found if unread in name}

    def test_what_it_will_find_is_known_beforehand(self, room: WebuiRoom) -> None:
        def work() -> tuple[Any, list[tuple[str, tuple[int, ...]]], int]:
            with room.host.open_model() as model:
                layers = model.adaptable_layers()
                blocks = [p for p in model.unet.modules() if type(p).__name__ in ("BasicTransformerBlock", "ResBlock")]
                return model.memory_profile(), [(layer.name, layer.shape) for layer in layers], len(blocks)

        memory_profile, layers, blocks = room.run(work)
        # How much is free at this moment is another matter.
        assert without_room(memory_profile) == without_room(room.host.memory_profile())
        parts = unet_blocks(memory_profile.shape, 64, 64)
        planned = [(site.name, site.operation.shape) for part in parts for site in part.sites if site.adapted]
        assert sorted(planned) == sorted(layers)
        assert sum(part.recomputable for part in parts) == blocks
        assert memory_profile.is_dense and memory_profile.weight_bytes in (2, 4)

    @pytest.mark.parametrize(
        ("text_encoder", "placement"),
        [(False, RECOMPUTED), (True, RECOMPUTED), (True, Placement(int8=True, streamed=0.5))],
    )
    def test_everything_is_given_back(self, room: WebuiRoom, text_encoder: bool, placement: Placement) -> None:
        before, adapter = (state_of(parts_of(room)), room.switches()), learned(room)

        def work() -> None:
            with room.host.open_model() as model:
                model.encode_images(torch.zeros(1, 3, 64, 64))
                text = model.encode_text(["a cat"] * 2, 2)
                model.prepare_training(placement, text_encoder=text_encoder)
                gradients(model, adapter, model.adaptable_layers(), text)

        room.run(work)
        after = state_of(parts_of(room)), room.switches()
        assert differing(before[0], after[0]) == []
        assert before[1] == after[1]

    @pytest.mark.parametrize("phase", ["open", "images", "text", "prepare", "predict", "step", "end"])
    def test_the_same_picture_after_a_failure(self, room: WebuiRoom, phase: str) -> None:
        adapter = learned(room)
        before, state = room.clean_picture(), state_of(parts_of(room))

        def reach(name: str) -> None:
            if name == phase:
                raise Failure(name)

        def work() -> None:
            with room.host.open_model() as model:
                _use(model, adapter, reach)

        with pytest.raises(Failure):
            room.run(work)
        assert differing(state, state_of(parts_of(room))) == []
        assert room.picture() == before

    def test_training_after_a_lora_starts_from_clean_weights(self, room: WebuiRoom) -> None:
        clean = room.clean_picture()
        untouched = room.run(lambda: _seen(room))
        written(room, "other", learned(room))
        drawn = room.picture("a photo <lora:other:1>")
        assert drawn != clean
        seen = room.run(lambda: _seen(room))
        assert all(torch.equal(now, before) for now, before in zip(seen, untouched, strict=True))
        assert room.picture() == clean
        assert room.picture("a photo <lora:other:1>") == drawn

    def test_the_threads_own_autograd_modes_are_left_alone(self, room: WebuiRoom) -> None:
        def work() -> tuple[bool, ...]:
            with torch.inference_mode():
                with room.host.open_model() as model:
                    model.prepare_training(RESIDENT, text_encoder=False)
                    inside = torch.is_inference_mode_enabled(), torch.is_grad_enabled()
                return (*inside, torch.is_inference_mode_enabled(), torch.is_grad_enabled())

        assert room.run(work) == (False, True, True, False)


def _seen(room: WebuiRoom) -> tuple[Tensor, Tensor, Tensor]:
    """A weight as it is read at once, the text's hidden states, and a prediction."""
    with room.host.open_model() as model, torch.no_grad():
        weight = model.read_weight(model.adaptable_layers()[3], torch.zeros(1, device=model.device))[0].clone()
        text = model.encode_text(["a cat"] * 2, 1)
        model.prepare_training(RESIDENT, text_encoder=False)
        x_t, t, sizes = noisy(model)
        return weight, text.context, model.predict(x_t, t, on_device(model, text), sizes)


def _use(model: HostModel, adapter: Adapter, reach: Callable[[str], None]) -> None:
    """A run in small, that stops where `reach` raises."""
    reach("open")
    model.encode_images(torch.zeros(1, 3, 64, 64))
    reach("images")
    text = on_device(model, model.encode_text(["(a cat)"] * 2, 2))
    reach("text")
    model.prepare_training(RECOMPUTED, text_encoder=False)
    reach("prepare")
    x_t, t, sizes = noisy(model)
    with attached(adapter, model.adaptable_layers(), model.read_weight):
        loss = model.predict(x_t, t, text, sizes).square().mean()
        reach("predict")
        loss.backward()
        reach("step")
    reach("end")
