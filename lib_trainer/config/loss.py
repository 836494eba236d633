"""What is drawn at random in a step, and how the error counts. The names, ranges and meanings are sd-scripts'."""

from __future__ import annotations

from dataclasses import dataclass

from lib_trainer.config.fields import setting
from lib_trainer.config.groups import QUALITY

LOSS_TYPES = ("l2", "l1", "huber", "smooth_l1")
HUBER_SCHEDULES = ("snr", "exponential", "constant")
TIMESTEPS = 1000
# Families whose UNet predicts noise or velocity.
_DIFFUSION = ("sd1", "sd2", "sdxl")


@dataclass(frozen=True)
class LossConfig:
    """Noise, timesteps and loss."""

    min_snr_gamma: float = setting(
        0.0, "Min SNR gamma", "Balances the noise levels; 5 is usual, 0 is off.",
        group=QUALITY, common=True, low=0.0, high=100.0, families=_DIFFUSION,
    )  # fmt: skip
    soft_min_snr: bool = setting(
        False, "Soft Min SNR", "Min SNR without a corner: γ·snr / (snr + γ) in place of the smaller of both.",
        group=QUALITY, families=_DIFFUSION,
    )  # fmt: skip
    debiased_estimation_loss: bool = setting(
        False, "Debiased estimation loss", "Lowers the weight of little noise; an alternative to Min SNR gamma.",
        group=QUALITY, families=_DIFFUSION,
    )  # fmt: skip
    scale_v_pred_loss_like_noise_pred: bool = setting(
        False, "Scale v prediction loss like noise prediction", "Only for checkpoints that predict v.",
        group=QUALITY, families=_DIFFUSION,
    )  # fmt: skip
    v_pred_like_loss: float = setting(
        0.0, "V prediction like loss", "Adds this much of the loss of v; only for checkpoints that predict noise.",
        group=QUALITY, low=0.0, high=1.0, families=_DIFFUSION,
    )  # fmt: skip
    loss_type: str = setting(
        "l2", "Loss type", "huber and smooth_l1 forgive large errors, as of odd pictures.",
        group=QUALITY, choices=LOSS_TYPES,
    )  # fmt: skip
    huber_schedule: str = setting(
        "snr", "Huber schedule", "How the Huber parameter follows the noise.", group=QUALITY, choices=HUBER_SCHEDULES
    )
    huber_c: float = setting(
        0.1, "Huber C", "Errors beyond it count linearly: at the most noise, or always with constant.",
        group=QUALITY, low=1e-6, high=10.0,
    )  # fmt: skip
    huber_scale: float = setting(
        1.0, "Huber scale", "Multiplies the parameter of the schedules exponential and constant.",
        group=QUALITY, low=1e-6, high=1000.0,
    )  # fmt: skip
    noise_offset: float = setting(
        0.0, "Noise offset", "Learns dark and bright pictures better; at most 0.1.",
        group=QUALITY, common=True, low=0.0, high=1.0, families=_DIFFUSION,
    )  # fmt: skip
    noise_offset_random_strength: bool = setting(
        False, "Noise offset random strength", "Draws the offset anew for each batch, up to noise_offset.",
        group=QUALITY, families=_DIFFUSION,
    )  # fmt: skip
    adaptive_noise_scale: float = setting(
        0.0, "Adaptive noise scale", "Adds this times a picture's mean latent to noise_offset.",
        group=QUALITY, low=-1.0, high=1.0, families=_DIFFUSION,
    )  # fmt: skip
    multires_noise_iterations: int = setting(
        0, "Multires noise iterations", "Adds coarser and coarser noise so many times; 6 to 10, 0 is off.",
        group=QUALITY, low=0, high=64, families=_DIFFUSION,
    )  # fmt: skip
    multires_noise_discount: float = setting(
        0.3, "Multires noise discount", "How much less each coarser noise counts.",
        group=QUALITY, low=0.0, high=1.0, families=_DIFFUSION,
    )  # fmt: skip
    ip_noise_gamma: float = setting(
        0.0, "IP noise gamma", "Noise on the input that is not to be predicted; 0.1 is usual, 0 is off.",
        group=QUALITY, low=0.0, high=1.0, families=_DIFFUSION,
    )  # fmt: skip
    ip_noise_gamma_random_strength: bool = setting(
        False, "IP noise gamma random strength", "Draws it anew for each batch, up to ip_noise_gamma.",
        group=QUALITY, families=_DIFFUSION,
    )  # fmt: skip
    zero_terminal_snr: bool = setting(
        False, "Zero terminal SNR", "Rescales the schedule to end in pure noise; only for checkpoints that predict v.",
        group=QUALITY, families=_DIFFUSION,
    )  # fmt: skip
    masked_loss: bool = setting(
        False, "Masked loss", "Only where a mask is white counts: NAME.mask.png, masks/NAME.png, or the alpha channel.",
        group=QUALITY,
    )  # fmt: skip
    unmasked_weight: float = setting(
        0.0, "Unmasked weight", "How much counts what a mask leaves out; 0.1 keeps surroundings from decaying.",
        group=QUALITY, low=0.0, high=1.0,
    )  # fmt: skip
    prior_loss_weight: float = setting(
        1.0, "Prior loss weight", "How much pictures of the regularisation folder, and of folders marked so, count.",
        group=QUALITY, low=0.0, high=100.0,
    )  # fmt: skip
    min_timestep: int = setting(
        0, "Min timestep", "Trains from this noise level on; 0 is none.", group=QUALITY, low=0, high=TIMESTEPS - 1
    )
    max_timestep: int = setting(
        TIMESTEPS, "Max timestep", "Trains up to this noise level; 1000 is all.", group=QUALITY, low=1, high=TIMESTEPS
    )
