"""The inputs of step 4, and the grid that they ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from lib_trainer.errors import UserError
from lib_trainer.finals import stages_of
from lib_trainer.host.base import GenerateRequest, LoraInfo
from lib_trainer.preview.names import find_lora, require_loras
from lib_trainer.preview.numbers import read_seeds, read_strengths
from lib_trainer.preview.plan import GridPlan, Varied, combined_plan, epoch_plan, strength_plan
from lib_trainer.preview.prompts import prompt_lines
from lib_trainer.preview.tags import Use, names_in, with_lora
from lib_trainer.ui.try_lines import name_of

STRENGTHS, STEPS, PAIR = "Strengths", "Saved steps", "Two LoRAs"
MODES = (STRENGTHS, STEPS, PAIR)
# Latents are an eighth of the picture.
_SIDE_STEP_PX, _SMALLEST_PX = 8, 64


@dataclass(frozen=True)
class Given:
    """What the inputs hold, in the order of `TryPanel.inputs`, LoRAs by name. A number field may be empty."""

    mode: str
    lora: str
    strengths: str
    other: str
    other_strengths: str
    prompt: str
    negative: str
    width: float | None
    height: float | None
    steps: float | None
    cfg: float | None
    sampler: str | None
    schedule: str | None
    seeds: str

    @classmethod
    def read(cls, *values: Any) -> Given:
        """From the inputs' own values, where a LoRA is a line of its list."""
        given = cls(*values)
        return replace(given, lora=name_of(given.lora), other=name_of(given.other))

    def request(self) -> GenerateRequest:
        """All of a picture but its prompt. Raises UserError for a number that is missing."""
        if not all((self.width, self.height, self.steps, self.cfg)):
            raise UserError("A number is missing.", "Fill in width, height, steps and CFG scale.")
        width_px, height_px = (
            max(_SMALLEST_PX, int(side) // _SIDE_STEP_PX * _SIDE_STEP_PX) for side in (self.width, self.height)
        )
        return GenerateRequest(
            "", self.negative, width_px, height_px, int(self.steps), float(self.cfg), self.sampler or "",
            self.schedule or "", read_seeds(self.seeds)[0],
        )  # fmt: skip

    def picture(self, loras: Sequence[LoraInfo]) -> GenerateRequest:
        """One picture of the first prompt, with the chosen LoRA at the strength of its card."""
        prompt = next(iter(prompt_lines(self.prompt)), "")
        if self.lora:
            lora = _find(self.lora, loras)
            if not set(names_in(prompt)) & {lora.name, *lora.aliases}:
                prompt = with_lora(prompt, Use(lora.name, lora.strength or 1.0))
        return replace(self.request(), prompt=prompt)

    def plan(self, loras: Sequence[LoraInfo]) -> GridPlan:
        """The grid. Without a chosen LoRA the first of the prompts is meant.

        Raises:
            UserError: for names, numbers and prompts that cannot be.
        """
        prompts, seeds = prompt_lines(self.prompt), read_seeds(self.seeds)
        if not prompts:
            raise UserError("There is no prompt.", "Write one a line.")
        lora = _find(self.lora or next(iter(names_in(self.prompt)), ""), loras)
        base, strengths = self.request(), read_strengths(self.strengths)
        if self.mode == STEPS:
            stages = [(stage.name, label) for stage, label in stages_of(lora.name, loras)]
            if len(stages) < 2:
                raise UserError(f"There are no saved steps of {lora.name}.", "See “Save every” in all settings.")
            return epoch_plan(base, prompts, seeds, stages, strengths)
        varied = Varied(lora.name, lora.aliases)
        if self.mode == STRENGTHS:
            return strength_plan(base, prompts, seeds, varied, strengths)
        if not self.other:
            raise UserError("Choose the LoRA beside it.", "Or compare strengths of one.")
        other = _find(self.other, loras)
        across = read_strengths(self.other_strengths)
        return combined_plan(base, prompts, seeds, (varied, strengths), (Varied(other.name, other.aliases), across))


def _find(name: str, loras: Sequence[LoraInfo]) -> LoraInfo:
    if not name:
        raise UserError("Choose a LoRA first.", "What you train appears in the list when it is saved.")
    # Its family is asked when the checkpoint is known.
    require_loras([Use(name, 1).tag], loras, None)
    return find_lora(name, loras)
