"""`settings`: every setting of a recipe, for `--set` and for docs/settings.md."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import Field
from typing import Any

from lib_trainer.cli.output import Answer
from lib_trainer.config.groups import GROUPS
from lib_trainer.config.recipe import fields_by_group
from lib_trainer.config.task import MODES_OF

_HEAD = """# Settings

Every setting of a recipe, by the name that `--set NAME=VALUE` and recipe files use. Names are kohya's where kohya has
the setting. This page is written by `python -m lib_trainer settings --markdown`.
"""
_COLUMNS = "| Name | Label | Default | Values | Meaning | Only for |\n|---|---|---|---|---|---|"


def list_settings(*, as_markdown: bool) -> Answer:
    """All settings, by group: lines to read, or the text of docs/settings.md."""
    about = {
        item.name: {"default": item.default, **item.metadata, "modes": MODES_OF.get(item.name, ())}
        for items in fields_by_group().values()
        for item in items
    }
    text = _by_group(_row, f"\n## {{}}\n\n{_COLUMNS}") if as_markdown else _by_group(_line, "\n{}")
    return Answer({"settings": about}, (_HEAD + text if as_markdown else text.lstrip(),))


def _by_group(show: Callable[[Field], str], head: str) -> str:
    lines = []
    for group, items in fields_by_group().items():
        lines += [head.format(GROUPS[group]), *map(show, items)]
    return "\n".join(lines)


def _line(item: Field) -> str:
    values = f" ({values_of(item)})" if values_of(item) else ""
    about = f"{item.metadata['label']}{values}: {item.metadata['help']}"
    return f"  {item.name} = {_plain(item.default)}\n      {about}"


def _row(item: Field) -> str:
    about = item.metadata
    # Keys, not labels: they are what recipe files hold.
    only = ", ".join((*about["adapters"], *about["families"], *MODES_OF.get(item.name, ())))
    default = f"`{_plain(item.default)}`" if item.default != "" else ""
    cells = (f"`{item.name}`", about["label"], default, values_of(item), about["help"].replace("|", "\\|"), only)
    return "| " + " | ".join(cells) + " |"


def values_of(item: Field) -> str:
    """What a setting may be: `fp16, bf16, fp32`, `1 to 512 pictures`, `from 0`."""
    about = item.metadata
    if about["choices"]:
        return ", ".join(about["choices"])
    low, high = about["low"], about["high"]
    limits = "" if low is None else f"from {low:g}" if high is None else f"{_plain(low)} to {_plain(high)}"
    return " ".join(part for part in (limits, about["unit"]) if part)


def _plain(value: Any) -> str:
    """A value as `--set` takes it."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, float):
        return f"{value:g}"
    return str(value).lower() if isinstance(value, bool) else str(value)
