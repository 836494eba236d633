"""How drawn pictures and captions become a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lib_trainer.dataset.cache_store import LatentStore, TextStore
from lib_trainer.dataset.sampler import Draw
from lib_trainer.models.base import SizeCond, TextCond


@dataclass(frozen=True)
class Batch:
    """What one forward pass of the UNet is trained on, on the CPU in float32.

    Attributes:
        latents: (B, C, h, w), scaled.
        sizes: of the pictures.
        captions: one a picture.
        text: the encoded captions; None where the text encoders are trained, and encode in every step.
        masks: (B, h, w) how much each latent cell counts, 0 to 1; None where all count in full.
        regularising: which pictures are of the class, not of the subject.
        others: (B, C, h, w) the second picture of each pair; None where there are no pairs.
    """

    latents: Tensor
    sizes: SizeCond
    captions: tuple[str, ...]
    text: TextCond | None
    masks: Tensor | None = None
    regularising: tuple[bool, ...] = ()
    others: Tensor | None = None


def make_batch(
    draws: Sequence[Draw], latents: LatentStore, texts: TextStore | None, others: LatentStore | None = None
) -> Batch:
    """The batch of these draws, which share a bucket. `others`: the second pictures of pairs, by the same indices."""
    encoded = [latents.tensors(draw.sample, draw.variant) for draw in draws]
    captions = tuple(draw.caption for draw in draws)
    return Batch(
        latents=torch.stack([tensors["latents"] for tensors in encoded]),
        sizes=SizeCond(torch.stack([tensors["size"] for tensors in encoded])),
        captions=captions,
        text=None if texts is None else _stack_texts(captions, texts),
        masks=_stack_masks(encoded),
        regularising=tuple(latents.schedule.scan.samples[draw.sample].regularising for draw in draws),
        others=None if others is None else torch.stack([others.read(d.sample, d.variant)[0] for d in draws]),
    )


def _stack_masks(encoded: Sequence[dict[str, Tensor]]) -> Tensor | None:
    if not any("mask" in tensors for tensors in encoded):
        return None
    # Ones for a picture without a mask, as in sd-scripts.
    return torch.stack([tensors.get("mask", torch.ones_like(tensors["latents"][0])) for tensors in encoded])


def _stack_texts(captions: Sequence[str], texts: TextStore) -> TextCond:
    """Captions of unequal length side by side.

    The shorter end in empty chunks, as WebUIs pad them for UNets; without chunks they are padded with zeros, and the
    lengths say where.
    """
    conds = [texts.read(caption) for caption in captions]
    lengths = tuple(len(cond.context) for cond in conds)
    # For UNets an empty prompt's chunk, not zeros: they have never seen zeros.
    empty = texts.read("").context if texts.in_chunks else conds[0].context.new_zeros(1, conds[0].context.shape[1])
    contexts = [
        torch.cat([cond.context, *[empty] * ((max(lengths) - len(cond.context)) // len(empty))]) for cond in conds
    ]
    pooled = None if conds[0].pooled is None else torch.stack([cond.pooled for cond in conds])
    return TextCond(torch.stack(contexts), pooled, () if texts.in_chunks else lengths)
