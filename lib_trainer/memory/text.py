"""The text encoders as stretches, for runs that train them too."""

from __future__ import annotations

from collections.abc import Iterator

from lib_trainer.adapter.functional import Operation
from lib_trainer.families import Family
from lib_trainer.memory.unet import Stage, Stretch

_TOKENS, _VOCABULARY = 77, 49408


def text_stretches(family: Family) -> Iterator[Stretch]:
    """Every layer of every text encoder, for one picture with one chunk of text, in the order of forward."""
    for width, layers in family.text_encoders:
        yield Stretch((), 0, 0, lean=False, other_weights=(_VOCABULARY + _TOKENS) * width)
        for _ in range(layers):
            yield _layer(width)


def _layer(width: int) -> Stretch:
    """Self-attention and an MLP four times as wide, each behind a norm."""
    unit, tokens = _TOKENS * width, (_TOKENS, width)
    side = Operation((width, width))
    # Norm 1 and 2: their input and output; q, k, v and the result; the MLP before and after its activation.
    kept = 2 * 2 * unit + 4 * unit + 2 * 4 * unit
    stages = (
        Stage(Operation((width, 4 * width)), (_TOKENS, 4 * width), kept),
        Stage(Operation((4 * width, width)), tokens, kept - 4 * unit),
        *(Stage(side, tokens, 6 * unit) for _ in range(4)),
    )
    return Stretch(stages, kept, kept, lean=False)
