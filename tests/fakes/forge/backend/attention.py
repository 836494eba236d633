import torch


def _heads(tensor, heads):
    batch, places, width = tensor.shape
    return tensor.view(batch, places, heads, width // heads).transpose(1, 2)


def attention_pytorch(q, k, v, heads, mask=None, attn_precision=None, skip_reshape=False):
    q, k, v = (_heads(tensor, heads) for tensor in (q, k, v))
    return torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def attention_sub_quad(query, key, value, heads, mask=None, attn_precision=None, skip_reshape=False):
    """Keeps memory low by reusing one output, in place: no gradient comes through."""
    q, k, v = (_heads(tensor, heads) for tensor in (query, key, value))
    out = torch.empty_like(q)
    for head in range(heads):
        scores = q[:, head] @ k[:, head].transpose(1, 2) * q.shape[-1] ** -0.5
        scores.sub_(scores.amax(-1, keepdim=True)).exp_()
        out[:, head].copy_(scores.div_(scores.sum(-1, keepdim=True)) @ v[:, head])
    return out.transpose(1, 2).flatten(2)


attention_function = attention_sub_quad
