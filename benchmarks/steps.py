"""What a worker runs for (b): training steps of a whole UNet that one implementation adapts."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.cases import Compute, Implementation, family_of
from benchmarks.makers import MAKERS, make_lively
from benchmarks.memory import measured_memory
from benchmarks.shapes import frozen_unet, unet_inputs
from lib_trainer.adapter.attach import layer_op_of
from lib_trainer.config.recipe import AdapterConfig
from lib_trainer.host.standalone.model import unet_layers

_LEARNING_RATE = 1e-4
# Small enough that hundreds of adapted layers leave the activations finite.
_FACTOR_SIZE = 0.01


class StepLoad:
    """Forward, backward and optimizer step on one random batch; every implementation gets the same values.

    Without an adapter it is the limit: forward and the gradient of the UNet's input.

    Attributes:
        adapted_s: seconds that putting the adapter on took.
    """

    def __init__(self, implementation: Implementation, task: dict[str, Any]) -> None:
        torch.manual_seed(0)
        family, config = family_of(task["family"]), AdapterConfig(**task["adapter"])
        self._implementation, self._compute = implementation, Compute(**task["compute"])
        device, dtype = self._compute.device, self._compute.torch_dtype
        self._unet = frozen_unet(family, device, dtype)
        if task["checkpointing"]:
            self._unet.train().enable_gradient_checkpointing()
        self._inputs = unet_inputs(family, task["size_px"], task["batch"], device, dtype)
        self._wanted = torch.randn_like(self._inputs["sample"], dtype=torch.float32)
        started = time.perf_counter()
        self._parameters = adapt(self._unet, unet_layers(self._unet, family), implementation.maker, config)
        trained = list(self._parameters.values())
        if not trained:
            self._inputs["sample"].requires_grad_()
        self._optimizer = _optimizer(task.get("optimizer", "AdamW"), trained, device) if trained else None
        self.adapted_s = time.perf_counter() - started
        self.loss = 0.0

    def run(self) -> None:
        loss = self._forward()
        self._backward(loss)
        self.loss = float(loss.detach())

    def memory(self) -> dict[str, int]:
        """Of a step after the first, which makes the optimizer's own state."""
        return measured_memory(self._forward, self._backward, [*self._unet.parameters(), *self._parameters.values()])

    def _forward(self) -> Tensor:
        with self._implementation.forward_in(self._compute):
            predicted = self._unet(**self._inputs).sample
        return nn.functional.mse_loss(predicted.float(), self._wanted)

    def _backward(self, loss: Tensor) -> None:
        loss.backward()
        if self._optimizer:
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
        self._inputs["sample"].grad = None


def _optimizer(name: str, trained: list[nn.Parameter], device: str) -> torch.optim.Optimizer:
    """torch's own, or bitsandbytes' as it stands."""
    if name == "AdamW":
        return torch.optim.AdamW(trained, _LEARNING_RATE, fused=True if device == "cuda" else None)
    import bitsandbytes.optim

    return getattr(bitsandbytes.optim, name)(trained, _LEARNING_RATE)


def adapt(unet: nn.Module, layers: list[Any], maker: str, config: AdapterConfig) -> dict[str, nn.Parameter]:
    """Puts the adapter on every layer; what is trained, by layer and factor."""
    paths = {module: path for path, module in unet.named_modules()}
    trained: dict[str, nn.Parameter] = {}
    for layer in layers:
        made, parameters = MAKERS[maker](layer.module, layer_op_of(layer), config)
        make_lively(parameters, _FACTOR_SIZE)
        trained |= {f"{layer.name}.{name}": parameter for name, parameter in parameters.items()}
        if made is not layer.module:
            parent, _, name = paths[layer.module].rpartition(".")
            setattr(unet.get_submodule(parent), name, made)
    return trained
