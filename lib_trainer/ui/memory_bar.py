"""One bar: how much VRAM the run will take, before it begins."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_trainer.config.recipe import Recipe
from lib_trainer.config.start import is_path
from lib_trainer.errors import UserError
from lib_trainer.host.access import Access
from lib_trainer.host.base import Host
from lib_trainer.lora.lookup import find_lora
from lib_trainer.ui.recipe_check import require_allowed

if TYPE_CHECKING:
    from lib_trainer.memory.plan import Plan

UNKNOWN = "Memory: estimated when a checkpoint that can be trained is selected."
_GIB = 2**30
# Smaller parts would be a hairline in the bar.
_SHOWN_SHARE = 0.005


def show_memory(host: Host, entered: Mapping[str, Any], access: Access | None = None) -> str:
    """The bar for what the inputs hold; a sentence before a checkpoint is known; "" where an input is invalid."""
    access = access or Access()
    # Imported late: a page that is only opened should not wait for torch.
    from lib_trainer.memory.planner import plan_from_profile

    try:
        recipe = Recipe().with_values(dict(entered)).check(needs_name=False)
        memory_profile = host.memory_profile()
        if memory_profile is None:
            return _sentence(UNKNOWN)
        # By the family train_lora_settings.js hides the settings that do not apply.
        bar = show_plan_bar(plan_from_profile(memory_profile, recipe, *_lora_files(host, recipe, access)))
        return f'<div data-family="{memory_profile.family.key}">{bar}</div>'
    except UserError:
        # Train says it beside the field.
        return ""


def _lora_files(host: Host, recipe: Recipe, access: Access) -> tuple[Path | None, list[Path]]:
    """The file whose layers and ranks are trained, None where the recipe's are; and those of the frozen LoRAs.

    Files that are not there are left out. Raises UserError for a path that the page may not name.
    """
    start = recipe.start
    names = [start.network_weights if start.dim_from_weights else "", *(name for name, _ in start.base_loras)]
    paths = [_lora_file(host, name, access) for name in names]
    return paths[0], [path for path in paths[1:] if path]


def _lora_file(host: Host, name: str, access: Access) -> Path | None:
    if is_path(name):
        require_allowed(access, name)
        path = Path(name).expanduser()
        return path if path.is_file() else None
    found = find_lora(name.removesuffix(".safetensors"), host.loras()) if name else None
    return found.path if found else None


def show_plan_bar(plan: Plan) -> str:
    from lib_trainer.memory.planner import describe_savings, show_gib, what_would_help

    budget_bytes = plan.budget.total_bytes if plan.budget else 0
    # Over budget, the bar's full length is the need; else it is the budget.
    scale = max(plan.total_bytes, budget_bytes)
    # The numbers beside the bar add up all the same: they come from the plan.
    shown = {name: size for name, size in plan.named_parts.items() if size >= _SHOWN_SHARE * scale}
    parts = "".join(_part(name, size, scale) for name, size in shown.items())
    legend = "".join(_label(name, show_gib(size)) for name, size in shown.items())
    of_budget = f" of {budget_bytes / _GIB:.1f} GB" if budget_bytes else " GB"
    # What the plan does to fit, so that a slow run does not surprise.
    savings = "; ".join(describe_savings(plan))
    told = f": {escape(savings)}." if savings else "."
    lines = f"<p><b>{show_gib(plan.total_bytes)}{of_budget}</b> of memory{told}</p>"
    if not plan.fits:
        lines += f'<p class="wrong">This will probably not fit. {escape(what_would_help(plan))}</p>'
    state = "" if plan.fits else " over"
    bar = f'<div class="parts">{parts}</div><p class="legend">{legend}</p>'
    return f'<div class="train-lora-memory{state}">{bar}{lines}</div>'


def _part(name: str, size: int, scale: int) -> str:
    title = f"{name}: {size / _GIB:.2f} GB"
    return f'<div class="{_key(name)}" style="width: {100 * size / scale:.2f}%" title="{escape(title)}"></div>'


def _label(name: str, size: str) -> str:
    return f'<span><i class="{_key(name)}"></i>{escape(name.removeprefix("the "))} {size}</span>'


def _key(name: str) -> str:
    """A part's class in style.css: `checkpoint` of "the checkpoint"."""
    return escape(name.removeprefix("the ").removeprefix("its ").split()[0])


def _sentence(text: str) -> str:
    return f'<div class="train-lora-memory"><p>{escape(text)}</p></div>'
