"""Starts kohya's sd-scripts with the random draws of ours, and notes when its steps end and what they lose.

Runs in sd-scripts' own environment: `python -m benchmarks.sd_scripts SD_SCRIPTS_DIR SEED RESULT.json [its arguments]`.
Nothing of its training is changed but the noise, the timesteps and the VAE's latents, which are drawn as ours are.
"""

from __future__ import annotations

import json
import runpy
import sys
import time
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

from lib_trainer.config.loss import LossConfig
from lib_trainer.training.diffusion import add_noise
from lib_trainer.training.noise import draw_noise, draw_timesteps


def main(folder: Path, seed: int, result: Path, arguments: list[str]) -> None:
    """Runs `train_network.py` and writes `losses`, and `ends`: seconds of this process at the end of each step."""
    sys.path.insert(0, str(folder))
    sys.argv = [str(folder / "train_network.py"), *arguments]
    import accelerate
    import library.train_util as train_util
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

    torch.set_num_threads(1)
    losses: list[float] = []
    ends: list[float] = []
    backward = accelerate.Accelerator.backward

    def noted_backward(accelerator: Any, loss: Tensor, **options: Any) -> None:
        losses.append(float(loss.detach()))
        backward(accelerator, loss, **options)

    accelerate.Accelerator.backward = noted_backward
    DiagonalGaussianDistribution.sample = lambda distribution, generator=None: distribution.mode()
    train_util.get_noise_noisy_latents_and_timesteps = _our_draws(seed)
    register_optimizer_step_post_hook(lambda *_: ends.append(time.process_time()))
    runpy.run_path(sys.argv[0], run_name="__main__")
    result.write_text(json.dumps({"losses": losses, "ends": ends}))


def _our_draws(seed: int) -> Any:
    """Replaces sd-scripts' function: micro-batch i draws from a generator seeded with i, as our loop does."""
    micro_batches, config = count(), LossConfig(noise_offset=0.0)

    def draw(args: Any, scheduler: Any, latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + next(micro_batches))
        noise = draw_noise(latents, config, generator)
        timesteps = draw_timesteps(len(latents), scheduler.alphas_cumprod, config, generator)
        return noise, add_noise(latents, noise, timesteps, scheduler.alphas_cumprod), timesteps

    return draw


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
