"""Forge's layers: a `Linear` that is no `nn.Linear`, and weights that are cast in each forward."""

import contextlib
import types

import torch
from torch.nn import functional as F

from backend.patcher.lora import merge_lora_to_weight

# How layers are made now.
current = types.SimpleNamespace(device=None, dtype=None, manual_cast_enabled=False)


def get_weight_and_bias(layer, weight_args=None, bias_args=None, weight_fn=None, bias_fn=None):
    online = getattr(layer, "forge_online_loras", None) or {}
    scale = getattr(layer, "scale_weight", None)
    found = []
    for name, args, fn in (("weight", weight_args, weight_fn), ("bias", bias_args, bias_fn)):
        value = getattr(layer, name)
        if value is not None:
            value = value if fn is None else fn(value)
            value = value if args is None else value.to(**args)
            if name == "weight" and scale is not None:
                value = value * scale.to(value)
            if online.get(name) is not None:
                value = merge_lora_to_weight(online[name], value, "online", computation_dtype=value.dtype)
        found.append(value)
    return tuple(found)


def weights_manual_cast(layer, x, skip_weight_dtype=False, skip_bias_dtype=False, weight_fn=None, bias_fn=None):
    plain, cast = {"device": x.device}, {"device": x.device, "dtype": x.dtype}
    pair = get_weight_and_bias(
        layer, plain if skip_weight_dtype else cast, plain if skip_bias_dtype else cast, weight_fn, bias_fn
    )
    return (*pair, None)


def _weights(layer, x):
    if hasattr(layer.weight, "bnb_quantized"):
        from backend.operations_bnb import functional_dequantize_4bit

        return weights_manual_cast(layer, x, weight_fn=functional_dequantize_4bit)[:2]
    if layer.parameters_manual_cast:
        return weights_manual_cast(layer, x)[:2]
    return get_weight_and_bias(layer)


class _Cast:
    """Made on the device and in the dtype that the loader asked for, and left uninitialised."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs, device=current.device, dtype=current.dtype)
        self.parameters_manual_cast = current.manual_cast_enabled

    def reset_parameters(self):
        pass


class ForgeOperations:
    class Linear(torch.nn.Module):
        def __init__(self, in_features, out_features, *args, **kwargs):
            super().__init__()
            self.in_features, self.out_features = in_features, out_features
            self.dummy = torch.nn.Parameter(torch.empty(1, device=current.device, dtype=current.dtype))
            self.weight = self.scale_weight = self.bias = None
            self.parameters_manual_cast = current.manual_cast_enabled

        def _load_from_state_dict(self, state_dict, prefix, *args):
            if not hasattr(self, "dummy"):
                return super()._load_from_state_dict(state_dict, prefix, *args)
            for name in ("weight", "bias"):
                if prefix + name in state_dict:
                    setattr(self, name, torch.nn.Parameter(state_dict[prefix + name].to(self.dummy)))
            del self.dummy

        def forward(self, x):
            return F.linear(x, *_weights(self, x))

    class Conv2d(_Cast, torch.nn.Conv2d):
        def forward(self, x):
            return self._conv_forward(x, *_weights(self, x))

    class GroupNorm(_Cast, torch.nn.GroupNorm):
        def forward(self, x):
            return F.group_norm(x, self.num_groups, *_weights(self, x), self.eps)

    class LayerNorm(_Cast, torch.nn.LayerNorm):
        def forward(self, x):
            return F.layer_norm(x, self.normalized_shape, *_weights(self, x), self.eps)

    class Embedding(_Cast, torch.nn.Embedding):
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
