"""Forge's wrapper around a CLIP text encoder."""

import torch
from tests.fakes.tiny_clip import CLIPTextModel, CLIPTokenizer  # noqa: F401 - the tokenizer is found here
from torch import nn


class IntegratedCLIP(nn.Module):
    def __init__(self, width, layers):
        super().__init__()
        self.transformer = CLIPTextModel(width, layers, projection=True)
        self.logit_scale = nn.Parameter(torch.tensor(4.6055))
