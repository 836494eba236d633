"""Neo's layers: a `Linear` that is `nn.Linear`, and LoRAs of a forward pass as functions on the layer."""

import contextlib
import types

import torch
from backend.quant_ops import QuantizedTensor
from torch.nn import functional as F

# How layers are made now.
current = types.SimpleNamespace(device=None, dtype=None, manual_cast_enabled=False)


def get_weight_and_bias(layer):
    weight, bias = layer.weight, layer.bias
    for function in layer.weight_function:
        weight = function(weight)
    return weight, bias


def weights_manual_cast(layer, x):
    weight = layer.weight.dequantize() if isinstance(layer.weight, QuantizedTensor) else layer.weight
    weight, bias = (None if value is None else value.to(x) for value in (weight, layer.bias))
    for function in layer.weight_function:
        weight = function(weight)
    return weight, bias


def _weights(layer, x):
    if isinstance(layer.weight, QuantizedTensor):
        assert not x.requires_grad
        return weights_manual_cast(layer, x)
    return weights_manual_cast(layer, x) if layer.parameters_manual_cast else get_weight_and_bias(layer)


class ForgeWeights:
    """Made on the device and in the dtype that the loader asked for, and left uninitialised."""

    weight_function, bias_function = [], []

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs, device=current.device, dtype=current.dtype)
        self.parameters_manual_cast = current.manual_cast_enabled

    def reset_parameters(self):
        pass


class ForgeOperations:
    class Linear(ForgeWeights, torch.nn.Linear):
        def forward(self, x):
            return F.linear(x, *_weights(self, x))

    class Conv2d(ForgeWeights, torch.nn.Conv2d):
        def forward(self, x):
            return self._conv_forward(x, *_weights(self, x))

    class GroupNorm(ForgeWeights, torch.nn.GroupNorm):
        def forward(self, x):
            return F.group_norm(x, self.num_groups, *_weights(self, x), self.eps)

    class LayerNorm(ForgeWeights, torch.nn.LayerNorm):
        def forward(self, x):
            return F.layer_norm(x, self.normalized_shape, *_weights(self, x), self.eps)

    class Embedding(ForgeWeights, torch.nn.Embedding):
        bias = None


@contextlib.contextmanager
def using_forge_operations(operations=None, device=None, dtype=None, manual_cast_enabled=False, bnb_dtype=None):
    current.device, current.dtype, current.manual_cast_enabled = device, dtype, manual_cast_enabled
    names = ["Linear", "Conv2d", "GroupNorm", "LayerNorm", "Embedding"]
    own = {name: getattr(torch.nn, name) for name in names}
    try:
        for name in names:
            setattr(torch.nn, name, getattr(ForgeOperations, name))
        yield
    finally:
        for name in names:
            setattr(torch.nn, name, own[name])
