"""The loss of a prediction. Everything is float32 on the device of its inputs.

The formulas are those of kohya's sd-scripts (https://github.com/kohya-ss/sd-scripts, `library/train_util.py` and
`library/custom_train_functions.py`); snr = ᾱ/(1−ᾱ).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lib_trainer.config.loss import LossConfig
from lib_trainer.training.diffusion import Prediction

# At the first timesteps snr is nearly infinite; sd-scripts clamps it here wherever it is divided.
_MAX_SNR = 1000.0


def loss_weights(timesteps: Tensor, alphas_cumprod: Tensor, config: LossConfig, prediction: Prediction) -> Tensor:
    """(B,) factor of each image's loss: the product of all weightings that are on; ones without any."""
    alpha = alphas_cumprod.to(timesteps.device)[timesteps]
    snr = alpha / (1 - alpha)
    weights = torch.ones(len(timesteps), device=timesteps.device)
    if config.min_snr_gamma:
        # Hang et al., "Efficient Diffusion Training via Min-SNR Weighting Strategy" (2023).
        gamma = config.min_snr_gamma
        # Soft: Crowson et al., "Scalable High-Resolution Pixel-Space Image Synthesis …" (2024).
        least = gamma * snr / (snr + gamma) if config.soft_min_snr else snr.clamp(max=gamma)
        weights = least / (snr if prediction == "epsilon" else snr + 1)
    cut = snr.clamp(max=_MAX_SNR)
    if config.scale_v_pred_loss_like_noise_pred and prediction == "v":
        weights = weights * cut / (cut + 1)
    if config.v_pred_like_loss and prediction == "epsilon":
        weights = weights * (1 + config.v_pred_like_loss * (cut + 1) / cut)
    if config.debiased_estimation_loss:
        # Yu et al., "Debias the Training of Diffusion Models" (2023).
        weights = weights / (cut.sqrt() if prediction == "epsilon" else cut + 1)
    return weights


def huber_thresholds(timesteps: Tensor, alphas_cumprod: Tensor, config: LossConfig) -> Tensor | None:
    """(B,) the error beyond which a Huber loss grows linearly; None for other losses.

    `exponential` falls from the scale to scale·c as cᵗ/ᵀ, `snr` from 1 to c as (1−c)/(1+σ)² + c with σ² = 1/snr.
    """
    if config.loss_type not in ("huber", "smooth_l1"):
        return None
    c, scale = config.huber_c, config.huber_scale
    if config.huber_schedule == "exponential":
        return torch.exp(math.log(c) / len(alphas_cumprod) * timesteps) * scale
    if config.huber_schedule == "snr":
        alpha = alphas_cumprod.to(timesteps.device)[timesteps]
        return (1 - c) / (1 + ((1 - alpha) / alpha).sqrt()) ** 2 + c
    return torch.full((len(timesteps),), c * scale, device=timesteps.device)


def weighted_loss(
    predicted: Tensor,
    wanted: Tensor,
    weights: Tensor,
    loss_type: str = "l2",
    thresholds: Tensor | None = None,
    masks: Tensor | None = None,
) -> Tensor:
    """Mean over the batch of each image's mean error (B, C, H, W) times its weight (B,).

    Args:
        loss_type: of `config.loss.LOSS_TYPES`. With h the threshold and d the difference, huber is
            2h·(√(d² + h²) − h), and smooth_l1 is that without its factor h.
        thresholds: (B,) for huber and smooth_l1.
        masks: (B, H, W) factor of each cell's error. The mean is over all cells, as in sd-scripts' `masked_loss`: a
            picture with a small subject counts less.
    """
    # In half precision squares of small errors would vanish.
    difference = predicted.float() - wanted.float()
    if loss_type == "l1":
        errors = difference.abs()
    elif thresholds is None:
        errors = difference.square()
    else:
        h = thresholds.reshape(-1, *[1] * (difference.ndim - 1))
        # The pseudo-Huber loss (Charbonnier et al., 1997), quadratic below h and linear above.
        errors = 2 * ((difference.square() + h.square()).sqrt() - h)
        errors = errors * h if loss_type == "huber" else errors
    errors = errors if masks is None else errors * masks[:, None]
    return (errors.flatten(1).mean(1) * weights).mean()
