"""Captions that are missing, and captions that are all the same."""

from __future__ import annotations

from collections.abc import Sequence

from lib_trainer.dataset.captions import has_word
from lib_trainer.dataset.checks.finding import Finding, plural
from lib_trainer.dataset.samples import Sample


def check_captions(samples: Sequence[Sample], trigger_word: str) -> list[Finding]:
    """Findings `caption` and `trigger`."""
    bare = tuple(sample.image for sample in samples if not sample.captioned)
    found = []
    if bare:
        instead = f"the trigger word “{trigger_word}”" if trigger_word else "an empty caption"
        found.append(Finding("caption", bare, f"{len(bare)} without a caption: trained with {instead}."))
    told = [sample for sample in samples if sample.captioned]
    without = tuple(sample.image for sample in told if not all(has_word(trigger_word, one) for one in sample.captions))
    # A scan says by itself that no caption has it.
    if trigger_word and 0 < len(without) < len(told):
        text = f"{plural(len(without))} whose caption lacks the trigger word “{trigger_word}”."
        found.append(Finding("trigger", without, text))
    return found
