"""A CLIP text encoder with transformers' names, and a tokenizer of hashed words, for the fake WebUIs."""

import re
import zlib
from types import SimpleNamespace

import torch
from torch import nn


class CLIPTokenizer:
    bos_token_id, eos_token_id, pad_token_id = 250, 251, 251

    def __init__(self):
        self.words = {"(": 240, ")": 241, "[": 242, "]": 243, ",": 244, "\\": 245}

    def get_vocab(self):
        return {f"{word}</w>": number for word, number in self.words.items()}

    def __call__(self, texts, truncation=False, add_special_tokens=False):
        found = [re.findall(r"\w+|[^\w\s]", text.lower()) for text in texts]
        return {"input_ids": [[self.words.get(w, zlib.crc32(w.encode()) % 240) for w in words] for words in found]}


class CLIPAttention(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.k_proj, self.v_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.q_proj, self.out_proj = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x):
        q, k, v = (layer(x)[:, None] for layer in (self.q_proj, self.k_proj, self.v_proj))
        return self.out_proj(torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)[:, 0])


class CLIPMLP(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x):
        return self.fc2(torch.nn.functional.gelu(self.fc1(x)))


class CLIPEncoderLayer(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.self_attn, self.mlp = CLIPAttention(width), CLIPMLP(width)
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x):
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class CLIPTextModel(nn.Module):
    def __init__(self, width, layers, *, projection=False):
        super().__init__()
        model = nn.Module()
        model.embeddings = nn.Module()
        model.embeddings.token_embedding = nn.Embedding(256, width)
        model.embeddings.position_embedding = nn.Embedding(77, width)
        model.encoder = nn.Module()
        model.encoder.layers = nn.ModuleList(CLIPEncoderLayer(width) for _ in range(layers))
        model.final_layer_norm = nn.LayerNorm(width)
        self.text_model = model
        if projection:
            self.text_projection = nn.Linear(width, width, bias=False)

    def forward(self, input_ids, output_hidden_states=True):
        parts = self.text_model
        places = torch.arange(77, device=input_ids.device)
        x = parts.embeddings.token_embedding(input_ids) + parts.embeddings.position_embedding(places)
        states = [x]
        for layer in parts.encoder.layers:
            x = layer(x)
            states.append(x)
        ends = input_ids.eq(CLIPTokenizer.eos_token_id).int().argmax(1)
        last = parts.final_layer_norm(x)
        pooled = last[torch.arange(len(x)), ends]
        return SimpleNamespace(hidden_states=states, last_hidden_state=last, pooler_output=pooled)
