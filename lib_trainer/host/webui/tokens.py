"""How many tokens a caption has, by the tokenizer of the loaded checkpoint, as the WebUI counts a prompt's."""

from __future__ import annotations

from inspect import signature
from typing import Any

from lib_trainer.host.webui.prompts import literal_caption


def count_tokens(loaded: Any, text: str) -> int | None:
    """Tokens of a caption without the marks of its beginning and end; None where the WebUI does not say.

    Args:
        loaded: the WebUI's object of the loaded checkpoint.
    """
    plain = literal_caption(text)
    # Forge and Neo ask their engine, A1111 and reForge what they have put in the place of CLIP.
    if hasattr(loaded, "get_prompt_lengths_on_ui"):
        count = loaded.get_prompt_lengths_on_ui(plain)[0]
    else:
        from modules.sd_hijack import model_hijack

        ask = model_hijack.get_prompt_lengths
        own = (loaded.cond_stage_model,) if "cond_stage_model" in signature(ask).parameters else ()
        count = ask(plain, *own)[0]
    # A1111 answers "-" before a checkpoint is loaded.
    return int(count) if isinstance(count, int) else None
