"""Adapter files in the host: what was trained is what is drawn, and a rewritten file is what the next picture shows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from lib_trainer.adapter.attach import Adapter, attached
from lib_trainer.adapter.names import FILE_KEYS
from lib_trainer.config import AdapterConfig
from lib_trainer.errors import UserError
from lib_trainer.host.base import RECOMPUTED, RESIDENT, TextCond
from tests.fakes.forge_room import ForgeRoom
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
    write_adapter,
)  # fmt: skip

# Forge rounds W + ΔW to what it stores weights in; ours is not rounded.
TOLERANCES = {torch.float32: 1e-4, torch.float16: 3e-2, torch.bfloat16: 1e-1}
CONFIGS = {"loha": LOHA, "loha-tucker": LOHA_TUCKER, "lokr": LOKR, "lokr-tucker": LOKR_TUCKER, "locon": LOCON}


def _adapter(forge: ForgeRoom, config: AdapterConfig = LOHA, seed: int = 1, *, text: bool = False) -> Adapter:
    def work() -> Adapter:
        with forge.host.open_model() as model:
            layers = model.adaptable_layers() + (model.text_layers() if text else [])
            return learned_adapter(layers, config, seed).to(model.device)

    return forge.run(work)


def _write(forge: ForgeRoom, name: str, adapter: Adapter, **metadata: str) -> Path:
    path = write_adapter(forge.host.lora_dir / f"{name}.safetensors", adapter, **metadata)
    forge.run(lambda: forge.host.lora_changed(path))
    return path


def _tucker_tensors(adapter: Adapter) -> dict[str, Tensor]:
    return {
        f"{layer}.{FILE_KEYS['lokr'][name]}": value.detach().clone()
        for layer, factors in adapter.layers.items()
        for name, value in factors.tensors.items()
    }


class Loras:
    @pytest.mark.parametrize("name", list(CONFIGS))
    def test_trained_is_drawn(self, forge: ForgeRoom, name: str) -> None:
        """The UNet with the adapter attached equals Forge's with the file applied, at each strength."""
        adapter = _adapter(forge, CONFIGS[name])
        _write(forge, "parity", adapter)
        for strength in (1.0, 0.5, -1.0):
            plain, ours, hosts = forge.run(lambda s=strength: _with_adapter(forge, adapter, s))
            assert relative_error(plain, hosts) > 1e-2, "the adapter changes nothing"
            stored = forge.engine.forge_objects.unet.model.storage_dtype
            assert relative_error(ours, hosts) < TOLERANCES[stored], (name, strength)

    def test_text_encoders_too(self, forge: ForgeRoom) -> None:
        adapter = _adapter(forge, text=True)
        _write(forge, "texts", adapter)

        def work() -> tuple[Tensor, Tensor, Tensor]:
            with forge.host.open_model() as model:
                plain = model.encode_text(["a cat"], 1).context
                with attached(adapter, model.text_layers(), model.read_weight):
                    ours = model.encode_text(["a cat"], 1).context
            forge.host.generate(forge.request("a cat <lora:texts:1>"))
            with torch.inference_mode():
                cond = forge.engine.get_learned_conditioning(["a cat"])
            return plain, ours, (cond["crossattn"] if isinstance(cond, dict) else cond).float()

        plain, ours, hosts = forge.run(work)
        assert relative_error(plain, hosts) > 1e-2
        stored = next(forge.engine.forge_objects.clip.cond_stage_model.parameters()).dtype
        assert relative_error(ours, hosts) < TOLERANCES[stored]

    def test_a_rewritten_file_is_what_the_next_picture_shows(self, forge: ForgeRoom) -> None:
        first, second = _adapter(forge, seed=1), _adapter(forge, seed=2)
        path = _write(forge, "again", first)
        drawn = forge.picture("a photo <lora:again:1>")
        write_adapter(path, second)
        assert forge.picture("a photo <lora:again:1>") == drawn, "Forge has learned to look again by itself"
        forge.run(lambda: forge.host.lora_changed(path))
        redrawn = forge.picture("a photo <lora:again:1>")
        _write(forge, "fresh", second)
        assert redrawn != drawn
        assert redrawn == forge.picture("a photo <lora:fresh:1>")

    def test_a_rewritten_text_encoder_too(self, forge: ForgeRoom) -> None:
        first, second = _adapter(forge, seed=1, text=True), _adapter(forge, seed=2, text=True)
        path = _write(forge, "words", first)
        forge.picture("a photo <lora:words:1:0>")
        write_adapter(path, second)
        forge.run(lambda: forge.host.lora_changed(path))
        redrawn = forge.picture("a photo <lora:words:1:0>")
        _write(forge, "words2", second)
        assert redrawn == forge.picture("a photo <lora:words2:1:0>")

    def test_a_prompt_without_it_is_drawn_without_it(self, forge: ForgeRoom) -> None:
        clean = forge.clean_picture()
        path = _write(forge, "gone", _adapter(forge))
        assert forge.picture("a photo <lora:gone:1>") != clean
        forge.run(lambda: forge.host.lora_changed(path))
        assert forge.picture() == clean

    def test_a_new_file_is_known_by_name_and_by_its_output_name(self, forge: ForgeRoom) -> None:
        _write(forge, "file_name", _adapter(forge), ss_output_name="alias_of_it")
        assert forge.picture("a photo <lora:file_name:1>") == forge.picture("a photo <lora:alias_of_it:1>")

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
            _write(forge, "online", _adapter(forge))
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
        save_file(_tucker_tensors(_adapter(forge, LOKR_TUCKER)), path, {"ss_network_module": "lycoris.kohya"})
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

    def test_an_unknown_name_is_an_error_and_not_silence(self, forge: ForgeRoom) -> None:
        _write(forge, "known", _adapter(forge))
        with pytest.raises(UserError, match="no_such_one"):
            forge.picture("a photo <lora:known:1> <lora:no_such_one:0.5>")
        forge.picture("a photo <lora:known:1>")


