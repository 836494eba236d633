"""Which packages are missing, and what still works without them."""

from __future__ import annotations

from html import escape
from importlib.util import find_spec

from lib_trainer.packages import PACKAGES, Package


def missing_packages() -> list[Package]:
    # Imported late: a page that is only built should not wait for torch.
    import torch

    # ROCm answers here as well.
    has_gpu = torch.cuda.is_available()
    return [p for p in PACKAGES if not find_spec(p.module) and (has_gpu or not p.for_gpu)]


def show_missing(*, in_webui: bool) -> str:
    """A note for the top of the tab, red where training does not work; "" when everything is there."""
    missing = missing_packages()
    if not missing:
        return ""
    lines = "".join(f"<li><code>{escape(p.name)}</code>: {escape(p.without_it)}</li>" for p in missing)
    style = "train-lora-error" if any(p.is_needed for p in missing) else "train-lora-note"
    names = escape(" ".join(p.name for p in missing))
    advice = (
        "Restart the WebUI: the extension's installer will try again."
        if in_webui
        else f"Install with: <code>pip install {names}</code>"
    )
    return f'<div class="{style}"><b>Not installed here:</b><ul>{lines}</ul>{advice}</div>'
