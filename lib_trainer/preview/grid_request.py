"""What a person asks for in step 4, and the grid that it means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lib_trainer.errors import UserError
from lib_trainer.host.base import GenerateRequest, picture_problem
from lib_trainer.lora.checkpoints import saved_steps_of
from lib_trainer.lora.info import LoraInfo
from lib_trainer.lora.lookup import find_lora, require_loras, trained_over
from lib_trainer.lora.prompts import prompt_lines
from lib_trainer.lora.tags import LoraRef, names_in, with_lora
from lib_trainer.models.families import Family
from lib_trainer.preview.grid_spec import GridSpec, checkpoint_grid, combined_grid, strength_grid
from lib_trainer.preview.ranges import read_seeds, read_strengths, show_strengths, usual_strengths

STRENGTHS, STEPS, PAIR = "Strengths", "Saved steps", "Two LoRAs"
MODES = (STRENGTHS, STEPS, PAIR)
# Latents are an eighth of the picture.
_SIDE_STEP_PX, _SMALLEST_PX = 8, 64


@dataclass(frozen=True)
class GridRequest:
    """The inputs of the page or of a REST call, LoRAs by name. A number may be missing.

    Without strengths those that are usual for the LoRA are meant.
    """

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

    def request(self) -> GenerateRequest:
        """All of a picture but its prompt. Raises UserError for a number that is missing."""
        if not all((self.width, self.height, self.steps, self.cfg)):
            raise UserError("A number is missing.", "Fill in width, height, steps and CFG scale.")
        width_px, height_px = (
            # A typed 500 becomes 496, as the WebUI's own sliders would have it.
            max(_SMALLEST_PX, int(side) // _SIDE_STEP_PX * _SIDE_STEP_PX)
            for side in (self.width, self.height)
        )
        if problem := picture_problem(width_px, height_px, int(self.steps)):
            raise UserError(f"{problem}.", "Correct the number.")
        return GenerateRequest(
            "", self.negative, width_px, height_px, int(self.steps), float(self.cfg), self.sampler or "",
            self.schedule or "", read_seeds(self.seeds)[0],
        )  # fmt: skip

    def picture(self, loras: Sequence[LoraInfo]) -> GenerateRequest:
        """One picture of the first prompt, with the chosen LoRA at the strength of its card."""
        prompt = next(iter(prompt_lines(self.prompt)), "")
        if self.lora:
            lora = _find(self.lora, loras)
            # A tag in the prompt is the person's own choice of strength.
            if not set(names_in(prompt)) & {lora.name, *lora.aliases}:
                prompt = with_lora(prompt, LoraRef(lora.name, lora.strength or 1.0))
        return replace(self.request(), prompt=prompt)

    def grid_spec(self, loras: Sequence[LoraInfo]) -> GridSpec:
        """The grid. Without a chosen LoRA the first of the prompts is meant.

        Raises:
            UserError: for an unknown LoRA, an invalid number or a missing prompt.
        """
        prompts, seeds = prompt_lines(self.prompt), read_seeds(self.seeds)
        if not prompts:
            raise UserError("There is no prompt.", "Write one a line.")
        lora = _find(self.lora or next(iter(names_in(self.prompt)), ""), loras)
        base = self.request()
        strengths = read_strengths(self.strengths or show_strengths(usual_strengths(two_way=lora.two_way)))
        if self.mode == STEPS:
            saved = [(item.name, label) for item, label in saved_steps_of(lora.name, loras)]
            if len(saved) < 2:
                raise UserError(f"There are no saved steps of {lora.name}.", "See “Save every” in all settings.")
            return checkpoint_grid(base, prompts, seeds, saved, strengths)
        first = LoraRef(lora.name, aliases=lora.aliases)
        if self.mode == STRENGTHS:
            return strength_grid(base, prompts, seeds, first, strengths)
        # One that was trained over another is meant to be drawn with it.
        over = trained_over(lora, loras)
        if not self.other and over is None:
            raise UserError("Choose the LoRA beside it.", "Or compare strengths of one.")
        other = _find(self.other, loras) if self.other else over[0]
        second = LoraRef(other.name, aliases=other.aliases)
        across = read_strengths(self.other_strengths)
        return combined_grid(base, prompts, seeds, (first, strengths), (second, across))


def usual_cfg(family: Family | None) -> float:
    """What pictures of a checkpoint of this family are usually drawn with: 1 for distilled models."""
    return family.cfg_scale if family else GenerateRequest.cfg_scale


def _find(name: str, loras: Sequence[LoraInfo]) -> LoraInfo:
    if not name:
        raise UserError("Choose a LoRA first.", "What you train appears in the list when it is saved.")
    # Its family is checked when the grid is drawn: only then the checkpoint is known for sure.
    require_loras([LoraRef(name, 1).tag], loras, None)
    return find_lora(name, loras)
