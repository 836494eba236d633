import torch
from tests.fakes.tiny_clip import CLIPTextModel, CLIPTokenizer
from torch import nn

from open_clip.model import CLIP


class FrozenCLIPEmbedder(nn.Module):
    """CLIP-L. SDXL reads the layer `layer_idx`, without the last norm."""

    def __init__(self, width=16, layers=3, layer_idx=None):
        super().__init__()
        self.tokenizer, self.transformer = CLIPTokenizer(), CLIPTextModel(width, layers)
        self.layer_idx = layer_idx
        self.eval().requires_grad_(False)


class FrozenOpenCLIPEmbedder(nn.Module):
    """SD 2's: it leaves out the last layer."""

    def __init__(self, width=16, layers=4):
        super().__init__()
        self.model = CLIP(width, layers).eval().requires_grad_(False)

    def encode_with_transformer(self, text):
        return self.model.ln_final(self.model.layers_of(text)[-2])


class FrozenOpenCLIPEmbedder2(nn.Module):
    """SDXL's: the layer before the last without a norm, and the pooled end of the text."""

    def __init__(self, width=24, layers=3):
        super().__init__()
        self.model = CLIP(width, layers).eval().requires_grad_(False)

    def encode_with_transformer(self, text):
        *_, before, last = self.model.layers_of(text)
        ends = self.model.ln_final(last)[torch.arange(len(text)), text.argmax(dim=-1)]
        return {"penultimate": before, "pooled": ends @ self.model.text_projection}
