"""Adapter files in the host: what was trained is what is drawn, and a rewritten file is what the next picture shows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lib_trainer.adapter.attach import Adapter, attached
from lib_trainer.adapter.frozen import FrozenLoras
from lib_trainer.adapter.io import read_adapter
from lib_trainer.adapter.start import factors_for
from lib_trainer.config.recipe import AdapterConfig
from lib_trainer.errors import UserError
from lib_trainer.models.base import HostModel, Layer, TextCond
from lib_trainer.models.placement import RECOMPUTED, RESIDENT
from tests.fakes.room import WebuiRoom
from tests.host.helpers import (
    LOCON,
    LOHA,
    LOHA_TUCKER,
    LOKR,
    LOKR_TUCKER,
    gradients,
    learned_adapter,
    noisy,
    on_device,
    relative_error,
    text_layers,
    write_adapter,
)  # fmt: skip

# A WebUI rounds W + ΔW to what it stores weights in; ours is not rounded.
TOLERANCES = {torch.float32: 1e-4, torch.float16: 3e-2, torch.bfloat16: 1e-1}
CONFIGS = {
    "loha": LOHA,
    "loha-tucker": LOHA_TUCKER,
    "lokr": LOKR,
    "lokr-tucker": LOKR_TUCKER,
    "locon": LOCON,
    "norms": replace(LOCON, train_norm=True),
    "dora": replace(LOHA, dora_wd=True),
}


def learned(room: WebuiRoom, config: AdapterConfig = LOHA, seed: int = 1, *, text: bool = False) -> Adapter:
    """On the UNet of the room's checkpoint, and its text encoders if `text`; not to be changed."""

    def work() -> Adapter:
        with room.host.open_model() as model:
            layers = unet_layers(model) + (text_layers(room, model) if text else [])
            return learned_adapter(layers, config, seed, read_weight=model.read_weight).to(model.device)

    return room.once((config, seed, text), lambda: room.run(work))


def unet_layers(model: HostModel) -> list[Layer]:
    return [*model.adaptable_layers(), *model.norm_layers()]


def written(room: WebuiRoom, name: str, adapter: Adapter, **metadata: str) -> Path:
    path = write_adapter(room.host.lora_dir / f"{name}.safetensors", adapter, **metadata)
    room.run(lambda: room.host.lora_changed(path))
    return path


class TrainedIsDrawn:
    @pytest.mark.parametrize("name", list(CONFIGS))
    def test_trained_is_drawn(self, room: WebuiRoom, name: str) -> None:
        """The UNet with the adapter attached equals the WebUI's with the file applied, at each strength."""
        adapter = learned(room, CONFIGS[name])
        written(room, "parity", adapter)
        for strength in (1.0, -0.5):
            plain, ours, hosts = room.run(lambda s=strength: _with_adapter(room, adapter, s))
            assert relative_error(plain, hosts) > 1e-2, "the adapter changes nothing"
            assert relative_error(ours, hosts) < TOLERANCES[room.precision.stored], (name, strength)

    def test_text_encoders_too(self, room: WebuiRoom) -> None:
        adapter = learned(room, text=True)
        written(room, "texts", adapter)

        def work() -> tuple[Tensor, Tensor, Tensor]:
            with room.host.open_model() as model:
                plain = model.encode_text(["a cat"], 1).context
                with attached(adapter, text_layers(room, model), model.read_weight):
                    ours = model.encode_text(["a cat"], 1).context
            room.host.generate(room.request("a cat <lora:texts:1>"))
            return plain, ours, room.hosts_text(["a cat"])[0]

        plain, ours, hosts = room.run(work)
        assert relative_error(plain, hosts) > 1e-2
        assert relative_error(ours, hosts) < TOLERANCES[room.precision.text]


class Loras(TrainedIsDrawn):
    def test_a_rewritten_file_is_what_the_next_picture_shows(self, room: WebuiRoom) -> None:
        first, second = learned(room, seed=1), learned(room, seed=2)
        path = written(room, "again", first)
        drawn = room.picture("a photo <lora:again:1>")
        write_adapter(path, second)
        assert room.picture("a photo <lora:again:1>") == drawn, "the WebUI has learned to look again by itself"
        room.run(lambda: room.host.lora_changed(path))
        redrawn = room.picture("a photo <lora:again:1>")
        written(room, "fresh", second)
        assert redrawn != drawn
        assert redrawn == room.picture("a photo <lora:fresh:1>")

    def test_a_rewritten_text_encoder_too(self, room: WebuiRoom) -> None:
        first, second = learned(room, seed=1, text=True), learned(room, seed=2, text=True)
        path = written(room, "words", first)
        room.picture("a photo <lora:words:1:0>")
        write_adapter(path, second)
        room.run(lambda: room.host.lora_changed(path))
        redrawn = room.picture("a photo <lora:words:1:0>")
        written(room, "words2", second)
        assert redrawn == room.picture("a photo <lora:words2:1:0>")

    def test_a_prompt_without_it_is_drawn_without_it(self, room: WebuiRoom) -> None:
        clean = room.clean_picture()
        path = written(room, "gone", learned(room))
        assert room.picture("a photo <lora:gone:1>") != clean
        room.run(lambda: room.host.lora_changed(path))
        assert room.picture() == clean

    def test_a_new_file_is_known_by_name_and_by_its_output_name(self, room: WebuiRoom) -> None:
        written(room, "file_name", learned(room), ss_output_name="alias_of_it")
        assert room.picture("a photo <lora:file_name:1>") == room.picture("a photo <lora:alias_of_it:1>")

    def test_an_unknown_name_is_an_error_and_not_silence(self, room: WebuiRoom) -> None:
        written(room, "known", learned(room))
        with pytest.raises(UserError, match="no_such_one"):
            room.picture("a photo <lora:known:1> <lora:no_such_one:0.5>")
        room.picture("a photo <lora:known:1>")


