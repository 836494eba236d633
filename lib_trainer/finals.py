"""The saved steps of one run, and which of them becomes the final file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from math import inf
from pathlib import Path

from lib_trainer.adapter.copying import copy_adapter, tensors_hash
from lib_trainer.adapter.files import read_metadata
from lib_trainer.cards import keep_picture, prefer_strength
from lib_trainer.errors import UserError
from lib_trainer.host.base import Host, LoraInfo
from lib_trainer.preview.drawing import Drawn
from lib_trainer.preview.names import find_lora
from lib_trainer.saving import is_ours

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


def make_final(host: Host, stage: LoraInfo, loras: Sequence[LoraInfo], strength: float) -> Path:
    """Makes a saved step the final file of its run, and `strength` what its card proposes.

    The file that was final stays, under the name of its step, unless a saved step holds the same numbers already.

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
    host.lora_changed(target)
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


def choose(host: Host, item: Drawn) -> str:
    """What a person means by "this one": its file becomes final, its strength the card's, its picture the card's.

    Of two LoRAs together only the first gets the picture: how strong it is beside another says nothing of it alone.
    The answer is a sentence that says what was done.

    Raises:
        UserError: for a picture without the LoRA, or what cannot be written.
    """
    use = item.cell.uses[0]
    loras = host.loras()
    lora = find_lora(use.name, loras)
    if not use.strength or lora is None:
        raise UserError(f"{use.name} is not in this picture.", "Choose one with a strength other than 0.")
    done = []
    path = lora.path
    if len(item.cell.uses) == 1:
        path = make_final(host, lora, loras, use.strength)
        if path != lora.path:
            done.append(f"{lora.name} is now {path.stem}")
        done.append(f"the card of {path.stem} proposes strength {use.strength:g}")
    keep_picture(replace(lora, name=path.stem, path=path), item.picture, item.infotext)
    host.lora_changed(path)
    done.append(f"this is the card's picture{'' if len(item.cell.uses) == 1 else f' of {path.stem}'}")
    text = ", and ".join([", ".join(done[:-1]), done[-1]] if len(done) > 1 else done)
    return f"Done: {text}."
