from __future__ import annotations

import pytest
import torch

from lib_trainer.training.diffusion import add_noise, draw_noise, draw_timesteps, min_snr_weights, target, weighted_loss

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


def test_min_snr_weights_are_the_papers() -> None:
    t = torch.tensor([0, 500, 999])
    snr = ALPHAS[t] / (1 - ALPHAS[t])
    for gamma in (1.0, 5.0):
        epsilon = min_snr_weights(t, ALPHAS, gamma, "epsilon")
        v = min_snr_weights(t, ALPHAS, gamma, "v")
        for i in range(3):
            assert float(epsilon[i]) == pytest.approx(min(float(snr[i]), gamma) / float(snr[i]), rel=1e-5)
            assert float(v[i]) == pytest.approx(min(float(snr[i]), gamma) / (float(snr[i]) + 1), rel=1e-5)
    assert torch.equal(min_snr_weights(t, ALPHAS, 0.0, "v"), torch.ones(3))


def test_noise_offset_moves_whole_channels() -> None:
    shape = torch.Size((64, 4, 8, 8))
    plain = draw_noise(shape, 0.0, torch.Generator().manual_seed(0))
    moved = draw_noise(shape, 0.1, torch.Generator().manual_seed(0)) - plain
    torch.testing.assert_close(moved, moved[:, :, :1, :1].expand(shape), rtol=0, atol=1e-6)
    assert 0.08 < float(moved[:, :, 0, 0].std()) < 0.12


def test_timesteps_cover_the_schedule() -> None:
    t = draw_timesteps(20000, ALPHAS, torch.Generator().manual_seed(0))
    assert t.min() < 5
    assert t.max() > 994
    assert abs(float(t.float().mean()) - 499.5) < 10


def test_loss_is_the_weighted_mean_over_pictures() -> None:
    predicted, wanted = torch.zeros(2, 4, 2, 2), torch.stack([torch.ones(4, 2, 2), torch.full((4, 2, 2), 2.0)])
    assert float(weighted_loss(predicted, wanted, torch.tensor([1.0, 0.5]))) == pytest.approx((1 + 2) / 2)
