"""What the figures of a run mean, in a word and in a sentence that says what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from lib_trainer.evaluation.choice import Choice
from lib_trainer.evaluation.constants import (
    DAMAGED_DRIFT,
    LEAST_BOUND,
    LEAST_LEARNED,
    MEMORISED_ALONE,
    MEMORISED_GAP,
    OVERDRIVEN_STRENGTH,
)

NOT_LEARNED, LEARNED, BURNING, MEMORISING = "not learned yet", "learned", "burning", "memorising"


class Measured(Protocol):
    """What a verdict looks at: `Figures`, or an `Evaluated` of before."""

    @property
    def learned(self) -> float: ...

    @property
    def drift(self) -> float: ...

    @property
    def memorised(self) -> float | None: ...

    @property
    def bound(self) -> float | None: ...

    @property
    def least_loss_strength(self) -> float: ...


@dataclass(frozen=True)
class Pictures:
    """What a verdict has to know of the pictures of a run.

    Attributes:
        trigger_word: "" where the run has none.
        named: some caption has the trigger word.
        few: too few to hold some out.
    """

    trigger_word: str = ""
    named: bool = True
    few: bool = False


def judge(figures: Measured, choice: Choice, pictures: Pictures) -> tuple[str, str, int]:
    """(verdict, a sentence with what to do, more steps that may help) of weights in the run that `choice` follows."""
    verdict, advice = _judge(figures, choice, pictures)
    if advice:
        return verdict, advice, 0
    said, more = f"{figures.learned:.0%} of the loss is gone", _rounded(choice.steps_to_go())
    if not more:
        return verdict, f"Only {said}, and more steps do not help. Raise the learning rate or the rank.", 0
    return verdict, f"{said}, and it still grows. About {more} more steps may help.", more


def _judge(figures: Measured, choice: Choice, pictures: Pictures) -> tuple[str, str]:
    """(verdict, sentence); "" for one that is not learned yet for want of steps."""
    use = f"Use step {choice.best_step} at strength {choice.best_strength:g}"
    peak, lost, gap = figures.least_loss_strength, figures.drift, figures.memorised
    word = pictures.trigger_word
    # Certain before any figure: nothing can bind a word that no caption has.
    if word and not pictures.named:
        said = f"The captions never bind the trigger word “{word}”: none of them has it"
        return NOT_LEARNED, f"{said}. Put the word into every caption, and train again."
    # From here the gravest first.
    if peak < OVERDRIVEN_STRENGTH:
        return (
            BURNING,
            f"The learning rate is too high: the loss is least at strength {peak:.2f}. Lower the rate. {use}.",
        )
    if lost > DAMAGED_DRIFT:
        return BURNING, f"Unrelated prompts have changed (drift {lost:.2f}). Fewer steps or a lower rate help. {use}."
    if gap is not None and gap > MEMORISED_GAP:
        said = f"Training pictures are learned by heart ({gap:.0%} ahead of held-out ones)"
        return MEMORISING, f"{said}. More pictures or fewer steps help. {use}."
    if pictures.few and figures.learned > MEMORISED_ALONE:
        said = f"{figures.learned:.0%} of the loss on the pictures is gone, and too few are there to hold some out"
        return MEMORISING, f"{said}: they are likely learned by heart. More pictures or fewer steps help. {use}."
    # While a run still learns, binding may still come.
    if figures.bound is not None and figures.bound < LEAST_BOUND and choice.is_flat:
        said = f"The captions never bind the trigger word “{word}”: without it as much is learned"
        return NOT_LEARNED, f"{said}. Put the word into every caption, and train again."
    if choice.is_flat and figures.learned >= LEAST_LEARNED:
        return LEARNED, f"More steps do not help. {use}."
    return NOT_LEARNED, ""


def _rounded(steps: int) -> int:
    """To two digits, at least: a forecast is not a measurement."""
    unit = 10 ** max(0, len(str(steps)) - 2)
    return -(-steps // unit) * unit
