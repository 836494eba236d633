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

OneTrainer's first `additional_embeddings` entry that is trained becomes the embedding of
[pivotal tuning](loras.md). kohya_ss and sd-scripts train embeddings in runs
of their own, which are not LoRAs.

## The recipes for transformers

`presets/loha_face_flow_8gb.json` and `lokr_style_flow_8gb.json` take their values from the guides of sd-scripts
(48d368fa) and musubi-tuner (30c658c). These train plain LoRA; nobody publishes values for LoHa and LoKr on these
families, so theirs are used as they are.

| Setting | Value | Source |
|---|---|---|
| learning_rate | 1e-4 | sd-scripts for Flux.1, Lumina 2 and Anima; musubi-tuner for Z-Image and FLUX.2 |
| network_dim | 16 | sd-scripts for Flux.1; musubi-tuner has 32, sd-scripts 8 for Lumina 2 and Anima |
| network_alpha | 16 | ours, as large as the rank; sd-scripts' guide for Flux.1 has 1 |
| timestep_sampling | shift | sd-scripts' second choice for Flux.1, musubi-tuner for Z-Image |
| guidance_scale, model_prediction_type | 1, raw | sd-scripts for Flux.1 |
| caption_dropout_rate, lr_scheduler | 0, constant | the defaults of both |
| optimizer | AdamW8bit | both |

`discrete_flow_shift` 0 is the family's own:

| Family | Shift | Source |
|---|---|---|
| Flux.1 | 3.1582 | sd-scripts, `docs/flux_train_network.md` |
| Z-Image | 2.0 | musubi-tuner, `docs/zimage.md` |
| FLUX.2 Klein | 3.1582 | musubi-tuner's `flux2_shift` at 1024×1024 px; `flux_shift` here is the same by size |
| Lumina 2 | 6.0 | sd-scripts, `docs/lumina_train_network.md`, which adds a shift by size (`nextdit_shift`) |
| Chroma, Anima | 1.0 | sd-scripts trains them with `sigmoid`, which is a shift of 1 |

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
