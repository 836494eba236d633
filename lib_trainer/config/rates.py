"""Rates of single parts of an adapter, and what holds its weights in bounds. The names are sd-scripts'."""

from __future__ import annotations

from dataclasses import dataclass

from lib_trainer.config.fields import setting
from lib_trainer.config.groups import LENGTH, QUALITY

EMA_SAVED = ("instead", "beside")


# By keyword, so that the sections that build on it keep their order.
@dataclass(frozen=True, kw_only=True)
class RateConfig:
    """Rates beside the learning rate."""

    text_encoder2_lr: float = setting(
        -1.0, "Second text encoder learning rate",
        "Of SDXL's larger one; −1 takes that of the first, 0 leaves it alone.",
        group=LENGTH, low=-1.0, high=10.0, families=("sdxl",),
    )  # fmt: skip
    stop_text_encoder_training: float = setting(
        0.0, "Stop text encoder training", "Share of the steps after which text encoders learn no more; 0 is never.",
        group=LENGTH, unit="%", low=0.0, high=100.0,
    )  # fmt: skip
    loraplus_lr_ratio: float = setting(
        0.0, "LoRA+ ratio", "Factor of the rate for the factors that begin at zero; 16 is usual, 0 is off.",
        group=LENGTH, low=0.0, high=1000.0,
    )  # fmt: skip
    loraplus_unet_lr_ratio: float = setting(
        0.0, "LoRA+ UNet ratio", "Of the UNet alone; 0 takes the LoRA+ ratio.", group=LENGTH, low=0.0, high=1000.0
    )
    loraplus_text_encoder_lr_ratio: float = setting(
        0.0, "LoRA+ text encoder ratio", "Of text encoders alone; 0 takes the LoRA+ ratio.",
        group=LENGTH, low=0.0, high=1000.0,
    )  # fmt: skip
    scale_weight_norms: float = setting(
        0.0, "Scale weight norms",
        "Shrinks each layer's change after a step to at most this norm; 1 is usual, 0 is off.",
        group=QUALITY, low=0.0, high=1000.0,
    )  # fmt: skip
    ema_decay: float = setting(
        0.0, "EMA decay",
        "Averages the weights over the steps: each new step counts 1 − decay; 0.99 to 0.9995, 0 is off.",
        group=QUALITY, low=0.0, high=0.99999,
    )  # fmt: skip
    ema_saved: str = setting(
        "instead", "Save the EMA", "The average is the adapter, or lies beside it as NAME-ema.",
        group=QUALITY, choices=EMA_SAVED,
    )  # fmt: skip
