"""Sample images during training: the same prompts and seeds each time, with the adapter so far."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import torch
from PIL.Image import Image

from lib_trainer.adapter.attach import Adapter
from lib_trainer.config.recipe import Recipe
from lib_trainer.dataset.sampler import Schedule
from lib_trainer.errors import ConfigError
from lib_trainer.events import Event, Notice, Progress, Sampled, Step
from lib_trainer.host.base import GenerateRequest, Host, picture_problem
from lib_trainer.lora.prompts import escape_brackets
from lib_trainer.models.families import Family
from lib_trainer.training.interval import is_due
from lib_trainer.utils.atomic_file import replace_file

SEED = 1
# kohya's options after a prompt: https://github.com/kohya-ss/sd-scripts, "prompt file".
_OPTION = re.compile(r"\s--([a-z]+)\s+((?:(?!\s--[a-z]+\s).)*)")
_NUMBERS = {"w": "width_px", "h": "height_px", "d": "seed", "s": "steps"}
_log = logging.getLogger(__name__)


def sample_requests(recipe: Recipe, family: Family | None = None) -> list[GenerateRequest]:
    """One request for each line of `sample_prompts`, or for the trigger word alone; in the training resolution.

    Raises:
        ConfigError: an option is unknown, or its value is not a number.
    """
    # The VAE needs multiples of 8.
    width_px, height_px = (side // 8 * 8 for side in recipe.dataset.resolution_px)
    plain = GenerateRequest("", width_px=width_px, height_px=height_px, seed=SEED)
    if family is not None:
        plain = replace(plain, cfg_scale=family.cfg_scale)
    lines = [line.strip() for line in recipe.output.sample_prompts.splitlines()]
    wanted = [line for line in lines if line and not line.startswith("#")]
    wanted = wanted or [escape_brackets(recipe.dataset.trigger_word)]
    return [_request(line, plain) for line in wanted]


def _request(line: str, plain: GenerateRequest) -> GenerateRequest:
    text, options = f" {line}", {}
    for letter, value in _OPTION.findall(text):
        try:
            if letter in _NUMBERS:
                options[_NUMBERS[letter]] = int(value)
            elif letter == "l":
                options["cfg_scale"] = float(value)
            elif letter == "n":
                options["negative_prompt"] = value.strip()
            else:
                raise ConfigError({"sample_prompts": f"--{letter} in {line!r} is unknown; use n, w, h, d, s or l"})
        except ValueError as error:
            problem = f"--{letter} {value.strip()} in {line!r} is not a number"
            raise ConfigError({"sample_prompts": problem}) from error
    for side in ("width_px", "height_px"):
        options[side] = max(64, options.get(side, getattr(plain, side)) // 8 * 8)
    steps = options.get("steps", plain.steps)
    if problem := picture_problem(options["width_px"], options["height_px"], steps):
        raise ConfigError({"sample_prompts": f"{problem}, in {line!r}"})
    return replace(plain, prompt=_OPTION.sub("", text).strip(), **options)


@dataclass(frozen=True)
class Sampling:
    """Draws the samples into `folder`; without one it draws nothing.

    Attributes:
        adapter: attached to the model that the host draws with.
    """

    host: Host
    recipe: Recipe
    schedule: Schedule
    adapter: Adapter
    folder: Path | None

    def is_due(self, step: Step) -> bool:
        """Whether samples are due after this step."""
        output = self.recipe.output
        steps, epochs = output.sample_every_n_steps, output.sample_every_n_epochs
        return is_due(step, self.schedule, every_steps=steps, every_epochs=epochs)

    def draw(self, step: Step) -> Iterator[Event]:
        """One image a prompt. A failure becomes a Notice, and training continues."""
        if self.folder is None:
            return
        for number, request in enumerate(self.requests(), start=1):
            yield Progress("training", step.number, step.total, f"Generating sample {number}")
            try:
                if picture := self.picture(request):
                    path = self.folder / f"step{step.number:08d}-{number}.png"
                    content = BytesIO()
                    picture.save(content, "PNG")
                    replace_file(path, content.getvalue())
                    yield Sampled(path, step.number, request.prompt)
                else:
                    yield Notice(f"Sample {number} of step {step.number} was interrupted.")
            except Exception as error:  # noqa: BLE001 - whatever it was, hours of training must not end for it
                yield failure_notice(error)
                return

    def requests(self) -> list[GenerateRequest]:
        """`sample_requests` for the checkpoint that is trained on."""
        return sample_requests(self.recipe, self.host.drawing_family())

    def picture(self, request: GenerateRequest, strength: float = 1.0) -> Image | None:
        """A picture with the adapter at this strength, as it will be used: without dropout. None if interrupted."""
        # Samples must not change what training draws next.
        with torch.random.fork_rng(), self.adapter.at(strength):
            pictures = self.host.generate(request)
        return pictures[0] if pictures else None


def failure_notice(error: Exception) -> Notice:
    """Why there is no sample, in a line; the whole traceback is logged."""
    _log.error("The sample could not be generated", exc_info=error)
    # Some exceptions have no text.
    text = str(error).strip() or type(error).__name__
    return Notice(f"A sample could not be generated: {text.splitlines()[0]:.200}")
