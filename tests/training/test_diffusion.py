from __future__ import annotations

import pytest
import torch

from lib_trainer.config.recipe import Recipe
from lib_trainer.errors import UserError
from lib_trainer.models.base import CheckpointInfo
from lib_trainer.training.diffusion import add_noise, split_prediction, target, zero_terminal
from lib_trainer.training.objective import schedule_of
from tests.training.small import one_layer_model

ALPHAS = torch.linspace(0.999, 0.005, 1000)


def test_noising_keeps_the_variance_and_mixes_by_the_schedule() -> None:
    latents, noise = torch.ones(2, 4, 8, 8), torch.full((2, 4, 8, 8), 2.0)
    t = torch.tensor([0, 999])
    x = add_noise(latents, noise, t, ALPHAS)
    assert x[0, 0, 0, 0] == pytest.approx(0.999**0.5 + 2 * 0.001**0.5, rel=1e-5)
    assert x[1, 0, 0, 0] == pytest.approx(0.005**0.5 + 2 * 0.995**0.5, rel=1e-5)


def test_v_target_turns_back_into_the_latents() -> None:
    latents, noise = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8)
    t = torch.tensor([3, 500, 990])
    x, v = add_noise(latents, noise, t, ALPHAS), target(latents, noise, t, ALPHAS, "v")
    alpha = ALPHAS[t].reshape(-1, 1, 1, 1)
    torch.testing.assert_close(alpha.sqrt() * x - (1 - alpha).sqrt() * v, latents, rtol=1e-4, atol=1e-4)
    assert target(latents, noise, t, ALPHAS, "epsilon") is noise


def test_zero_terminal_snr_ends_in_noise_and_begins_as_before() -> None:
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    alphas = (1 - betas).cumprod(0)
    fixed = zero_terminal(alphas)
    assert float(fixed[-1]) == 0 and float(fixed[0]) == pytest.approx(float(alphas[0]))
    first, last = float(alphas[0]) ** 0.5, float(alphas[-1]) ** 0.5
    middle = (float(alphas[500]) ** 0.5 - last) * first / (first - last)
    assert float(fixed[500]) == pytest.approx(middle**2)


def test_zero_terminal_snr_is_for_models_that_predict_v() -> None:
    model, recipe = one_layer_model(), Recipe().with_values({"zero_terminal_snr": True})
    model.checkpoint = CheckpointInfo("Realistic", "")
    with pytest.raises(UserError, match="Realistic predicts the noise"):
        schedule_of(model, recipe)
    model.prediction = "v"
    assert float(schedule_of(model, recipe)[-1]) == 0
    assert schedule_of(model, Recipe()) is model.alphas_cumprod


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_a_right_answer_splits_into_latents_and_noise(prediction: str) -> None:
    latents, noise, t = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8), torch.tensor([500])
    x, answer = add_noise(latents, noise, t, ALPHAS), target(latents, noise, t, ALPHAS, prediction)
    found = split_prediction(x, answer, ALPHAS[500], prediction)
    torch.testing.assert_close(found, (latents, noise), rtol=1e-4, atol=1e-4)
