"""How errors count, against the formulas written out."""

from __future__ import annotations

from math import exp, log, sqrt
from typing import Any

import pytest
import torch

from lib_trainer.config.loss import LossConfig
from lib_trainer.training.loss import huber_thresholds, loss_weights, weighted_loss

ALPHAS = torch.linspace(0.9999, 0.005, 1000)
T = torch.tensor([0, 500, 999])
SNR = [float(ALPHAS[t] / (1 - ALPHAS[t])) for t in T]


def weights(prediction: str, **settings: Any) -> list[float]:
    return loss_weights(T, ALPHAS, LossConfig(**settings), prediction).tolist()


def test_soft_min_snr_is_the_smooth_minimum() -> None:
    gamma = 5.0
    soft = {"min_snr_gamma": gamma, "soft_min_snr": True}
    assert weights("epsilon", **soft) == pytest.approx([gamma / (s + gamma) for s in SNR], rel=1e-4)
    assert weights("v", **soft) == pytest.approx([gamma * s / (s + gamma) / (s + 1) for s in SNR], rel=1e-4)


def test_without_settings_every_picture_counts_alike() -> None:
    assert weights("epsilon") == weights("v") == [1, 1, 1]


@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_min_snr_weights_are_the_papers(gamma: float) -> None:
    assert weights("epsilon", min_snr_gamma=gamma) == pytest.approx([min(s, gamma) / s for s in SNR], rel=1e-4)
    assert weights("v", min_snr_gamma=gamma) == pytest.approx([min(s, gamma) / (s + 1) for s in SNR], rel=1e-4)


def test_debiased_estimation() -> None:
    cut = [min(s, 1000) for s in SNR]
    assert SNR[0] > 1000
    assert weights("epsilon", debiased_estimation_loss=True) == pytest.approx([1 / sqrt(s) for s in cut], rel=1e-4)
    assert weights("v", debiased_estimation_loss=True) == pytest.approx([1 / (s + 1) for s in cut], rel=1e-4)


def test_the_loss_of_v_like_that_of_noise_and_the_other_way() -> None:
    cut = [min(s, 1000) for s in SNR]
    scaled = weights("v", scale_v_pred_loss_like_noise_pred=True)
    assert scaled == pytest.approx([s / (s + 1) for s in cut], rel=1e-4)
    added = weights("epsilon", v_pred_like_loss=0.5)
    assert added == pytest.approx([1 + 0.5 * (s + 1) / s for s in cut], rel=1e-4)
    # Each is for the other kind of checkpoint, as kohya asks for it.
    assert weights("epsilon", scale_v_pred_loss_like_noise_pred=True) == weights("v", v_pred_like_loss=0.5) == [1, 1, 1]


def test_weightings_multiply() -> None:
    both = weights("v", min_snr_gamma=5.0, scale_v_pred_loss_like_noise_pred=True)
    expected = [min(s, 5) / (s + 1) * min(s, 1000) / (min(s, 1000) + 1) for s in SNR]
    assert both == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.2 * 3] * 3),
        ("exponential", [3 * exp(log(0.2) * t / 1000) for t in (0, 500, 999)]),
        ("snr", [0.8 / (1 + sqrt(1 / s)) ** 2 + 0.2 for s in SNR]),
    ],
)
def test_huber_schedules(schedule: str, expected: list[float]) -> None:
    config = LossConfig(loss_type="huber", huber_schedule=schedule, huber_c=0.2, huber_scale=3.0)
    assert huber_thresholds(T, ALPHAS, config).tolist() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("loss_type", ["l2", "l1"])
def test_other_losses_have_no_threshold(loss_type: str) -> None:
    assert huber_thresholds(T, ALPHAS, LossConfig(loss_type=loss_type)) is None


@pytest.mark.parametrize(
    ("loss_type", "of"),
    [
        ("l2", lambda d, h: d * d),
        ("l1", lambda d, h: abs(d)),
        ("huber", lambda d, h: 2 * h * (sqrt(d * d + h * h) - h)),
        ("smooth_l1", lambda d, h: 2 * (sqrt(d * d + h * h) - h)),
    ],
)
def test_loss_is_the_weighted_mean_over_pictures(loss_type: str, of: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    difference = torch.randn(2, 4, 3, 2, generator=generator)
    wanted = torch.randn(2, 4, 3, 2, generator=generator)
    picture_weights, thresholds = [1.0, 0.25], [0.1, 0.7]
    expected = 0.0
    for picture in range(2):
        errors = [of(float(d), thresholds[picture]) for d in difference[picture].flatten()]
        expected += picture_weights[picture] * sum(errors) / len(errors) / 2
    given = None if loss_type in ("l2", "l1") else torch.tensor(thresholds)
    made = weighted_loss(wanted + difference, wanted, torch.tensor(picture_weights), loss_type, given)
    assert float(made) == pytest.approx(expected, rel=1e-4)


def test_the_loss_is_taken_in_float32() -> None:
    predicted, wanted = torch.full((1, 1, 1, 1), 3.0, dtype=torch.bfloat16), torch.full((1, 1, 1, 1), 3.001)
    assert float(weighted_loss(predicted, wanted, torch.ones(1))) == pytest.approx(1e-6, rel=1e-2)
