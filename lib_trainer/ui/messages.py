"""What went wrong, as HTML."""

from __future__ import annotations

from html import escape

from lib_trainer.errors import ConfigError, UserError
from lib_trainer.ui.form import shown_name


def show_error(error: UserError, title: str = "") -> str:
    """A mistake and its hint. The problems of fields are listed under `title`, by the labels that a person sees."""
    if isinstance(error, ConfigError):
        # All at once: a person corrects the recipe in one go.
        lines = "".join(f"<li>{escape(shown_name(name))}: {escape(text)}</li>" for name, text in error.problems.items())
        return f'<div class="train-lora-error"><b>{escape(title)}</b><ul>{lines}</ul></div>'
    return f'<div class="train-lora-error"><b>{escape(error.message)}</b> {escape(error.hint)}</div>'
