"""What is known of a run that was begun: the content of its `run.json`."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lib_trainer.config.recipe import Recipe, field_types

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PastRun:
    """The record of a run.

    Attributes:
        state: queued, training, done, stopped or failed. A run that neither ended nor runs was interrupted.
        started, ended: wall clock in seconds since 1970; 0 where it is not over.
        step, steps: taken, and of the whole run. `kept_step`: the step that a resume continues from; -1 without one.
        recipe: `Recipe.flat()`. checkpoint, pictures: what it trained on; the second is a fingerprint.
        files: names in the LoRA folder. samples: (step, file name in `samples`, prompt).
        evaluations: what was measured, oldest first: the values of `events.Evaluated`.
        evaluated: the same of the adapter that the run left; None for a run without evaluation.
    """

    id: str
    name: str
    state: str = "queued"
    started: float = 0.0
    ended: float = 0.0
    step: int = 0
    steps: int = 0
    loss: float = 0.0
    kept_step: int = -1
    recipe: dict[str, Any] | None = None
    checkpoint: str = ""
    pictures: str = ""
    files: tuple[str, ...] = ()
    samples: tuple[tuple[int, str, str], ...] = ()
    evaluations: tuple[dict[str, Any], ...] = ()
    evaluated: dict[str, Any] | None = None
    error: str = ""

    @property
    def resumable(self) -> bool:
        return self.recipe is not None and (self.state != "done" or self.extendable)

    @property
    def extendable(self) -> bool:
        """Done, with a state from which it can take more steps."""
        return self.state == "done" and 0 < self.step <= self.kept_step

    @property
    def proposed_steps(self) -> int:
        """The steps of the whole run with those that may still help; 0 where it cannot go on or none would."""
        more = (self.evaluated or {}).get("more_steps", 0)
        return self.step + more if self.extendable and more else 0

    def as_recipe(self) -> Recipe:
        """Its recipe; settings that this release does not know are left out."""
        known = field_types()
        return Recipe().with_values({name: value for name, value in (self.recipe or {}).items() if name in known})


def read_run(path: Path) -> PastRun | None:
    """The run whose `run.json` this is; None where it cannot be read."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        known = {item.name for item in fields(PastRun)}
        values = {name: value for name, value in data.items() if name in known}
        values["samples"] = tuple(tuple(sample) for sample in values.get("samples", ()))
        values["files"] = tuple(values.get("files", ()))
        values["evaluations"] = tuple(dict(found) for found in values.get("evaluations", ()))
        return PastRun(**{**values, "id": path.parent.name})
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        _log.warning("%s cannot be read: %s", path, error)
        return None
