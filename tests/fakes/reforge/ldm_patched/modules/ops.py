"""Layers that cast their weights to what they are given, if they are told to."""

import contextlib

import torch
from torch.nn import functional as F


class _Cast:
    ldm_patched_cast_weights = True

    def cast(self, x):
        pair = self.weight, self.bias
        return [None if value is None else value.to(x) for value in pair] if self.ldm_patched_cast_weights else pair


class manual_cast:
    class Linear(_Cast, torch.nn.Linear):
        def forward(self, x):
            return F.linear(x, *self.cast(x))

    class Conv2d(_Cast, torch.nn.Conv2d):
        def forward(self, x):
            return self._conv_forward(x, *self.cast(x))

    class GroupNorm(_Cast, torch.nn.GroupNorm):
        def forward(self, x):
            return F.group_norm(x, self.num_groups, *self.cast(x), self.eps)

    class LayerNorm(_Cast, torch.nn.LayerNorm):
        def forward(self, x):
            return F.layer_norm(x, self.normalized_shape, *self.cast(x), self.eps)


@contextlib.contextmanager
def use_patched_ops(operations):
    names = ["Linear", "Conv2d", "GroupNorm", "LayerNorm"]
    own = {name: getattr(torch.nn, name) for name in names}
    try:
        for name in names:
            setattr(torch.nn, name, getattr(operations, name))
        yield
    finally:
        for name in names:
            setattr(torch.nn, name, own[name])
