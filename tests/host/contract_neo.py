"""Pitfalls of Forge Neo's own: how ComfyUI's patchers merge LoRAs, and which of its text encoders' layers it reads."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.fakes.neo_room import NeoRoom
from tests.host.contract_loras import learned, written
from tests.host.helpers import relative_error


class NeoLoras:
    def test_those_that_are_merged_in_every_forward_are_taken_out(self, forge: NeoRoom) -> None:
        forge.select(storage="float8-e4m3fn (fp16 LoRA)")

        def merging() -> bool:
            parts = forge.engine.forge_objects.unet.model.modules()
            return any(getattr(part, "weight_function", None) for part in parts)

        def work() -> None:
            with forge.host.open_model() as model:
                assert not merging()
                for layer in model.adaptable_layers()[:8]:
                    weight, _ = model.read_weight(layer, torch.zeros(1, device=model.device))
                    assert torch.equal(weight, layer.module.weight.to(weight))

        try:
            plain = forge.picture()
            written(forge, "online", learned(forge))
            assert forge.picture("a photo <lora:online:1>") != plain
            assert merging()
            forge.run(work)
            assert forge.picture() == plain
        finally:
            forge.select()

    def test_one_that_broke_while_it_was_merged_is_taken_out_whole(
        self, forge: NeoRoom, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from backend.patcher import base

        clean = forge.clean_picture()
        written(forge, "broken", learned(forge))
        merge, merged = base.merge_lora_to_weight, []

        def break_half_way(*args: Any, **kwargs: Any) -> Tensor:
            merged.append(args)
            if len(merged) > 10:
                raise RuntimeError("the machine stumbled")
            return merge(*args, **kwargs)

        def first_weights() -> list[Tensor]:
            with forge.host.open_model() as model:
                like = torch.zeros(1, device=model.device)
                return [model.read_weight(layer, like)[0].clone() for layer in model.adaptable_layers()[:20]]

        weights = forge.run(first_weights)
        with monkeypatch.context() as patch:
            patch.setattr(base, "merge_lora_to_weight", break_half_way)
            with pytest.raises(RuntimeError, match="stumbled"):
                forge.picture("a photo <lora:broken:1>")
        assert all(torch.equal(now, then) for now, then in zip(forge.run(first_weights), weights, strict=True))
        assert forge.picture() == clean


class NeoText:
    def test_captions_are_read_by_the_layer_that_a_new_neo_draws_with(self, forge: NeoRoom) -> None:
        from modules.shared import opts

        skip = forge.host.clip_skip()
        # Two, unless a person has chosen another.
        assert skip == opts.CLIP_stop_at_last_layers == 2

        def work() -> tuple[Tensor, Tensor]:
            with forge.host.open_model() as model:
                ours = model.encode_text(["a photo of a cat"], skip).context
            forge.host.generate(forge.request("a photo of a cat"))
            # As the picture has left the engines.
            return ours, forge.hosts_text(["a photo of a cat"], skip)[0]

        ours, hosts = forge.run(work)
        assert relative_error(ours, hosts) < 1e-5
