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
_SAVED_STEP = re.compile(r"(.+)-(\d{6}|step\d{8})")


def run_name(name: str) -> str:
    """The name of the run that a file belongs to: NAME for NAME and NAME-000003."""
    match = _SAVED_STEP.fullmatch(name)
    return match[1] if match else name


def saved_steps_of(name: str, loras: Sequence[LoraInfo]) -> list[tuple[LoraInfo, str]]:
    """(file, label) of every saved step of the run that `name` belongs to, in the order of training.

    The final file comes last of those with as many steps.
    """
    base = run_name(name)
    chosen = next((lora for lora in loras if lora.name == name), None)
    found = []
    for lora in loras:
        match = _SAVED_STEP.fullmatch(lora.name)
        # Two folders may hold runs of one name.
        same_folder = chosen is not None and lora.path.parent == chosen.path.parent
        if same_folder and not lora.problem and (lora.name == base or (match and match[1] == base)):
            found.append((lora, match[2] if match else ""))
    # A file that says nothing of its steps is ordered by its name, and the final one without either comes last.
    found.sort(key=lambda item: (item[0].steps or _number(item[1]) or inf, item[1] == "", _number(item[1])))
    return [(lora, _label(lora, suffix)) for lora, suffix in found]


def make_final(saved: LoraInfo, loras: Sequence[LoraInfo], strength: float) -> Path:
    """Makes a saved step the final file of its run, and `strength` what its card proposes.

    Returns its path; the caller tells the host, whose caches know the old file. The file that was final stays, under
    the name of its step, unless a saved step holds the same tensors already.

    Raises:
        UserError: when another program made the final file, or it cannot be written.
    """
    base = run_name(saved.name)
    target = saved.path.with_name(f"{base}{saved.path.suffix}")
    if target != saved.path:
        if target.exists():
            _keep_old_final(target, saved, loras)
        copy_adapter(saved.path, target, base, strength)
    prefer_strength(replace(saved, name=base, path=target), strength)
    return target


def _keep_old_final(target: Path, saved: LoraInfo, loras: Sequence[LoraInfo]) -> None:
    if not is_ours(target):
        raise UserError(f"{target.name} was made by another program.", "Rename it, then choose again.")
    wanted = tensors_hash(target)
    others = [lora.path for lora, _ in saved_steps_of(saved.name, loras) if lora.path != target]
    if any(tensors_hash(path) == wanted for path in others):
        return
    base, number = target.stem, int(float(read_metadata(target).get("ss_steps", 0)))
    while (path := target.with_name(f"{base}-step{number:08d}{target.suffix}")).exists():
        number += 1
    copy_adapter(target, path, path.stem)


def _number(suffix: str) -> int:
    return int(re.sub(r"\D", "", suffix) or 0)


def _label(lora: LoraInfo, suffix: str) -> str:
    """`epoch 3 · step 300`, `step 200`, `final · step 1200`."""
    number = _number(suffix)
    # A file named by steps, or an epoch's whose number is the steps it took, gets one number only.
    after_steps = suffix.startswith("step") or number == lora.steps
    parts = ["final"] if not suffix else [] if after_steps else [f"epoch {number}"]
    if steps := lora.steps or (number if after_steps else 0):
        parts.append(f"step {steps}")
    return " · ".join(parts)
