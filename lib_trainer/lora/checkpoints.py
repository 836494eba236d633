"""The saved steps of one run, and which of them becomes the final file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from math import inf
from pathlib import Path

from lib_trainer.adapter.io import copy_adapter, is_ours, read_metadata, tensors_hash
from lib_trainer.errors import UserError
from lib_trainer.lora.card import prefer_strength
from lib_trainer.lora.info import LoraInfo

# kohya's names: NAME-000003 after an epoch, NAME-step00000200 after a number of steps.
_STAGE = re.compile(r"(.+)-(\d{6}|step\d{8})")


def run_name(name: str) -> str:
    """The name of the run that a file belongs to: NAME for NAME and NAME-000003."""
    match = _STAGE.fullmatch(name)
    return match[1] if match else name


def stages_of(name: str, loras: Sequence[LoraInfo]) -> list[tuple[LoraInfo, str]]:
    """(file, label) of every saved step of the run that `name` belongs to, in the order of training.

    The final file comes last of those with as many steps.
    """
    base = run_name(name)
    chosen = next((lora for lora in loras if lora.name == name), None)
    found = []
    for lora in loras:
        match = _STAGE.fullmatch(lora.name)
        same_folder = chosen is not None and lora.path.parent == chosen.path.parent
        if same_folder and not lora.problem and (lora.name == base or (match and match[1] == base)):
            found.append((lora, match[2] if match else ""))
    found.sort(key=lambda item: (item[0].steps or _number(item[1]) or inf, item[1] == "", _number(item[1])))
    return [(lora, _label(lora, stage)) for lora, stage in found]


def make_final(stage: LoraInfo, loras: Sequence[LoraInfo], strength: float) -> Path:
    """Makes a saved step the final file of its run, and `strength` what its card proposes.

    Returns its path; the caller tells the host, whose caches know the old file. The file that was final stays, under
    the name of its step, unless a saved step holds the same numbers already.

    Raises:
        UserError: when the final file is not ours to replace, or cannot be written.
    """
    base = run_name(stage.name)
    target = stage.path.with_name(f"{base}{stage.path.suffix}")
    if target != stage.path:
        if target.exists():
            _keep_final(target, stage, loras)
        copy_adapter(stage.path, target, base, strength)
    final = replace(stage, name=base, path=target)
    prefer_strength(final, strength)
    return target


def _keep_final(target: Path, stage: LoraInfo, loras: Sequence[LoraInfo]) -> None:
    if not is_ours(target):
        raise UserError(f"{target.name} was made by another program.", "Rename it, then choose again.")
    wanted = tensors_hash(target)
    kept = [lora.path for lora, _ in stages_of(stage.name, loras) if lora.path != target]
    if any(tensors_hash(path) == wanted for path in kept):
        return
    base, number = target.stem, int(float(read_metadata(target).get("ss_steps", 0)))
    while (path := target.with_name(f"{base}-step{number:08d}{target.suffix}")).exists():
        number += 1
    copy_adapter(target, path, path.stem)


def _number(stage: str) -> int:
    return int(re.sub(r"\D", "", stage) or 0)


def _label(lora: LoraInfo, stage: str) -> str:
    """`epoch 3 · step 300`, `step 200`, `final · step 1200`."""
    number = _number(stage)
    after_steps = stage.startswith("step") or number == lora.steps
    parts = ["final"] if not stage else [] if after_steps else [f"epoch {number}"]
    if steps := lora.steps or (number if after_steps else 0):
        parts.append(f"step {steps}")
    return " · ".join(parts)
