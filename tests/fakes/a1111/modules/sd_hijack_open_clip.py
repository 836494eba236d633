import torch

from modules import sd_hijack_clip
from modules.shared import opts  # noqa: F401
from open_clip.tokenizer import _tokenizer


class OpenClip(sd_hijack_clip.TextEncoder):
    """CLIP skip means nothing here, and the end of a text is another token than what fills the rest."""

    begin, end = (_tokenizer.encoder[f"<{place}_of_text>"] for place in ("start", "end"))
    padding = 0

    def split(self, text):
        return _tokenizer.encode(text)

    def encode_embedding_init_text(self, init_text, nvpt):
        return self.wrapped.model.token_embedding.wrapped(torch.tensor(self.split(init_text)))

    def encode(self, tokens):
        return self.wrapped.encode_with_transformer(tokens), None


class OpenClipInSdxl(OpenClip):
    def __init__(self, wrapped, hijack):
        super().__init__(wrapped, hijack)
        self.return_pooled = True

    def encode(self, tokens):
        layers = self.wrapped.encode_with_transformer(tokens)
        return layers["penultimate"], layers["pooled"]
