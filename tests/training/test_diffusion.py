from __future__ import annotations

import pytest
import torch

from lib_trainer.training.diffusion import add_noise, target

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
