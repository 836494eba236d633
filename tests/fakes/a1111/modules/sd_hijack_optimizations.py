"""Ways to compute attention, of which one stands in the attention's class."""

import torch


def _heads(self, x, context):
    """Query, key and value (B, heads, N, D)."""
    seen = x if context is None else context
    parts = self.to_q(x), self.to_k(seen), self.to_v(seen)
    return [part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts]


def scaled_dot_product_attention_forward(self, x, context=None, mask=None, **kwargs):
    found = torch.nn.functional.scaled_dot_product_attention(*_heads(self, x, context))
    return self.to_out[1](self.to_out[0](found.transpose(1, 2).flatten(2)))


def sub_quad_attention_forward(self, x, context=None, mask=None, **kwargs):
    """Keeps memory low by writing each head into one output, in place: no gradient comes through."""
    q, k, v = _heads(self, x, context)
    out = torch.empty_like(q)
    for head in range(self.heads):
        scores = q[:, head] @ k[:, head].transpose(1, 2) * self.scale
        scores.sub_(scores.amax(-1, keepdim=True)).exp_()
        out[:, head].copy_(scores.div_(scores.sum(-1, keepdim=True)) @ v[:, head])
    return self.to_out(out.transpose(1, 2).flatten(2))
