"""Prompts to hidden states, for Forge and Neo: emphasis, chunks of 75 tokens, CLIP skip, notes for infotexts."""

import re

import torch

from tests.fakes.textual_inversion import EmbeddingDatabase, TokenEmbedding, portions

_PART = re.compile(r"\\[()\[\]\\]|[()\[\]]|[^()\[\]\\]+|\\")


def parse_prompt_attention(text, emphasis):
    """[(text, weight)]: brackets change the weight, backslashes make them literal; "None" takes all as it stands."""
    if emphasis == "None":
        return [(text, 1.0)]
    parts, weight = [], 1.0
    for part in _PART.findall(text):
        if part in "([":
            weight *= 1.1 if part == "(" else 1 / 1.1
        elif part in ")]":
            weight /= 1.1 if part == ")" else 1 / 1.1
        else:
            parts.append((part.removeprefix("\\") if len(part) == 2 and part[0] == "\\" else part, round(weight, 6)))
    return parts or [("", 1.0)]


class Emphasis:
    def __init__(self, name):
        self.name = name


class TextEngine:
    """`options()` are the settings of whoever derives from it, `note` keeps a line for the next infotext."""

    def __init__(
        self, text_encoder, tokenizer, chunk_length=75, embedding_key="clip_l", text_projection=False,
        minimal_clip_skip=1, clip_skip=1, return_pooled=False, final_layer_norm=True,
    ):  # fmt: skip
        self.text_encoder, self.tokenizer, self.embedding_key = text_encoder, tokenizer, embedding_key
        self.chunk_length, self.text_projection, self.return_pooled = chunk_length, text_projection, return_pooled
        self.minimal_clip_skip, self.clip_skip, self.final_layer_norm = minimal_clip_skip, clip_skip, final_layer_norm
        self.emphasis = Emphasis(self.options().emphasis)
        self.embeddings = EmbeddingDatabase(lambda text: tokenizer([text])["input_ids"][0])
        if self.embeddings_dir():
            self.embeddings.add_embedding_dir(self.embeddings_dir())
            self.embeddings.load_textual_inversion_embeddings()
        parts = text_encoder.transformer.text_model.embeddings
        parts.token_embedding = TokenEmbedding(parts.token_embedding, self.embeddings, embedding_key)

    def tokenize_line(self, line):
        parsed = parse_prompt_attention(line, self.emphasis.name)
        tokenized = self.tokenizer([text for text, _ in parsed])["input_ids"]
        pieces = [
            (*piece, weight)
            for ids, (_, weight) in zip(tokenized, parsed, strict=True)
            for piece in self.embeddings.pieces(ids)
        ]
        return portions(pieces, self.chunk_length)

    def __call__(self, texts):
        self.emphasis = Emphasis(self.options().emphasis)
        lines = [self.tokenize_line(text) for text in texts]
        count = max(len(line) for line in lines)
        states = [self.process_tokens([line[i] if i < len(line) else ([], []) for line in lines]) for i in range(count)]
        if used := [embedding.name for line in lines for _, fixes in line for _, embedding in fixes]:
            self.note("TI", ", ".join(used))
        if any("(" in text or "[" in text for text in texts) and self.emphasis.name != "Original":
            self.note("Emphasis", self.emphasis.name)
        hidden = torch.hstack([z for z, _ in states])
        return (hidden, states[0][1]) if self.return_pooled else hidden

    def process_tokens(self, chunks):
        end = self.tokenizer.eos_token_id
        self.embeddings.fixes = [fixes for _, fixes in chunks]
        chunks = [tokens for tokens, _ in chunks]
        filled = [[*(token for token, _ in chunk), *[end] * (self.chunk_length - len(chunk))] for chunk in chunks]
        tokens = torch.tensor([[self.tokenizer.bos_token_id, *ids, end] for ids in filled])
        z, pooled = self.encode_with_transformers(tokens)
        weights = torch.ones(tokens.shape)
        for row, chunk in enumerate(chunks):
            weights[row, 1 : 1 + len(chunk)] = torch.tensor([weight for _, weight in chunk])
        if self.emphasis.name == "Original":
            mean = z.mean()
            z = z * weights[..., None]
            z = z * (mean / z.mean())
        return z, pooled

    def encode_with_transformers(self, tokens):
        embeddings = self.text_encoder.transformer.text_model.embeddings
        embeddings.position_embedding = embeddings.position_embedding.to(dtype=torch.float32)
        embeddings.token_embedding = embeddings.token_embedding.to(dtype=torch.float32)
        outputs = self.text_encoder.transformer(tokens, output_hidden_states=True)
        z = outputs.hidden_states[-max(self.clip_skip, self.minimal_clip_skip)]
        if self.final_layer_norm:
            z = self.text_encoder.transformer.text_model.final_layer_norm(z)
        pooled = outputs.pooler_output if self.return_pooled else None
        if pooled is not None and self.text_projection:
            pooled = self.text_encoder.transformer.text_projection(pooled)
        return z, pooled
