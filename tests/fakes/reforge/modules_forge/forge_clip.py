"""The text encoders of ComfyUI, as A1111's pages ask for them. Each call moves them to the device."""

import torch
from ldm_patched.modules import model_management
from modules import sd_hijack_clip, sd_models
from modules.shared import opts

from tests.fakes.textual_inversion import TokenEmbedding


def move_clip_to_gpu():
    model_management.load_model_gpu(sd_models.model_data.sd_model.forge_objects.clip.patcher)


class _Clip(sd_hijack_clip.TextEncoder):
    least, normalized, key = 1, False, "clip_l"

    def __init__(self, wrapped, tokenizer, hijack):
        super().__init__(wrapped, hijack)
        self.tokenizer = tokenizer
        parts = wrapped.transformer.text_model.embeddings
        parts.token_embedding = TokenEmbedding(parts.token_embedding, hijack, self.key)
        self.begin, self.end = tokenizer.bos_token_id, tokenizer.eos_token_id
        self.padding = self.end

    def split(self, text):
        return self.tokenizer([text], truncation=False, add_special_tokens=False)["input_ids"][0]

    def encode_embedding_init_text(self, init_text, nvpt):
        table = self.wrapped.transformer.text_model.embeddings.token_embedding.wrapped
        return table(torch.tensor(self.split(init_text)))

    def encode(self, tokens):
        move_clip_to_gpu()
        found = self.wrapped.transformer(input_ids=tokens, output_hidden_states=True)
        hidden = found.hidden_states[-max(opts.CLIP_stop_at_last_layers, self.least)]
        if self.normalized:
            hidden = self.wrapped.transformer.text_model.final_layer_norm(hidden)
        pooled = self.wrapped.transformer.text_projection(found.pooler_output) if self.return_pooled else None
        return hidden, pooled


class CLIP_SD_15_L(_Clip):
    normalized = True


class CLIP_SD_21_H(_Clip):
    least, normalized = 2, True


class CLIP_SD_XL_L(_Clip):
    least = 2


class CLIP_SD_XL_G(_Clip):
    least, key = 2, "clip_g"

    def __init__(self, wrapped, tokenizer, hijack):
        super().__init__(wrapped, tokenizer, hijack)
        self.return_pooled = True
