"""The package comfy_kitchen: no gradient comes through."""

import torch


def apply_rope_split_half(q, k, turns):
    assert not q.requires_grad, "no gradient for comfy_kitchen::apply_rope_split_half"
    return tuple(_turned(x, turns) for x in (q, k))


def _turned(x, turns):
    first, second = x.chunk(2, dim=-1)
    (a, b), (c, d) = (row.unbind(-1) for row in turns.unbind(-2))
    return torch.cat([a * first + b * second, c * first + d * second], dim=-1)
