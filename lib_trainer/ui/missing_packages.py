"""Which packages are missing, and what still works without them."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from importlib.util import find_spec


@dataclass(frozen=True)
class Package:
    """A package that something needs. `module` is what is imported, `name` what pip installs."""

    module: str
    name: str
    without_it: str


PACKAGES = (
    Package("lycoris", "lycoris-lora", "Training does not work. Pictures with finished adapters can be made."),
    Package("safetensors", "safetensors", "Training does not work: adapters cannot be written."),
    Package("bitsandbytes", "bitsandbytes", "AdamW8bit is replaced by AdamW, which takes more memory."),
    Package("prodigyopt", "prodigyopt", "The optimizer Prodigy does not work. All others do."),
)


def missing_packages() -> list[Package]:
    return [package for package in PACKAGES if not find_spec(package.module)]


def show_missing() -> str:
    """A note for the top of the tab; "" when everything is there."""
    missing = missing_packages()
    if not missing:
        return ""
    lines = "".join(f"<li><code>{escape(p.name)}</code>: {escape(p.without_it)}</li>" for p in missing)
    return (
        f'<div class="train-lora-error"><b>Not installed here:</b><ul>{lines}</ul>'
        "Restart the WebUI: the extension's installer will try again.</div>"
    )
