"""A text encoder with as many tokens as a prompt has, and the engine that asks it: of Flux and Z-Image."""

import torch
from torch import nn

from tests.fakes.text_engine import Emphasis, parse_prompt_attention
from tests.fakes.tiny_clip import CLIPTokenizer


class TextEncoder(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.embedding, self.proj = nn.Embedding(256, width), nn.Linear(width, width)

    def forward(self, tokens):
        x = self.embedding(tokens).float()
        return self.proj(x.to(self.proj.weight.dtype)).float() + x.mean(dim=1, keepdim=True)


class LongTextEngine:
    """`least` tokens at least; texts of unequal length are a list. `options()`: settings of whoever derives from it."""

    least = 0

    def __init__(self, text_encoder):
        self.text_encoder, self.tokenizer, self.emphasis = text_encoder, CLIPTokenizer(), Emphasis("Original")

    def __call__(self, texts):
        self.emphasis = Emphasis(self.options().emphasis)
        found = [self.encode(text) for text in texts]
        return torch.stack(found) if self.least else found

    def encode(self, text):
        parsed = parse_prompt_attention(text, self.emphasis.name)
        ids = self.tokenizer([part for part, _ in parsed])["input_ids"]
        tokens = [(token, weight) for part, (_, weight) in zip(ids, parsed, strict=True) for token in part]
        tokens += [(self.tokenizer.eos_token_id, 1.0)] * max(1, self.least - len(tokens))
        z = self.text_encoder(torch.tensor([[token for token, _ in tokens]]))[0]
        return z * torch.tensor([weight for _, weight in tokens])[:, None]