class DrawingWhileBorrowed:
    def test_a_picture_shows_what_is_learned_so_far_and_training_goes_on(self, forge: ForgeRoom) -> None:
        clean = forge.clean_picture()
        adapter = _adapter(forge)
        _write(forge, "meanwhile", adapter)
        with_file = forge.picture("a photo <lora:meanwhile:1>")

        def work() -> tuple[bytes, bytes, bytes, bool]:
            with forge.host.open_model() as model:
                layers = model.adaptable_layers()
                text = model.encode_text(["a cat"] * 2, 1)

                def draw(prompt: str) -> bytes:
                    return forge.host.generate(forge.request(prompt))[0].tobytes()

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

        attached_picture, plain, filed, same = forge.run(work)
        assert plain == clean and filed == with_file and same
        assert attached_picture != clean
        assert forge.picture() == clean

    def test_selecting_another_checkpoint_meanwhile_waits_for_the_end(self, forge: ForgeRoom) -> None:
        clean = forge.clean_picture()
        borrowed = forge.engine

        def work() -> bytes:
            with forge.host.open_model() as model:
                model.prepare_training(RESIDENT, text_encoder=False)
                forge.select(storage="float8-e4m3fn")
                picture = forge.host.generate(forge.request())[0].tobytes()
                assert forge.engine is borrowed
                return picture

        try:
            assert forge.run(work) == clean
            forge.picture()
            assert forge.engine is not borrowed
        finally:
            forge.select()


def _with_adapter(forge: ForgeRoom, adapter: Adapter, strength: float) -> tuple[Tensor, Tensor, Tensor]:
    """The UNet's output: without the adapter, with it attached, and with its file applied by Forge."""
    with forge.host.open_model() as model, torch.no_grad():
        text = on_device(model, model.encode_text(["a cat"] * 2, 1))
        model.prepare_training(RESIDENT, text_encoder=False)
        layers = model.adaptable_layers()
        plain = model.predict(*noisy(model)[:2], text, noisy(model)[2])
        with attached(adapter, layers, model.read_weight, strength):
            ours = model.predict(*noisy(model)[:2], text, noisy(model)[2])
    forge.host.generate(forge.request(f"a photo <lora:parity:{strength}>"))
    with torch.inference_mode():
        # Forge's weights are merged now; the adapter is not attached.
        dtype = forge.engine.forge_objects.unet.model.computation_dtype
        x_t, t, sizes = noisy(model)
        text = TextCond(text.context.to(dtype), None if text.pooled is None else text.pooled.to(dtype))
        hosts = model.predict(x_t.to(dtype), t, text, sizes)
    return plain, ours, hosts
