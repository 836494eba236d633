"""Trains the embedded UNet and text encoder to draw the world from captions."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import CLIPTokenizer

from lib_trainer.demo.build.model import new_schedule, new_text_encoder, new_unet
from lib_trainer.demo.build.tokenizer import CONTEXT_TOKENS
from lib_trainer.demo.build.train_vae import rate_at
from lib_trainer.demo.build.training_images import TrainingImages

log = logging.getLogger(__name__)

STEPS = 3400
BATCH = 32
# Each picture is seen at several noise levels at once: its caption is read only once.
LEVELS = 2
LEARNING_RATE = 1.5e-3
EMA_DECAY = 0.998
MIN_SNR_GAMMA = 5.0
CAPTION_DROPOUT = 0.1
SAVE_EVERY = 250


class Painter(nn.Module):
    """Text encoder and UNet as one: tokens (B, 77), noisy latents (B·L, 4, 8, 8), timesteps (B·L,) -> noise."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.text_encoder = new_text_encoder(tokens)
        self.unet = new_unet()

    def forward(self, tokens: Tensor, noisy: Tensor, timesteps: Tensor) -> Tensor:
        context = self.text_encoder(tokens).last_hidden_state
        levels = noisy.shape[0] // tokens.shape[0]
        return self.unet(noisy, timesteps, context.repeat(levels, 1, 1)).sample


def read_captions(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    """Captions -> (N, 77) token numbers."""
    made = tokenizer(captions, padding="max_length", truncation=True, max_length=CONTEXT_TOKENS, return_tensors="pt")
    return made["input_ids"]


def loss_of(painter: Painter, latents: Tensor, tokens: Tensor, alphas: Tensor, generator: torch.Generator) -> Tensor:
    """Noise-prediction loss, min-SNR weighted (Hang et al. 2023); each of latents (B, 4, 8, 8) at LEVELS timesteps."""
    count = latents.shape[0] * LEVELS
    # One timestep in each equal slice of the schedule: the loss of a batch swings less.
    slices = torch.randperm(count, generator=generator) + torch.rand(count, generator=generator)
    timesteps = (slices * len(alphas) / count).long().clamp(max=len(alphas) - 1)
    noise = torch.randn((count, *latents.shape[1:]), generator=generator)
    alpha = alphas[timesteps]
    signal, spread = alpha.sqrt()[:, None, None, None], (1 - alpha).sqrt()[:, None, None, None]
    noisy = signal * latents.repeat(LEVELS, 1, 1, 1) + spread * noise
    error = (painter(tokens, noisy, timesteps) - noise).pow(2).mean(dim=(1, 2, 3))
    snr = alpha / (1 - alpha)
    return (error * snr.clamp(max=MIN_SNR_GAMMA) / snr).mean()


def train_unet(
    images: TrainingImages, tokenizer: CLIPTokenizer, checkpoint: Path, seed: int, steps: int = STEPS
) -> Painter:
    """Train a painter on normalized latents, resuming from `checkpoint`; returns the moving average of its weights."""
    painter = Painter(len(tokenizer)).train().to(memory_format=torch.channels_last)
    average = AveragedModel(painter, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY))
    optimizer = torch.optim.AdamW(painter.parameters(), lr=LEARNING_RATE, weight_decay=1e-3, betas=(0.9, 0.99))
    parts = {"painter": painter, "average": average, "optimizer": optimizer}
    start = _restore(parts, checkpoint)
    tokens, empty = read_captions(tokenizer, images.captions), read_captions(tokenizer, [""])
    alphas, recent = new_schedule().alphas_cumprod, 0.0
    for step in range(start, steps):
        # Seeded by the step: a run that was interrupted sees the batches it would have seen.
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        chosen = torch.randint(len(tokens), (BATCH,), generator=generator)
        dropped = torch.rand(BATCH, generator=generator) < CAPTION_DROPOUT
        prompts = torch.where(dropped[:, None], empty, tokens[chosen])
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, steps, LEARNING_RATE)
        loss = loss_of(painter, images.latents[chosen], prompts, alphas, generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(painter.parameters(), 1.0)
        optimizer.step()
        # The moving average of the weights is what is kept: single steps of so small a model are noisy.
        average.update_parameters(painter)
        recent += loss.item()
        if (step + 1) % 50 == 0:
            log.info("painter step %d of %d, loss %.4f", step + 1, steps, recent / 50)
            recent = 0.0
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == steps:
            _keep(parts, step + 1, checkpoint)
    return average.module.eval()


def _restore(parts: dict[str, nn.Module | torch.optim.Optimizer], checkpoint: Path) -> int:
    if not checkpoint.exists():
        return 0
    state = torch.load(checkpoint, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return state["step"]


def _keep(parts: dict[str, nn.Module | torch.optim.Optimizer], step: int, checkpoint: Path) -> None:
    partial = checkpoint.with_suffix(".part")
    torch.save({"step": step, **{name: part.state_dict() for name, part in parts.items()}}, partial)
    partial.replace(checkpoint)
