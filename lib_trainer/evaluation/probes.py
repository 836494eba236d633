"""Which pictures and prompts a run is measured on: chosen once, by its seed."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from lib_trainer.config.evaluation import NONE_HELD_OUT
from lib_trainer.config.recipe import Recipe
from lib_trainer.dataset.images import shown_name
from lib_trainer.dataset.scan import Scan
from lib_trainer.errors import ConfigError
from lib_trainer.evaluation.constants import HELD_OUT_EVERY, LEAST_PICTURES, MOST_HELD_OUT, TRAINED_PROBES

# One of a person and one of a thing, in words that every family and the embedded model know. What is preserved is
# measured on these, so that preservation must use others.
UNRELATED = ("a portrait of a person, smiling, looking left", "a green tree on a blue background")


@dataclass(frozen=True)
class ProbePlan:
    """What a run is measured on.

    Attributes:
        held_out: samples that are not trained on, as indices into `Scan.samples`.
        measured: those of them that are measured.
        trained: samples that are trained on and measured.
        concept: all samples that are trained on and show what is learned.
        trigger_word: "" where the run has none.
        named: some caption has the trigger word.
    """

    held_out: tuple[int, ...] = ()
    measured: tuple[int, ...] = ()
    trained: tuple[int, ...] = ()
    concept: tuple[int, ...] = ()
    trigger_word: str = ""
    named: bool = True

    @property
    def few(self) -> bool:
        """Too few pictures to hold some out."""
        return len(self.concept) + len(self.held_out) < LEAST_PICTURES

    @property
    def samples(self) -> tuple[int, ...]:
        return (*self.measured, *self.trained)

    def captions(self, scan: Scan) -> list[str]:
        """Every caption that an evaluation asks for; none where nothing is measured."""
        if not self.samples:
            return []
        shown = [scan.samples[index].caption for index in self.samples]
        word = self.trigger_word
        bound = [text for index in self.trained for text in bind_captions(scan.samples[index].caption, word) if word]
        return list(dict.fromkeys([*shown, *bound, *UNRELATED]))


def plan_probes(scan: Scan, recipe: Recipe) -> ProbePlan:
    """What a run with this recipe is measured on; nothing for one that is not evaluated.

    Raises:
        ConfigError: a picture that is to be held out is not there, or none is left to train on.
    """
    if not recipe.evaluation.evaluates:
        return ProbePlan()
    concept = _concept(scan)
    # Of its own: drawing here must not move what the run draws with its seed.
    rng = random.Random(f"{recipe.evaluation.validation_seed}/probes")
    held_out = _held_out(scan, concept, recipe, rng)
    rest = [index for index in concept if index not in held_out]
    if not rest:
        raise ConfigError({"held_out": "no picture would be left to train on"})
    most = recipe.evaluation.max_validation_steps or MOST_HELD_OUT
    # Their gap to the held-out ones shows what is memorised.
    trained = sorted(rng.sample(rest, min(TRAINED_PROBES, len(rest))))
    word = scan.trigger_word
    named = any(word.lower() in scan.samples[index].caption.lower() for index in concept)
    return ProbePlan(tuple(held_out), tuple(held_out[:most]), tuple(trained), tuple(rest), word, named)


def describe_held_out(plan: ProbePlan, scan: Scan) -> str:
    """The held-out pictures by name; "" where there are none."""
    names = ", ".join(shown_name(scan.samples[index].image) for index in plan.held_out)
    return f"Held out of training, to measure what is learned: {names}." if names else ""


def bind_captions(caption: str, trigger_word: str) -> tuple[str, str]:
    """The caption with the trigger word, put in front where it is missing, and with its class word instead."""
    found = re.compile(re.escape(trigger_word), re.IGNORECASE)
    named = caption if found.search(caption) else f"{trigger_word}, {caption}"
    return named, found.sub(class_word(trigger_word), named)


def class_word(trigger_word: str) -> str:
    """What kind of thing a trigger word names: `person` for `jeff_person`, `style` for `style_name`."""
    parts = [part for part in re.split(r"[\W_]+", trigger_word.lower()) if part]
    known = next(
        (part for part in parts if part in ("style", "person", "man", "woman", "girl", "boy", "dog", "cat")), ""
    )
    return known or (parts[-1] if len(parts) > 1 else "person")


def _concept(scan: Scan) -> list[int]:
    """The samples that show what is learned: those whose caption has the trigger word, else those whose folder has it.

    Pictures without it may be kohya's regularisation pictures, which remind the model of what it knows.
    """
    word, samples = scan.trigger_word.lower(), scan.samples
    own = [index for index, sample in enumerate(samples) if not sample.regularising]
    named = [index for index in own if word and word in samples[index].caption.lower()]
    # Captions that never name it are a mistake, which is found only by measuring these very pictures.
    named = named or [index for index in own if word and word in samples[index].image.parent.name.lower()]
    return named or own


def _held_out(scan: Scan, concept: Sequence[int], recipe: Recipe, rng: random.Random) -> list[int]:
    config = recipe.evaluation
    names = [name.strip() for name in config.held_out.split(",") if name.strip()]
    if names:
        return [] if [name.lower() for name in names] == [NONE_HELD_OUT] else _named(scan, names)
    if config.validation_split:
        count = max(1, round(config.validation_split * len(concept)))
    else:
        count = 0 if len(concept) < LEAST_PICTURES else min(MOST_HELD_OUT, len(concept) // HELD_OUT_EVERY)
    return sorted(rng.sample(list(concept), min(count, len(concept))))


def _named(scan: Scan, names: Sequence[str]) -> list[int]:
    found = {sample.image.name for sample in scan.samples}
    missing = [name for name in names if name not in found]
    if missing:
        raise ConfigError({"held_out": f"the folder has no picture named {', '.join(missing)}"})
    return [index for index, sample in enumerate(scan.samples) if sample.image.name in names]
