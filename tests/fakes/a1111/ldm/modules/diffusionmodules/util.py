import torch
from torch import nn


def checkpoint(func, inputs, params, flag):
    if not flag:
        return func(*inputs)
    params = list(params)
    return _Again.apply(func, params, inputs, *inputs, *params)


def timestep_embedding(timesteps, width):
    half = width // 2
    rates = 10000.0 ** (-torch.arange(half) / half)
    angles = timesteps.float().unsqueeze(1) * rates.to(timesteps.device)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class _Again(torch.autograd.Function):
    """Computed a second time for the gradients of what it was told of; all of that has to ask for one."""

    @staticmethod
    def forward(ctx, func, params, inputs, *told):
        ctx.func, ctx.params, ctx.inputs = func, params, inputs
        return func(*inputs)

    @staticmethod
    def backward(ctx, gradient):
        again = [value.detach().requires_grad_() for value in ctx.inputs]
        with torch.enable_grad():
            found = ctx.func(*again)
        gradients = torch.autograd.grad(found, again + ctx.params, gradient, allow_unused=True)
        return None, None, None, *gradients


class FullPrecisionNorm(nn.GroupNorm):
    def forward(self, x):
        found = super().forward(x.float())
        return found.to(x.dtype)


def normalization(channels):
    return FullPrecisionNorm(32, channels)
