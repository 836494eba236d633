"""Six steps against LyCORIS' own modules on a plain torch UNet: same start, same noise, same loss curve."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version

import pytest
import torch
from torch import nn

from lib_trainer.adapter.attach import attached, new_adapter
from lib_trainer.adapter.keys import FILE_KEYS
from lib_trainer.config.recipe import AdapterConfig, Recipe
from lib_trainer.models.base import Layer, SizeCond
from lib_trainer.training.diffusion import add_noise
from lib_trainer.training.loop import Training, fit
from lib_trainer.training.loss import loss_weights, weighted_loss
from lib_trainer.training.noise import draw_noise, draw_timesteps
from tests.training.small import SmallModel, make_batch, recipe_of, schedule_of

pytest.importorskip("lycoris")
diffusers = pytest.importorskip("diffusers")

STEPS = 6
RECIPES = {
    "loha": AdapterConfig(algo="loha", network_dim=4, network_alpha=2, conv_dim=2, conv_alpha=1),
    "loha tucker": AdapterConfig(
        algo="loha", network_dim=4, network_alpha=2, conv_dim=2, conv_alpha=1, use_tucker=True
    ),
    "lokr": AdapterConfig(algo="lokr", network_dim=2, network_alpha=1, conv_dim=2, conv_alpha=1, factor=4),
    "locon": AdapterConfig(algo="locon", network_dim=4, network_alpha=2, conv_dim=2, conv_alpha=1),
    "locon rank-stabilized": AdapterConfig(
        algo="locon", network_dim=4, network_alpha=2, conv_dim=2, conv_alpha=1, rs_lora=True
    ),
    "loha decomposed": AdapterConfig(algo="loha", network_dim=4, network_alpha=2, conv_dim=2, dora_wd=True),
    "locon decomposed per output": AdapterConfig(
        algo="locon", network_dim=4, network_alpha=2, conv_dim=2, dora_wd=True, wd_on_output=True
    ),
    "lokr unbalanced": AdapterConfig(
        algo="lokr", network_dim=2, network_alpha=1, conv_dim=2, factor=2, unbalanced_factorization=True
    ),
}
# Those whose forwards run twice with gradient checkpointing.
CHECKPOINTED = ("loha tucker", "lokr")


class Unet(nn.Module):
    """Stable Diffusion's UNet, very small, in plain torch layers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = diffusers.UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(16, 32),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            layers_per_block=1,
            cross_attention_dim=8,
            attention_head_dim=2,
            norm_num_groups=8,
        ).train()

    def forward(self, x: torch.Tensor, t: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        return self.net(x, t, context).sample


def model_of(unet: Unet) -> SmallModel:
    layers = []
    for name, module in unet.net.named_modules():
        shape = tuple(module.weight.shape) if isinstance(module, (nn.Linear, nn.Conv2d)) else ()
        inside = "attentions" in name or "resnets" in name or "samplers" in name
        if inside and len(shape) == 2:
            layers.append(Layer(f"lora_unet_{name.replace('.', '_')}", module, "linear", shape))
        elif inside and shape:
            settings = (module.stride, module.padding, module.dilation, module.groups)
            layers.append(Layer(f"lora_unet_{name.replace('.', '_')}", module, "conv2d", shape, *settings))
    return SmallModel(unet, layers)


def lycoris_losses(recipe: Recipe) -> list[float]:
    """A training loop of a few lines around LyCORIS' modules, which replace the forwards of the same UNet."""
    from lib_trainer.adapter.fresh import _lycoris_module

    model, config = model_of(Unet()), recipe.adapter
    start = new_adapter(model.layers, config, recipe.training.seed, model.read_weight)
    modules = []
    for layer in model.layers:
        wide = layer.kind == "conv2d" and layer.shape[2:] != (1, 1)
        rank, alpha = (config.conv_dim, config.conv_alpha) if wide else (config.network_dim, config.network_alpha)
        options = {"use_tucker": config.use_tucker, "factor": config.factor, "rs_lora": config.rs_lora}
        options["unbalanced_factorization"] = config.unbalanced_factorization
        options |= {"weight_decompose": config.dora_wd, "wd_on_out": config.wd_on_output}
        made = _lycoris_module(config.algo)(layer.name, layer.module, 1.0, rank, alpha, **options)
        by_name = dict(made.named_parameters())
        with torch.no_grad():
            for ours, value in start.layers[layer.name].tensors.items():
                by_name[FILE_KEYS[config.algo][ours]].copy_(value)
        made.apply_to()
        modules.append(made)
    parameters = [p for made in modules for p in made.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=recipe.training.learning_rate, weight_decay=0.01)
    schedule, losses, index = schedule_of(recipe), [], 0
    while len(losses) < STEPS:
        for draws in schedule.epoch(len(losses) // schedule.batches_per_epoch + 1):
            generator = torch.Generator().manual_seed(recipe.training.seed * 1_000_003 + index)
            batch, index = make_batch(draws), index + 1
            noise = draw_noise(batch.latents, recipe.loss, generator)
            t = draw_timesteps(len(draws), model.alphas_cumprod, recipe.loss, generator)
            x_t = add_noise(batch.latents, noise, t, model.alphas_cumprod)
            weights = loss_weights(t, model.alphas_cumprod, recipe.loss, "epsilon")
            loss = weighted_loss(model.predict(x_t, t, batch.text, SizeCond(batch.sizes.pixels)), noise, weights)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(float(loss.detach()))
    return losses[:STEPS]


def our_losses(recipe: Recipe, checkpointing: bool) -> list[float]:
    unet = Unet()
    if checkpointing:
        unet.net.enable_gradient_checkpointing()
    model = model_of(unet)
    adapter = new_adapter(model.layers, recipe.adapter, recipe.training.seed, model.read_weight)
    with attached(adapter, model.layers, model.read_weight):
        training = Training(model, adapter, recipe, schedule_of(recipe), make_batch)
        return [event.loss for event in fit(training)]


@pytest.mark.skipif(version("lycoris-lora") < "4", reason="LyCORIS before 4.1.3 has wrong tucker LoHa gradients")
@pytest.mark.parametrize("algo", list(RECIPES))
def test_six_steps_give_the_loss_curve_of_lycoris(algo: str) -> None:
    recipe = recipe_for(algo)
    ours = our_losses(recipe, checkpointing=algo in CHECKPOINTED)
    assert len(ours) == STEPS
    assert farthest(ours, lycoris_losses(recipe)) <= 1e-5


def test_the_curve_is_of_a_training_that_does_something() -> None:
    recipe = recipe_for("loha")
    untrained = replace(recipe, training=replace(recipe.training, learning_rate=1e-12))
    assert farthest(our_losses(recipe, False), our_losses(untrained, False)) > 1e-3


def recipe_for(algo: str) -> Recipe:
    recipe = recipe_of(max_train_steps=STEPS, seed=5, min_snr_gamma=5.0, noise_offset=0.05, learning_rate=3e-3)
    return replace(recipe, adapter=RECIPES[algo])


def farthest(ours: list[float], theirs: list[float]) -> float:
    """The largest relative difference of two curves."""
    return max(abs(a - b) / b for a, b in zip(ours, theirs, strict=True))
