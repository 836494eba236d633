"""Settings of the training: steps, optimizer, memory and seed."""

from __future__ import annotations

from dataclasses import dataclass

from lib_trainer.config.fields import setting
from lib_trainer.config.groups import LENGTH, MEMORY, QUALITY
from lib_trainer.config.optimization import OPTIMIZERS, SCHEDULERS
from lib_trainer.config.rates import RateConfig

PRECISIONS = ("fp16", "bf16", "fp32")
# Families whose text encoder can be read at another layer.
_CLIP_SKIP = ("sd1", "sd2")


@dataclass(frozen=True)
class TrainingConfig(RateConfig):
    """How it is trained."""

    max_train_steps: int = setting(
        0, "Max train steps", "Optimizer steps; 0 trains for the epochs instead.",
        group=LENGTH, unit="steps", low=0, basic=True,
    )  # fmt: skip
    epoch: int = setting(
        10, "Epochs", "Times through the folder, repeats included.",
        group=LENGTH, common=True, unit="epochs", low=1, high=100000,
    )  # fmt: skip
    train_batch_size: int = setting(
        1, "Batch size", "Pictures computed at once.", group=LENGTH, common=True, unit="pictures", low=1, high=512
    )
    gradient_accumulation_steps: int = setting(
        1, "Gradient accumulation", "Batches added up into one step.", group=LENGTH, unit="batches", low=1, high=1024
    )
    learning_rate: float = setting(
        1e-4, "Learning rate", "Of the UNet. Too high burns pictures, too low learns little.",
        group=LENGTH, common=True, low=0.0, high=10.0,
    )  # fmt: skip
    text_encoder_lr: float = setting(
        0.0, "Text encoder learning rate", "0 does not train the text encoder.", group=LENGTH, low=0.0, high=10.0
    )
    optimizer: str = setting(
        "AdamW8bit", "Optimizer", "Prodigy adapts the learning rate itself: set 1.0. Recipes may name any class of"
        " pytorch-optimizer.",
        group=LENGTH, common=True, choices=OPTIMIZERS, others=True,
    )  # fmt: skip
    optimizer_args: str = setting(
        "", "Optimizer extra arguments", "Options of its class, like betas=0.9,0.99 d_coef=2.", group=LENGTH
    )
    weight_decay: float = setting(
        0.01, "Weight decay", "Pulls the weights towards zero.", group=QUALITY, low=0.0, high=1.0
    )
    lr_scheduler: str = setting(
        "cosine", "LR scheduler", "How the learning rate changes during the run.",
        group=LENGTH, common=True, choices=SCHEDULERS,
    )  # fmt: skip
    lr_scheduler_num_cycles: int = setting(
        1, "LR number of cycles", "Restarts of cosine_with_restarts.", group=LENGTH, unit="cycles", low=1, high=1000
    )
    lr_scheduler_power: float = setting(
        1.0, "LR power", "Of the scheduler polynomial; 1 is a straight line.", group=LENGTH, low=0.0, high=100.0
    )
    lr_scheduler_args: str = setting(
        "", "LR scheduler extra arguments", "Like min_lr_rate=0.1 for cosine_with_min_lr.", group=LENGTH
    )
    lr_warmup: float = setting(
        0.0, "LR warm-up", "Share of the steps over which the rate rises.", group=LENGTH, unit="%", low=0.0, high=100.0
    )
    max_grad_norm: float = setting(1.0, "Max grad norm", "Clips larger gradients; 0 is off.", group=QUALITY, low=0.0)
    gradient_checkpointing: bool = setting(
        True, "Gradient checkpointing", "Saves memory by recomputing activations where needed; slower.",
        group=MEMORY, common=True,
    )  # fmt: skip
    vram_budget_gb: float = setting(
        0.0, "VRAM budget", "Plans for a card of this size; 0 uses what is free.",
        group=MEMORY, common=True, unit="GB", low=0.0, high=1024.0,
    )  # fmt: skip
    fused_backward_pass: bool = setting(
        False, "Fused backward pass", "Updates each layer during backward: saves its gradient, clips by layer.",
        group=MEMORY,
    )  # fmt: skip
    mixed_precision: str = setting(
        "bf16", "Mixed precision", "Falls back to fp16 where a GPU has no bf16, to fp32 on a CPU where it is slower.",
        group=MEMORY, common=True, choices=PRECISIONS,
    )  # fmt: skip
    clip_skip: int = setting(
        0, "Clip skip", "Which of the text encoder's last layers is read, counted from the end; 0: the one that the"
        " WebUI draws with.",
        group=QUALITY, low=0, high=12, families=_CLIP_SKIP,
    )  # fmt: skip
    seed: int = setting(
        0, "Seed", "The same seed gives the same file on the same CPU; on a GPU see Deterministic.",
        group=QUALITY, common=True, low=0, high=2**63 - 1,
    )  # fmt: skip
    deterministic: bool = setting(
        False, "Deterministic", "On a GPU, adds up in one order where PyTorch can; slower.", group=QUALITY
    )

    @property
    def text_rates(self) -> tuple[float, float]:
        """Of the first text encoder, or the only one, and of SDXL's second."""
        second = self.text_encoder2_lr
        return self.text_encoder_lr, self.text_encoder_lr if second < 0 else second

    @property
    def trains_text(self) -> bool:
        """Whether any text encoder learns."""
        return max(self.text_rates) > 0

    def rate_of(self, layer: str) -> float:
        """The learning rate of the part of the model that a layer of this name belongs to."""
        if layer.startswith("lora_te"):
            return self.text_rates[layer.startswith("lora_te2_")]
        return self.learning_rate
