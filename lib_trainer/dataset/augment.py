"""How one encoded version of a picture differs from the plain one.

Latents are computed once, so augmentation means several encoded variants of each picture, among which a run draws.
Variant 0 is the plain picture; with `flip_aug` the odd ones are mirrored, so that half of the draws are.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from lib_trainer.config.recipe import DatasetConfig

# As sd-scripts: a third of the pictures get other colours, either in hue or in gamma.
_COLOR_RATE = 1 / 3
_HUE_SHIFT = 8
_GAMMA_RANGE = (0.95, 1.05)


@dataclass(frozen=True)
class Augmentation:
    """A variation of a picture; the defaults vary nothing.

    Attributes:
        mirrored: left and right are swapped.
        across, down: where the bucket is cut out, from 0 (left, top) to 1; 0.5 is the centre.
        hue_shift: added to the hue, in 256ths of the colour circle.
        gamma: exponent of the brightness, on 0…1.
    """

    mirrored: bool = False
    across: float = 0.5
    down: float = 0.5
    hue_shift: int = 0
    gamma: float = 1.0


def count_variants(config: DatasetConfig) -> int:
    """How many versions of each picture are encoded: at most `latent_variants`, plus one where flipping needs an even
    number; two if flipping is the only augmentation, one without any."""
    if config.color_aug or config.random_crop:
        # Odd variants are the flipped ones: an odd count would draw the plain side more often.
        return config.latent_variants + (config.latent_variants % 2 if config.flip_aug else 0)
    return 2 if config.flip_aug else 1


def augmentation_of(variant: int, picture_sha256: str, config: DatasetConfig, seed: int) -> Augmentation | None:
    """The augmentation of variant number `variant` of a picture, None for the plain one.

    It depends on the picture's content and the seed, not on its name or position in the folder.
    """
    if variant == 0:
        return None
    # By content, so that a renamed or moved picture finds its cached variants again.
    rng = random.Random(f"{seed}/{picture_sha256}/{variant}")
    return draw_augmentation(config, rng, mirrored=config.flip_aug and variant % 2 == 1)


def draw_augmentation(config: DatasetConfig, rng: random.Random, *, mirrored: bool) -> Augmentation:
    """A random augmentation of the kinds that `config` asks for."""
    # All values are drawn whatever is on, so that turning one kind on leaves the others unchanged.
    across, down = rng.random(), rng.random()
    colored, by_hue = rng.random() < _COLOR_RATE, rng.random() < 0.5
    hue_shift, gamma = rng.randint(-_HUE_SHIFT, _HUE_SHIFT), rng.uniform(*_GAMMA_RANGE)
    colored = colored and config.color_aug
    return Augmentation(
        mirrored=mirrored,
        across=across if config.random_crop else 0.5,
        down=down if config.random_crop else 0.5,
        hue_shift=hue_shift if colored and by_hue else 0,
        gamma=gamma if colored and not by_hue else 1.0,
    )
