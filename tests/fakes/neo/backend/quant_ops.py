"""Weights of eight bits that stand for others: a tensor of its own kind, whose contents lie in another."""

import torch
from torch import nn

_aten = torch.ops.aten


class QuantizedTensor(torch.Tensor):
    @staticmethod
    def __new__(cls, qdata, scale, orig_dtype):
        return torch.Tensor._make_wrapper_subclass(cls, qdata.shape, dtype=orig_dtype, device=qdata.device)

    def __init__(self, qdata, scale, orig_dtype):
        self._qdata, self._scale = qdata, scale

    def dequantize(self):
        return (self._qdata.float() * self._scale).to(self.dtype)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        if func in (_aten.detach.default, _aten.clone.default):
            return cls(func(args[0]._qdata), args[0]._scale, args[0].dtype)
        plain = [arg.dequantize() if isinstance(arg, cls) else arg for arg in args]
        return func(*plain, **(kwargs or {}))


def quantize_linears(model):
    """Every linear layer inside a block in whole numbers with a scale for each row."""
    for name, module in model.named_modules():
        if type(module).__name__ == "Linear" and "blocks" in name:
            weight = module.weight.data.float()
            scale = weight.abs().amax(1, keepdim=True) / 127
            packed = QuantizedTensor((weight / scale).round().to(torch.int8), scale, module.weight.dtype)
            module.weight = nn.Parameter(packed, requires_grad=False)
