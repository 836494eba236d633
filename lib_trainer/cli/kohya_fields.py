"""`settings --kohya`: what becomes of every field of kohya_ss, for docs/recipes.md."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict

from lib_trainer.cli.output import Answer
from lib_trainer.recipes.kohya_other_models import OTHER_MODELS
from lib_trainer.recipes.kohya_table import FIELDS, KohyaField

_HEAD = """# Recipes from other programs

The page's *Open …*, `train`, `plan` and `save-recipe` read these files. Their names decide which one it is; a file that
is none of them is refused, with a note of what it looks like. An invalid value is reported beside its field, and the
rest is filled in. Settings without effect are listed with the reason. What a file leaves out stays off: a text encoder
learns only where the file says so.

| File | Written by |
|---|---|
| `{setting: value}` as JSON or TOML | Train LoRA, or by hand with the names of [settings](settings.md) |
| JSON with `LoRA_type` | kohya_ss, old files and version 26 |
| TOML or JSON with `network_module` | kohya's sd-scripts, and pages that write its arguments in sections |
| TOML with `[[datasets]]` | sd-scripts' `--dataset_config`: sizes, captions and augmentation of its first dataset |
| JSON with `training_method` | OneTrainer |
| `.safetensors` | an adapter that was trained here, or with sd-scripts: what its metadata say |

`python -m lib_trainer save-recipe RECIPE FILE` writes kohya_ss' JSON from any of them. It opens in kohya_ss, and comes
back here with the same values. `--format ours` writes our own.

## Fields of kohya_ss 26

All that kohya_ss 26 writes for a LoRA, with names of older releases. This page is written by
`python -m lib_trainer settings --kohya --markdown`.
"""
_TITLES = {
    "used": ("Used", "Mean here what they mean to kohya."),
    "approximated": ("Approximated", "Act differently here; loading the file says how."),
    "refused": ("Refused", "Would change the result and are not done here. Said when the file turns them on."),
    "ignored": ("Ignored", "Change nothing in the result. Said where a file's value could make one think otherwise."),
}


def list_kohya_fields(*, as_markdown: bool) -> Answer:
    """Every field with its fate and the reason: lines to read, or the text of docs/recipes.md."""
    about = {name: asdict(row) for name, row in FIELDS.items()}
    if not as_markdown:
        return Answer({"fields": about}, tuple(f"{row.name}: {row.fate}. {row.why}".strip() for row in FIELDS.values()))
    parts = [_HEAD]
    for fate, (title, text) in _TITLES.items():
        rows = [row for row in FIELDS.values() if row.fate == fate and row.name not in OTHER_MODELS]
        parts.append(f"### {title}\n\n{text}\n\n{_table(rows)}\n")
    others = _table([row for row in FIELDS.values() if row.name in OTHER_MODELS])
    parts.append(f"### Of other models\n\nIn every file of kohya_ss, and never used here.\n\n{others}")
    return Answer({"fields": about}, ("\n".join(parts),))


def _table(rows: Iterable[KohyaField]) -> str:
    """Fields with the same reason share a row."""
    by_reason: dict[str, list[str]] = {}
    for row in rows:
        by_reason.setdefault(row.why or "same name", []).append(f"`{row.name}`")
    lines = (f"| {', '.join(names)} | {why} |" for why, names in by_reason.items())
    return "\n".join(("| Field | Here |", "|---|---|", *lines))
