"""What the contract tests do with an open model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lib_trainer.adapter.attach import Adapter, ReadLayer, attached, new_adapter
from lib_trainer.adapter.io import adapter_tensors, save_adapter
from lib_trainer.config.recipe import AdapterConfig
from lib_trainer.errors import UserError
from lib_trainer.models.base import HostModel, Layer, SizeCond, TextCond
from lib_trainer.models.placement import MemoryProfile
from tests.fakes.room import WebuiRoom

LOHA = AdapterConfig(algo="loha", network_dim=4, network_alpha=2.0, conv_dim=2, conv_alpha=1.0)
LOHA_TUCKER = AdapterConfig(algo="loha", network_dim=4, network_alpha=2.0, conv_dim=2, conv_alpha=1.0, use_tucker=True)
LOKR = AdapterConfig(algo="lokr", network_dim=4, network_alpha=2.0, conv_dim=2, conv_alpha=1.0, factor=4)
LOKR_TUCKER = AdapterConfig(algo="lokr", network_dim=2, conv_dim=1, factor=4, use_tucker=True, decompose_both=True)
LOCON = AdapterConfig(algo="locon", network_dim=4, network_alpha=2.0, conv_dim=2, conv_alpha=1.0)


def learned_adapter(
    layers: list[Layer],
    config: AdapterConfig = LOHA,
    seed: int = 1,
    share: float = 0.3,
    read_weight: ReadLayer | None = None,
) -> Adapter:
    """An adapter that has learned something: |ΔW| is `share` of what |W| is in these checkpoints, in every layer."""
    adapter = new_adapter(layers, config, seed, read_weight)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in layers:
            if layer.kind == "norm" and layer.name not in adapter.layers:
                continue
            factors = adapter.layers[layer.name]
            for tensor in factors.tensors.values():
                tensor.copy_(torch.randn(tensor.shape, generator=generator))
            if layer.kind == "norm":
                factors.w.mul_(share)
                factors.b.mul_(share)
                continue
            if factors.dora_scale is not None:
                factors.dora_scale.mul_(1 + 0.2 * torch.rand(factors.dora_scale.shape, generator=generator))
            fan_in = nn.Parameter(torch.empty(layer.shape)).numel() // layer.shape[0]
            wanted = share * fan_in**-0.5
            first = next(iter(factors.tensors.values()))
            first.mul_(wanted / factors.delta().std().clamp_min(1e-12))
    return adapter


def write_adapter(path: Path, adapter: Adapter, **metadata: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_adapter(path, adapter_tensors(adapter, "fp32"), {"ss_network_module": "lycoris.kohya", **metadata})
    return path


def noisy(model: HostModel, side: int = 8, batch: int = 2) -> tuple[Tensor, Tensor, SizeCond]:
    """(x_t, t, sizes) of a training step, the same every time."""
    generator = torch.Generator().manual_seed(3)
    x_t = torch.randn((batch, 4, side, side), generator=generator).to(model.device)
    t = torch.tensor([120, 730, 999][:batch], device=model.device)
    pixels = torch.tensor([8.0 * side, 8.0 * side, 0.0, 0.0, 8.0 * side, 8.0 * side], device=model.device)
    return x_t, t, SizeCond(pixels.repeat(batch, 1))


def on_device(model: HostModel, text: TextCond) -> TextCond:
    pooled = None if text.pooled is None else text.pooled.to(model.device)
    return TextCond(text.context.to(model.device), pooled)


def gradients(model: HostModel, adapter: Adapter, layers: list[Layer], text: TextCond) -> dict[str, Tensor]:
    """One step's gradients, by parameter name."""
    x_t, t, sizes = noisy(model)
    adapter.to(model.device).zero_grad(set_to_none=True)
    with attached(adapter, layers, model.read_weight):
        model.predict(x_t, t, on_device(model, text), sizes).square().mean().backward()
    return {name: parameter.grad.clone() for name, parameter in adapter.named_parameters()}


def relative_error(found: Tensor, wanted: Tensor) -> float:
    found, wanted = found.float().cpu(), wanted.float().cpu()
    return float((found - wanted).abs().max() / wanted.abs().max())


def text_layers(room: WebuiRoom, model: HostModel) -> list[Layer]:
    """Those of the text encoders. Where they cannot be trained, that is said, and the test has nothing more to ask."""
    if not room.trains_text:
        with pytest.raises(UserError, match="text encoders"):
            model.text_layers()
        pytest.skip("the text encoders cannot be trained here")
    return model.text_layers()


def without_room(memory_profile: MemoryProfile) -> MemoryProfile:
    return replace(memory_profile, available_bytes=None, total_bytes=None)


def parts_of(room: WebuiRoom) -> list[nn.Module]:
    """UNet, text encoders and VAE of the selected checkpoint, as they are after a picture without LoRAs."""
    room.picture()
    return room.parts()


def state_of(modules: Iterable[nn.Module]) -> list[tuple[Any, ...]]:
    """All that an open model could leave changed: the very tensors, their modes, hooks and instance attributes."""
    hooks = ("_forward_pre_hooks", "_forward_hooks", "_backward_hooks", "_backward_pre_hooks")
    found: list[tuple[Any, ...]] = []
    for root in modules:
        for name, module in root.named_modules():
            own = {key: value for key, value in vars(module).items() if key in ("forward", "parameters_manual_cast")}
            found.append((name, "attributes", own, "encode" in vars(module), module.training))
            found += [(name, hook, len(getattr(module, hook))) for hook in hooks]
            for slots in (module._parameters, module._buffers):
                for key, tensor in slots.items():
                    facts = None if tensor is None else (tensor.requires_grad, tensor.is_inference(), tensor.dtype)
                    found.append((name, key, _identity(tensor), facts, getattr(tensor, "grad", None) is None))
    return found


def _identity(tensor: Tensor | None) -> int:
    """The tensor itself; where models move to a card and back, buffers are made anew by `Module.to`."""
    moves = torch.cuda.is_available() and not isinstance(tensor, nn.Parameter)
    return 0 if moves else id(tensor)


def differing(before: list[tuple[Any, ...]], after: list[tuple[Any, ...]]) -> list[tuple[Any, Any]]:
    assert len(before) == len(after)
    return [pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]]
