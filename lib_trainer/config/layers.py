"""Which layers are adapted, and with what rank and rate each. The names and meanings are LyCORIS' and sd-scripts'."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from lib_trainer.config.fields import setting
from lib_trainer.config.groups import LEARNS

# LyCORIS' presets: which kind of layer, whether of text encoders too, and whether of k×k convolutions.
PRESETS = {
    "full": ("any", True, True),
    "full-lin": ("any", True, False),
    "attn-mlp": ("transformer", True, False),
    "attn-only": ("attention", True, False),
    "unet-only": ("any", False, True),
    "unet-transformer-only": ("transformer", False, False),
    "unet-convblock-only": ("convblock", False, True),
}
# Blocks of a UNet: (encoder, middle, decoder), and whether one more stands before and after them.
SD_BLOCKS, SDXL_BLOCKS = (12, 1, 12, False), (9, 3, 9, True)
_MOST_BLOCKS = 25
_CURVES = ("cosine", "sine", "linear", "reverse_linear", "zeros")
_UNETS = ("sd1", "sd2", "sdxl")


# By keyword, so that the sections that build on it keep their order.
@dataclass(frozen=True, kw_only=True)
class LayerConfig:
    """Which layers are adapted, and how they differ."""

    lycoris_preset: str = setting(
        "full", "LyCORIS preset", "Which kinds of layers are trained: full is all of them.",
        group=LEARNS, choices=tuple(PRESETS),
    )  # fmt: skip
    network_reg_dims: str = setting(
        "", "Rank by name", "REGEX=RANK, separated by commas, searched in the layer's name; the first that fits counts,"
        " 0 leaves the layer alone.",
        group=LEARNS,
    )  # fmt: skip
    network_reg_lrs: str = setting(
        "", "Rate by name", "REGEX=RATE, as above: a learning rate of its own.", group=LEARNS
    )
    block_dims: str = setting(
        "", "Block dims", "A rank for each block of the UNet: 25 for SD 1.x and 2.x, 23 for SDXL.",
        group=LEARNS, families=_UNETS,
    )  # fmt: skip
    block_alphas: str = setting("", "Block alphas", "An alpha for each block.", group=LEARNS, families=_UNETS)
    conv_block_dims: str = setting(
        "", "Conv block dims", "A rank for the k×k convolutions of each block.", group=LEARNS, families=_UNETS
    )
    conv_block_alphas: str = setting(
        "", "Conv block alphas", "An alpha for the k×k convolutions of each block.", group=LEARNS, families=_UNETS
    )
    down_lr_weight: str = setting(
        "", "Down LR weights", "Factors of the rate, one for each block of the encoder (SDXL 9, else 12); or sine,"
        " cosine, linear, reverse_linear, zeros, with +0.2 to raise it. 0 leaves a block alone.",
        group=LEARNS, families=_UNETS,
    )  # fmt: skip
    mid_lr_weight: str = setting(
        "", "Mid LR weights", "Of the middle blocks (SDXL 3, else 1).", group=LEARNS, families=_UNETS
    )
    up_lr_weight: str = setting("", "Up LR weights", "Of the decoder's blocks.", group=LEARNS, families=_UNETS)
    block_lr_zero_threshold: float = setting(
        0.0, "Blocks LR zero threshold", "Weights up to this count as 0.", group=LEARNS, low=0.0, families=_UNETS
    )

    def layer_problems(self) -> dict[str, str]:
        """field -> what is wrong with its text, as the end of a sentence."""
        problems = {}
        for name in ("network_reg_dims", "network_reg_lrs"):
            try:
                by_pattern(getattr(self, name))
            except ValueError as error:
                problems[name] = str(error)
        for name in ("block_dims", "block_alphas", "conv_block_dims", "conv_block_alphas"):
            try:
                count = len(numbers(getattr(self, name)))
                if count not in (0, *map(_count, (SD_BLOCKS, SDXL_BLOCKS))):
                    problems[name] = f"holds {count} numbers; SD 1.x and 2.x have 25 blocks, SDXL has 23"
            except ValueError as error:
                problems[name] = str(error)
        for name in ("down_lr_weight", "mid_lr_weight", "up_lr_weight"):
            try:
                weights(getattr(self, name), _MOST_BLOCKS, 0.0)
            except ValueError as error:
                problems[name] = str(error)
        return problems

    def block_weights(self, blocks: tuple[int, int, int, bool]) -> list[float]:
        """The factor of each block's rate, as sd-scripts computes it: too few are filled up with 1."""
        down, mid, up, around = blocks
        parts = [
            weights(text, count, self.block_lr_zero_threshold)
            for text, count in ((self.down_lr_weight, down), (self.mid_lr_weight, mid), (self.up_lr_weight, up))
        ]
        ends = [1.0] if around else []
        return [*ends, *parts[0], *parts[1], *parts[2], *ends]


def numbers(text: str) -> list[float]:
    """`"1, 2"` -> `[1.0, 2.0]`. Raises ValueError for what is not a number from 0."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    try:
        found = [float(part) for part in parts]
    except ValueError:
        found = [-1.0]
    if any(not 0 <= number < 1e5 for number in found):
        raise ValueError(f"{text[:60]!r} is not a list of numbers from 0")
    return found


def weights(text: str, count: int, zero_threshold: float) -> list[float]:
    """A factor for each of `count` blocks, from a list of numbers or the name of a curve. Raises ValueError."""
    name, _, raised = text.strip().partition("+")
    if name not in _CURVES:
        found = numbers(text)[:count]
        found += [1.0] * (count - len(found))
    else:
        base = numbers(raised)[0] if raised.strip() else 0.0
        rising = [index / max(1, count - 1) for index in range(count)]
        curve = [math.sin(math.pi * share / 2) for share in rising] if name in ("cosine", "sine") else rising
        if name in ("cosine", "reverse_linear"):
            curve = curve[::-1]
        found = [base + (0.0 if name == "zeros" else value) for value in curve]
    return [weight if weight > zero_threshold else 0.0 for weight in found]


def by_pattern(text: str) -> list[tuple[re.Pattern[str], float]]:
    """`"attn2=8, ff_net=0"` -> the patterns and their numbers, in order. Raises ValueError."""
    found = []
    for part in (part.strip() for part in text.split(",") if part.strip()):
        pattern, sign, number = part.rpartition("=")
        if not (sign and pattern):
            raise ValueError(f"{part[:60]!r} is not like REGEX=NUMBER")
        try:
            found.append((re.compile(pattern), numbers(number)[0]))
        except (re.error, ValueError, IndexError, OverflowError) as error:
            raise ValueError(f"{part[:60]!r} is not a regular expression and a number: {error}") from error
    return found


def _count(blocks: tuple[int, int, int, bool]) -> int:
    return sum(blocks[:3]) + 2 * blocks[3]
