"""What is drawn at random, against the formulas written out, and that a setting that is off draws nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from lib_trainer.config.loss import LossConfig
from lib_trainer.config.recipe import Recipe
from lib_trainer.training.noise import draw_noise, draw_timesteps, perturb
from lib_trainer.training.objective import DiffusionObjective

ALPHAS = torch.linspace(0.999, 0.005, 1000)
LATENTS = torch.randn(3, 4, 12, 8, generator=torch.Generator().manual_seed(4)) + 0.5


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise_of(**settings: Any) -> Tensor:
    return draw_noise(LATENTS, LossConfig(**settings), seeded())


def test_without_settings_it_is_plain_noise_and_nothing_else_is_drawn() -> None:
    generator, plain = seeded(), seeded()
    assert torch.equal(draw_noise(LATENTS, LossConfig(), generator), torch.randn(LATENTS.shape, generator=plain))
    noise = torch.zeros(1)
    assert perturb(noise, LossConfig(), generator) is noise
    assert torch.equal(generator.get_state(), plain.get_state())


def test_timesteps_are_drawn_as_ever_without_limits() -> None:
    drawn = draw_timesteps(20000, ALPHAS, LossConfig(), seeded())
    assert torch.equal(drawn, torch.randint(0, 1000, (20000,), generator=seeded()))
    assert drawn.min() < 5 and drawn.max() > 994


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(0, 500, (0, 499)), (200, 1000, (200, 999)), (300, 310, (300, 309))]
)
def test_timesteps_keep_to_their_limits(low: int, high: int, expected: tuple[int, int]) -> None:
    drawn = draw_timesteps(20000, ALPHAS, LossConfig(min_timestep=low, max_timestep=high), seeded())
    assert (int(drawn.min()), int(drawn.max())) == expected


def test_equal_limits_are_one_timestep_and_short_schedules_end_where_they_end() -> None:
    assert draw_timesteps(3, ALPHAS, LossConfig(min_timestep=7, max_timestep=7), seeded()).tolist() == [7, 7, 7]
    assert draw_timesteps(2, ALPHAS[:100], LossConfig(min_timestep=200), seeded()).tolist() == [99, 99]
    assert draw_timesteps(500, ALPHAS[:100], LossConfig(), seeded()).max() == 99


def test_noise_offset_moves_whole_channels() -> None:
    moved = noise_of(noise_offset=0.1) - noise_of()
    generator = seeded()
    torch.randn(LATENTS.shape, generator=generator)
    expected = 0.1 * torch.randn(3, 4, 1, 1, generator=generator)
    torch.testing.assert_close(moved, expected.expand_as(moved), rtol=0, atol=1e-6)


def test_a_random_offset_is_one_share_of_it_for_the_batch() -> None:
    moved = noise_of(noise_offset=0.1, noise_offset_random_strength=True) - noise_of()
    generator = seeded()
    torch.randn(LATENTS.shape, generator=generator)
    share = torch.rand(1, generator=generator)
    expected = 0.1 * share * torch.randn(3, 4, 1, 1, generator=generator)
    torch.testing.assert_close(moved, expected.expand_as(moved), rtol=0, atol=1e-6)


@pytest.mark.parametrize("scale", [0.5, -0.5])
def test_the_adaptive_scale_follows_each_channels_mean(scale: float) -> None:
    """max(0, o + a·|mean|): 0.1 − 0.5·0.5 is below zero, and counts as none."""
    moved = noise_of(noise_offset=0.1, adaptive_noise_scale=scale) - noise_of()
    generator = seeded()
    torch.randn(LATENTS.shape, generator=generator)
    drawn = torch.randn(3, 4, 1, 1, generator=generator)
    for picture in range(3):
        for channel in range(4):
            mean = abs(float(LATENTS[picture, channel].mean()))
            expected = max(0.0, 0.1 + scale * mean) * float(drawn[picture, channel])
            torch.testing.assert_close(moved[picture, channel], torch.full((12, 8), expected), rtol=0, atol=1e-6)


def test_an_adaptive_scale_without_an_offset_is_off_as_in_kohya() -> None:
    assert torch.equal(noise_of(adaptive_noise_scale=0.5), noise_of())


def test_multires_noise_is_a_sum_of_coarser_noises_of_deviation_one() -> None:
    made = noise_of(multires_noise_iterations=6, multires_noise_discount=0.4)
    generator = seeded()
    expected = torch.randn(LATENTS.shape, generator=generator)
    for i in range(6):
        ratio = float(torch.rand(1, generator=generator)) * 2 + 2
        height, width = max(1, int(12 / ratio**i)), max(1, int(8 / ratio**i))
        coarse = torch.randn(3, 4, height, width, generator=generator)
        expected = expected + 0.4**i * interpolate(coarse, (12, 8), mode="bilinear")
        if height == 1 or width == 1:
            break
    torch.testing.assert_close(made, expected / expected.std())
    assert float(made.std()) == pytest.approx(1, abs=1e-5)


def test_input_perturbation_adds_noise_that_is_not_to_be_found() -> None:
    noise = noise_of()
    drawn = torch.randn(noise.shape, generator=seeded(1))
    made = perturb(noise, LossConfig(ip_noise_gamma=0.1), seeded(1))
    torch.testing.assert_close(made, noise + 0.1 * drawn)
    at_random = perturb(noise, LossConfig(ip_noise_gamma=0.1, ip_noise_gamma_random_strength=True), seeded(1))
    generator = seeded(1)
    share = torch.rand(1, generator=generator)
    torch.testing.assert_close(at_random, noise + 0.1 * share * torch.randn(noise.shape, generator=generator))


def test_a_noise_offset_is_another_one_for_every_channel_of_every_picture() -> None:
    moved = (noise_of(noise_offset=0.1) - noise_of())[:, :, 0, 0]
    assert len({round(float(value), 6) for value in moved.flatten()}) == moved.numel()


def test_the_last_timestep_is_drawn_too() -> None:
    assert int(draw_timesteps(20000, ALPHAS, LossConfig(), seeded()).max()) == len(ALPHAS) - 1


def test_a_model_sees_the_perturbed_noise_and_is_to_find_the_other() -> None:
    recipe = Recipe().with_values({"ip_noise_gamma": 0.5})
    objective = DiffusionObjective(ALPHAS, "epsilon")
    x_t, noise, timesteps = objective.draw(LATENTS, recipe, seeded())
    assert torch.equal(noise, draw_noise(LATENTS, recipe.loss, seeded()))
    alpha = ALPHAS[timesteps].reshape(-1, 1, 1, 1)
    added = (x_t - alpha.sqrt() * LATENTS) / (1 - alpha).sqrt() - noise
    assert float(added.std()) == pytest.approx(0.5, rel=0.1)
