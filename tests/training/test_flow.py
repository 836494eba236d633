"""Flow matching against formulas written out here.

Sources: Esser et al., "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis" (2024), sections 3.1
and 5.3.2; black-forest-labs' Flux, whose mu goes from 0.5 at 256 tokens to 1.15 at 4096; kohya's sd-scripts,
`library/flux_train_utils.py`, for the names.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lib_trainer.config.recipe import Recipe, ignored_settings
from lib_trainer.errors import UserError
from lib_trainer.models.families import FLUX, KLEIN4B, SDXL, ZIMAGE
from lib_trainer.training.flow import FlowObjective, flux_shift
from lib_trainer.training.objective import DiffusionObjective, objective_of, require_trainable_schedule
from lib_trainer.training.sampling import sample_requests
from tests.training.small import one_layer_model

LATENTS = torch.randn(3, 16, 64, 64, generator=torch.Generator().manual_seed(1))


def drawn(count: int = 4000, side: int = 2, **values: object) -> Tensor:
    """Noise levels σ of many pictures of side × side cells."""
    recipe, generator = Recipe().with_values(values), torch.Generator().manual_seed(7)
    _, _, timesteps = FlowObjective(2.0).draw(torch.zeros(count, 1, side, side), recipe, generator)
    return timesteps / 1000


def normals(count: int = 4000) -> Tensor:
    """The normal numbers that `drawn` draws: after those of the noise."""
    generator = torch.Generator().manual_seed(7)
    torch.randn((count, 1, 2, 2), generator=generator)
    return torch.randn(count, generator=generator)


def test_noise_and_target_lie_on_a_straight_line() -> None:
    noise, t = torch.randn(LATENTS.shape), torch.tensor([0.0, 250.0, 1000.0])
    objective = FlowObjective(1.0)
    x_t = objective.add_noise(LATENTS, noise, t)
    assert torch.equal(x_t[0], LATENTS[0]) and torch.equal(x_t[2], noise[2])
    assert torch.allclose(x_t[1], 0.75 * LATENTS[1] + 0.25 * noise[1])
    wanted = objective.target(LATENTS, noise, t)
    assert torch.equal(wanted, noise - LATENTS)
    for row, timestep in enumerate(t.tolist()):
        clean, found = objective.split(x_t[row], wanted[row], timestep)
        assert torch.allclose(clean, LATENTS[row], atol=1e-5) and torch.allclose(found, noise[row], atol=1e-5)


def test_sampling_by_its_names() -> None:
    z = normals()
    assert torch.allclose(drawn(timestep_sampling="sigmoid"), 1 / (1 + torch.exp(-z)), atol=1e-6)
    assert torch.allclose(drawn(timestep_sampling="sigmoid", sigmoid_scale=0.5), 1 / (1 + torch.exp(-z / 2)), atol=1e-6)
    sigma = 1 / (1 + torch.exp(-z))
    assert torch.allclose(
        drawn(timestep_sampling="shift", discrete_flow_shift=3.0), 3 * sigma / (1 + 2 * sigma), atol=1e-6
    )
    # Without one, the family's.
    assert torch.allclose(drawn(timestep_sampling="shift"), 2 * sigma / (1 + sigma), atol=1e-6)
    uniform = drawn(timestep_sampling="uniform")
    assert abs(float(uniform.mean()) - 0.5) < 0.02 and abs(float(uniform.std()) - 12**-0.5) < 0.02


@pytest.mark.parametrize(("side", "mu"), [(32, 0.5), (128, 1.15), (64, 0.5 + 0.65 * (1024 - 256) / (4096 - 256))])
def test_flux_shift_follows_the_pictures_size(side: int, mu: float) -> None:
    """exp(mu) / (exp(mu) + 1/σ − 1), with mu linear in the number of tokens."""
    assert math.isclose(flux_shift(side, side), math.exp(mu), rel_tol=1e-9)
    recipe = Recipe().with_values({"timestep_sampling": "flux_shift"})
    latents, generator = torch.zeros(50, 1, side, side), torch.Generator().manual_seed(7)
    _, _, t = FlowObjective(1.0).draw(latents, recipe, generator)
    generator.manual_seed(7)
    torch.randn(latents.shape, generator=generator)
    sigma = torch.sigmoid(torch.randn(50, generator=generator))
    assert torch.allclose(t / 1000, math.exp(mu) / (math.exp(mu) + 1 / sigma - 1), atol=1e-5)


def test_timesteps_keep_to_their_limits() -> None:
    sigma = drawn(timestep_sampling="uniform", min_timestep=200, max_timestep=600)
    assert 0.2 <= float(sigma.min()) < 0.21 and 0.59 < float(sigma.max()) <= 0.6


def test_sigma_scaled_counts_the_error_of_the_clean_picture() -> None:
    """x̂_0 − x_0 = (x_t − σ·v̂) − (x_t − σ·v) = −σ·(v̂ − v)."""
    t, objective = torch.tensor([100.0, 900.0]), FlowObjective(1.0)
    assert objective.weights(t, Recipe()).tolist() == [1.0, 1.0]
    scaled = Recipe().with_values({"model_prediction_type": "sigma_scaled"})
    assert torch.allclose(objective.weights(t, scaled), torch.tensor([0.01, 0.81]))


def test_huber_thresholds_follow_sigma() -> None:
    t, objective = torch.tensor([0.0, 500.0, 1000.0]), FlowObjective(1.0)

    def thresholds(schedule: str) -> list[float]:
        values = {"loss_type": "huber", "huber_schedule": schedule, "huber_c": 0.1}
        return objective.thresholds(t, Recipe().with_values(values)).tolist()

    assert objective.thresholds(t, Recipe()) is None
    assert thresholds("exponential") == pytest.approx([1.0, 0.1**0.5, 0.1])
    # 1/(1 + noise/signal)² with noise/signal = σ/(1−σ).
    assert thresholds("snr") == pytest.approx([1.0, 0.9 / 4 + 0.1, 0.1])
    assert thresholds("constant") == pytest.approx([0.1] * 3)


def test_a_perfect_flow_model_draws_its_picture() -> None:
    objective, clean, x = FlowObjective(3.0), LATENTS[:1], torch.randn(1, 16, 64, 64)
    times = objective.drawing_times(5)
    assert times[0] == 1000 and times == sorted(times, reverse=True)
    for t, following in zip(times, [*times[1:], 0.0], strict=True):
        answer = (x - clean) / (t / 1000)
        found, noise = objective.split(x, answer, t)
        x = objective.add_noise(found, noise, torch.tensor([following]))
    assert torch.allclose(x, clean, atol=1e-4)


def test_a_model_says_what_it_is_trained_for() -> None:
    model = one_layer_model()
    assert isinstance(objective_of(model), DiffusionObjective)
    model.prediction, model.alphas_cumprod, model.family = "flow", None, FLUX
    assert objective_of(model) == FlowObjective(3.1582, patch=2)
    model.family = ZIMAGE
    assert objective_of(model) == FlowObjective(2.0, patch=2)
    # A cell of FLUX.2's latents is a token: 16 px as for Flux.1, so the same picture has the same shift.
    model.family = KLEIN4B
    assert objective_of(model) == FlowObjective(3.1582, patch=1)
    assert flux_shift(64, 48, patch=1) == flux_shift(128, 96) < math.exp(1.15)


def test_a_schedule_without_signal_cannot_predict_noise() -> None:
    model = one_layer_model()
    model.alphas_cumprod = torch.linspace(0.999, 0.0, 1000)
    model.checkpoint = type("Info", (), {"name": "a.safetensors"})
    with pytest.raises(UserError, match="zero-terminal-SNR"):
        require_trainable_schedule(model)


def test_test_pictures_are_drawn_as_the_family_wants() -> None:
    recipe = Recipe().with_values({"sample_prompts": "a cat\na dog --l 3"})
    assert [request.cfg_scale for request in sample_requests(recipe, FLUX)] == [1.0, 3.0]
    assert [request.cfg_scale for request in sample_requests(recipe, SDXL)] == [7.0, 3.0]


def test_settings_that_do_not_apply_are_named() -> None:
    recipe = Recipe().with_values({"min_snr_gamma": 5, "timestep_sampling": "uniform"})
    assert ignored_settings(recipe, "zimage") == ["Min SNR gamma"]
    assert ignored_settings(recipe, "sdxl") == ["Timestep sampling"]
    assert ignored_settings(Recipe(), "flux") == []
