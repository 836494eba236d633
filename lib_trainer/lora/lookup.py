"""Checks the LoRAs of a prompt before anything is drawn: a WebUI drops unknown ones without a message."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from lib_trainer.errors import UserError
from lib_trainer.lora.info import LoraInfo
from lib_trainer.lora.tags import names_in
from lib_trainer.models.families import Family

_SHOWN = 2


def find_lora(name: str, loras: Sequence[LoraInfo]) -> LoraInfo | None:
    """The file that a prompt means by this name; a file that no prompt can call only if there is no other."""
    # Its own name wins over the alias of another file, as in the WebUIs.
    found = [lora for lora in loras if name == lora.name] or [lora for lora in loras if name in lora.aliases]
    return min(found, key=lambda lora: bool(lora.problem), default=None)


def trained_over(lora: LoraInfo, loras: Sequence[LoraInfo]) -> tuple[LoraInfo, float] | None:
    """A LoRA that acted while this one was trained, and at which strength; None where there is none, or no longer."""
    found = ((find_lora(name, loras), strength) for name, strength in lora.trained_over)
    return next(((other, strength) for other, strength in found if other is not None), None)


def require_loras(prompts: Iterable[str], loras: Sequence[LoraInfo], family: Family | None) -> None:
    """Checks every `<lora:NAME:…>` of the prompts.

    Args:
        family: of the checkpoint that will draw; None where it is not known yet.

    Raises:
        UserError: for names without a file (all of them, with the nearest names), a file that no prompt can call, or
            one made for another family.
    """
    names = list(dict.fromkeys(name for prompt in prompts for name in names_in(prompt)))
    found = {name: find_lora(name, loras) for name in names}
    missing = [name for name, lora in found.items() if lora is None]
    # All of them at once; Forge drops every LoRA of a prompt that has an unknown one.
    if missing:
        raise missing_loras(missing, loras)
    for lora in found.values():
        if lora.problem:
            raise UserError(f"{lora.name} cannot be used in a prompt: {lora.problem}.", "Rename the file.")
        if misfit(lora, family):
            raise UserError(
                f"{lora.name} was made for {lora.family.label}, the loaded checkpoint is {family.label}.",
                f"Choose another one, or load an {lora.family.label} checkpoint.",
            )


def missing_loras(names: Sequence[str], loras: Sequence[LoraInfo]) -> UserError:
    """The error for names without a file, with the nearest names that have one."""
    return UserError(f"There is no LoRA named {', '.join(names)}.", _hint(names, loras))


def misfit(lora: LoraInfo, family: Family | None) -> bool:
    """Whether the checkpoint is known to be of another family than the LoRA."""
    # Unknown families are let through: the file may still fit.
    return lora.family is not None and family is not None and lora.family is not family


def _hint(missing: Sequence[str], loras: Sequence[LoraInfo]) -> str:
    known = {name.lower(): name for lora in loras for name in (lora.name, *lora.aliases)}
    near = []
    for name in map(str.lower, missing):
        # Typing errors first; else a name that contains what was typed.
        near += get_close_matches(name, known, _SHOWN) or [other for other in known if name in other][:_SHOWN]
    shown = " or ".join(dict.fromkeys(known[name] for name in near))
    return f"Did you mean {shown}?" if near else "Look at the names in the Lora tab."
