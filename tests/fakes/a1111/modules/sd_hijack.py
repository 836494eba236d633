"""Puts the WebUI's own text encoders and attention into a model, and takes them out again."""

import sgm.modules.attention
from tests.fakes.textual_inversion import TokenEmbedding
from torch import nn

import ldm.modules.attention
from modules import sd_hijack_clip, sd_hijack_open_clip, sd_hijack_optimizations, sd_hijack_unet  # noqa: F401
from modules.textual_inversion.textual_inversion import EmbeddingDatabase

_WRAPPERS = {
    "ldm": {
        "FrozenCLIPEmbedder": sd_hijack_clip.ClipL,
        "FrozenOpenCLIPEmbedder": sd_hijack_open_clip.OpenClip,
    },
    "sgm": {
        "FrozenCLIPEmbedder": sd_hijack_clip.ClipLInSdxl,
        "FrozenOpenCLIPEmbedder2": sd_hijack_open_clip.OpenClipInSdxl,
    },
}


class Hijack:
    fixes, clip, optimization_method, circular_enabled = None, None, None, False

    def __init__(self):
        self.embedding_db = EmbeddingDatabase()
        self.clear_comments()

    def clear_comments(self):
        self.comments, self.extra_generation_params = [], {}

    def hijack(self, model):
        self._exchange_text_encoders(model, self._wrapped)
        self.clip = model.cond_stage_model
        # In the classes, where they stay.
        for package in (ldm.modules.attention, sgm.modules.attention):
            package.CrossAttention.forward = sd_hijack_optimizations.sub_quad_attention_forward
        self.optimization_method = "sub-quadratic"

    def undo_hijack(self, model):
        self._exchange_text_encoders(model, self._unwrapped)
        self.clip = None

    def _exchange_text_encoders(self, model, exchanged):
        """In SDXL, what stands for the text encoder elsewhere is all that makes a conditioning."""
        if not hasattr(model, "conditioner"):
            model.cond_stage_model = exchanged(model.cond_stage_model)
            return
        model.conditioner.embedders = nn.ModuleList(map(exchanged, model.conditioner.embedders))
        if exchanged == self._wrapped:
            model.cond_stage_model = model.conditioner
            model.conditioner.tokenize = model.conditioner.embedders[0].tokenize
        else:
            del model.cond_stage_model

    def _wrapped(self, encoder):
        kind = type(encoder)
        wrapper = _WRAPPERS.get(kind.__module__.partition(".")[0], {}).get(kind.__name__)
        if wrapper is None:
            return encoder
        tokens = _around_tokens(encoder)
        tokens.token_embedding = TokenEmbedding(tokens.token_embedding, self, _key_of(encoder))
        return wrapper(encoder, self)

    def _unwrapped(self, wrapper):
        if not isinstance(wrapper, sd_hijack_clip.TextEncoder):
            return wrapper
        tokens = _around_tokens(wrapper.wrapped)
        tokens.token_embedding = tokens.token_embedding.wrapped
        return wrapper.wrapped


def _key_of(encoder):
    return "clip_l" if hasattr(encoder, "transformer") else "clip_g"


def _around_tokens(encoder):
    return encoder.transformer.text_model.embeddings if hasattr(encoder, "transformer") else encoder.model


model_hijack = Hijack()
