"""The text encoders as the WebUI wraps them: any number of words, emphasis, and notes for the infotext."""

from itertools import zip_longest

import torch
from tests.fakes.textual_inversion import portions

from modules import devices, prompt_parser
from modules.shared import opts

_WORDS = 75


class TextEncoder(torch.nn.Module):
    """What derives from it knows the special tokens `begin`, `end` and `padding`, and how to `split` and `encode`."""

    def __init__(self, wrapped, hijack):
        super().__init__()
        self.wrapped, self.hijack = wrapped, hijack
        # As SDXL's conditioner asks of everything that it calls.
        self.is_trainable, self.legacy_ucg_val = getattr(wrapped, "is_trainable", False), None
        self.input_key, self.return_pooled = getattr(wrapped, "input_key", "txt"), False

    def forward(self, texts):
        if opts.emphasis != "Original" and any(bracket in text for text in texts for bracket in "(["):
            self.hijack.extra_generation_params["Emphasis"] = opts.emphasis
        empty = self._portions("")[0]
        found = []
        # A text that ends before the longest one goes on as an empty one.
        for rows in zip_longest(*map(self._portions, texts), fillvalue=empty):
            self.hijack.fixes = [fixes for _, fixes in rows]
            tokens, weights = torch.tensor([row for row, _ in rows], device=devices.device).unbind(-1)
            hidden, pooled = self.encode(tokens.long())
            found.append((_emphasized(hidden, weights), pooled))
        hidden = torch.cat([part for part, _ in found], dim=1)
        return (hidden, found[0][1]) if self.return_pooled else hidden

    def _portions(self, text):
        """([(token, weight)] of 77 tokens, embeddings by place) for each 75 words."""
        parts = prompt_parser.parse_prompt_attention(text) if opts.emphasis != "None" else [(text, 1.0)]
        split = self.hijack.embedding_db.pieces
        pieces = [(*piece, weight) for part, weight in parts for piece in split(self.split(part))]
        return [(self._framed(words), fixes) for words, fixes in portions(pieces, _WORDS)]

    def tokenize(self, texts):
        return [self.split(text) for text in texts]

    def _framed(self, words):
        rest = [(self.padding, 1.0)] * (_WORDS - len(words))
        return [(self.begin, 1.0), *words, (self.end, 1.0), *rest]


def _emphasized(hidden, weights):
    if opts.emphasis not in ("Original", "No norm"):
        return hidden
    weighted = hidden * weights.unsqueeze(-1)
    return weighted if opts.emphasis == "No norm" else weighted * (hidden.mean() / weighted.mean())


class ClipL(TextEncoder):
    def __init__(self, wrapped, hijack):
        super().__init__(wrapped, hijack)
        self.begin, self.end = wrapped.tokenizer.bos_token_id, wrapped.tokenizer.eos_token_id
        self.padding = self.end

    def split(self, text):
        return self.wrapped.tokenizer([text], truncation=False, add_special_tokens=False)["input_ids"][0]

    def encode_embedding_init_text(self, init_text, nvpt):
        table = self.wrapped.transformer.text_model.embeddings.token_embedding.wrapped
        return table(torch.tensor(self.split(init_text)))

    def encode(self, tokens):
        hidden = self._layers(tokens)[-opts.CLIP_stop_at_last_layers]
        return self.wrapped.transformer.text_model.final_layer_norm(hidden), None

    def _layers(self, tokens):
        return self.wrapped.transformer(input_ids=tokens, output_hidden_states=True).hidden_states


class ClipLInSdxl(ClipL):
    """The layer that SDXL was trained on, whatever the CLIP skip, unless another option says that it counts."""

    def encode(self, tokens):
        layer = -opts.CLIP_stop_at_last_layers if opts.sdxl_clip_l_skip else self.wrapped.layer_idx
        return self._layers(tokens)[layer], None