class FewerKinds(TrainedIsDrawn):
    """Two adapters of all: for fakes that merge with code which another module tries with every one.

    A real WebUI is held to all.
    """

    @pytest.mark.parametrize("name", ["loha-tucker", "norms"])
    def test_trained_is_drawn(self, room: WebuiRoom, name: str) -> None:
        super().test_trained_is_drawn(room, name)


class DrawingWhileTraining:
    def test_a_picture_shows_what_is_learned_so_far_and_training_goes_on(self, room: WebuiRoom) -> None:
        clean = room.clean_picture()
        adapter = learned(room)
        written(room, "meanwhile", adapter)
        with_file = room.picture("a photo <lora:meanwhile:1>")

        def work() -> tuple[bytes, bytes, bytes, bool]:
            with room.host.open_model() as model:
                layers = model.adaptable_layers()
                text = model.encode_text(["a cat"] * 2, 1)

                def draw(prompt: str) -> bytes:
                    return room.host.generate(room.request(prompt))[0].tobytes()

                def weight() -> Tensor:
                    return model.read_weight(layers[3], torch.zeros(1, device=model.device))[0].clone()

                untouched = weight()
                draw("a photo <lora:meanwhile:1>")
                assert torch.equal(weight(), untouched)
                model.prepare_training(RECOMPUTED, text_encoder=False)
                before = gradients(model, adapter, layers, text)
                with attached(adapter, layers, model.read_weight):
                    attached_picture = draw("a photo")
                plain, filed = draw("a photo"), draw("a photo <lora:meanwhile:1>")
                after = gradients(model, adapter, layers, text)
                same = all(torch.equal(after[name], before[name]) for name in before)
                return attached_picture, plain, filed, same

        attached_picture, plain, filed, same = room.run(work)
        assert plain == clean and filed == with_file and same
        assert attached_picture != clean
        assert room.picture() == clean

    def test_a_frozen_lora_acts_as_the_webui_applies_it(self, room: WebuiRoom) -> None:
        """On the UNet and on text encoders that are not trained; the weights of the host stay as they are."""
        clean, adapter = room.clean_picture(), learned(room, LOKR, text=True)
        path = written(room, "frozen", adapter)
        hosts = room.picture("a photo <lora:frozen:0.6>")

        def work() -> bytes:
            with room.host.open_model() as model:
                layers = [*model.adaptable_layers(), *text_layers(room, model)]
                frozen = FrozenLoras([(factors_for(read_adapter(path), layers, "frozen"), 0.6)])
                model.prepare_training(RESIDENT, text_encoder=False)
                with attached(Adapter({}), layers, frozen.over(model.read_weight)):
                    return room.host.generate(room.request("a photo"))[0].tobytes()

        ours = room.run(work)
        changed, differs = pixel_difference(hosts, clean), pixel_difference(hosts, ours)
        assert changed > 1 and differs < 0.1 * changed
        assert room.picture() == clean

    def test_selecting_another_checkpoint_meanwhile_waits_for_the_end(self, room: WebuiRoom) -> None:
        clean = room.clean_picture()
        opened = room.model

        def work() -> bytes:
            with room.host.open_model() as model:
                model.prepare_training(RESIDENT, text_encoder=False)
                room.select_eight_bits()
                picture = room.host.generate(room.request())[0].tobytes()
                assert room.model == opened
                return picture

        try:
            assert room.run(work) == clean
            room.picture()
            assert room.model != opened
        finally:
            room.select()


def pixel_difference(one: bytes, other: bytes) -> float:
    """Mean difference of two pictures, in steps of 8 bits."""
    a, b = (torch.frombuffer(bytearray(picture), dtype=torch.uint8).float() for picture in (one, other))
    return float((a - b).abs().mean())


def _with_adapter(room: WebuiRoom, adapter: Adapter, strength: float) -> tuple[Tensor, Tensor, Tensor]:
    """The UNet's output: without the adapter, with it attached, and with its file applied by the WebUI."""
    with room.host.open_model() as model, torch.no_grad():
        text = on_device(model, model.encode_text(["a cat"] * 2, 1))
        model.prepare_training(RESIDENT, text_encoder=False)
        layers = unet_layers(model)
        plain = model.predict(*noisy(model)[:2], text, noisy(model)[2])
        with attached(adapter, layers, model.read_weight, strength):
            ours = model.predict(*noisy(model)[:2], text, noisy(model)[2])
    room.host.generate(room.request(f"a photo <lora:parity:{strength}>"))
    with torch.inference_mode():
        # The WebUI's weights are merged now; the adapter is not attached.
        dtype = room.precision.computed
        x_t, t, sizes = noisy(model)
        text = TextCond(text.context.to(dtype), None if text.pooled is None else text.pooled.to(dtype))
        hosts = model.predict(x_t.to(dtype), t, text, sizes)
    return plain, ours, hosts
