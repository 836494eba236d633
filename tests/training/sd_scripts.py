"""Ten steps with the functions and the LoRA network of kohya's sd-scripts, on the UNet of `test_reference`.

The functions come out of a checkout by name, without the packages that its modules import. To record the curves that
the tests fall back to: `SD_SCRIPTS_DIR=… python -m tests.training.sd_scripts > tests/data/sd_scripts_losses.json`
"""

from __future__ import annotations

import ast
import importlib.util
import json
import logging
import math
import os
import random
import sys
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Optional, Union

import torch
from torch import Tensor

from lib_trainer.adapter.attach import new_adapter
from lib_trainer.adapter.dora import DORA
from lib_trainer.adapter.keys import FILE_KEYS
from lib_trainer.config.recipe import Recipe
from lib_trainer.host.standalone.model import unet_norms
from lib_trainer.models.base import Layer, SizeCond
from lib_trainer.models.families import SD1
from tests.training.small import make_batch, recipe_of, schedule_of
from tests.training.test_reference import Unet, model_of

STEPS = 10
COMMON = {"network_dim": 3, "network_alpha": 1.5, "conv_dim": 2, "conv_alpha": 1.0, "learning_rate": 3e-3, "seed": 5}
_BLOCKS = [2 + number % 3 for number in range(25)]
# What differs from COMMON, under names that are the same here and there.
CASES: dict[str, dict[str, Any]] = {
    "huber": {"loss_type": "huber", "huber_schedule": "snr", "huber_c": 0.1},
    "smooth_l1": {"loss_type": "smooth_l1", "huber_schedule": "exponential", "huber_c": 0.2, "huber_scale": 1.5},
    "debiased": {"debiased_estimation_loss": True},
    "multires noise": {"multires_noise_iterations": 6, "multires_noise_discount": 0.3},
    "ip noise": {"ip_noise_gamma": 0.1, "min_timestep": 100, "max_timestep": 800},
    "adaptive offset": {"noise_offset": 0.05, "adaptive_noise_scale": 0.3, "min_snr_gamma": 5.0},
    "block dims": {
        "block_dims": ",".join(map(str, _BLOCKS)),
        "block_alphas": ",".join(str(rank / 2) for rank in _BLOCKS),
        "conv_block_dims": ",".join(str(rank - 1) for rank in _BLOCKS),
    },
    "block weights": {"down_lr_weight": "sine+.3", "mid_lr_weight": "0.5", "up_lr_weight": "1,0.2,0,0,0.7"},
    "LoRA+": {"loraplus_lr_ratio": 4.0},
    "weight norms": {"scale_weight_norms": 0.05, "learning_rate": 3e-2},
    "rs-LoRA": {"rs_lora": True},
    "DoRA": {"dora_wd": True},
    "DoRA per output": {"dora_wd": True, "wd_on_output": True, "algo": "loha"},
    "trained norms": {"train_norm": True, "learning_rate": 3e-2},
}
# sd-scripts has these through LyCORIS (`network_module=lycoris.kohya`).
_OF_LYCORIS = ("rs_lora", "dora_wd", "train_norm")
_OF_NETWORK = (
    *("block_dims", "block_alphas", "conv_block_dims", "conv_block_alphas", "down_lr_weight", "mid_lr_weight"),
    *("up_lr_weight", "loraplus_lr_ratio"),
)


def recipe_for(case: str) -> Recipe:
    values = {**COMMON, **CASES[case]}
    return recipe_of(max_train_steps=STEPS, **{"algo": "locon", **values})


def their_losses(case: str, checkout: Path) -> list[float]:
    """The loss of each step, as `train_network.py` of the checkout computes it."""
    recipe, functions, torch_model = recipe_for(case), _functions(checkout), model_of(Unet())
    of_lycoris = any(name in _OF_LYCORIS for name in CASES[case])
    network = (_lycoris_network if of_lycoris else _network)(checkout, torch_model, recipe, CASES[case])
    args = SimpleNamespace(**recipe.flat())
    rate = recipe.training.learning_rate
    groups = network.prepare_optimizer_params(None, rate, rate)
    # Later versions return descriptions beside the groups.
    groups = groups[0] if isinstance(groups, tuple) else groups
    groups = [{**group, "params": list(group["params"])} for group in groups]
    optimizer = torch.optim.AdamW(groups, lr=rate, weight_decay=0.01)
    trained = [parameter for group in groups for parameter in group["params"]]
    schedule, scheduler, losses = schedule_of(recipe), _noise_scheduler(torch_model.alphas_cumprod), []
    while len(losses) < STEPS:
        for draws in schedule.epoch(len(losses) // schedule.batches_per_epoch + 1):
            torch.manual_seed(recipe.training.seed * 1_000_003 + len(losses))
            batch = make_batch(draws)
            noise, noised, t = functions["get_noise_noisy_latents_and_timesteps"](args, scheduler, batch.latents)
            thresholds = functions["get_huber_threshold_if_needed"](args, t, scheduler)
            answer = torch_model.predict(noised, t, batch.text, SizeCond(batch.sizes.pixels))
            errors = functions["conditional_loss"](answer.float(), noise.float(), args.loss_type, "none", thresholds)
            loss = errors.mean([1, 2, 3])
            if args.min_snr_gamma:
                loss = functions["apply_snr_weight"](loss, t, scheduler, args.min_snr_gamma)
            if args.debiased_estimation_loss:
                loss = functions["apply_debiased_estimation"](loss, t, scheduler)
            loss = loss.mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if args.scale_weight_norms:
                network.apply_max_norm_regularization(args.scale_weight_norms, torch.device("cpu"))
            losses.append(float(loss.detach()))
    return losses[:STEPS]


def _network(checkout: Path, model: Any, recipe: Recipe, case: dict[str, Any]) -> Any:
    """sd-scripts' LoRA on the UNet, with the start values of ours."""
    arguments = {name: str(value) for name, value in case.items() if name in _OF_NETWORK}
    with _stubs():
        spec = importlib.util.spec_from_file_location("sd_scripts_lora", checkout / "networks" / "lora.py")
        lora = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(lora)
        config = recipe.adapter
        network = lora.create_network(
            1.0, config.network_dim, config.network_alpha, None, [], model.unet.net,
            conv_dim=config.conv_dim, conv_alpha=config.conv_alpha, **arguments,
        )  # fmt: skip
    network.apply_to([], model.unet.net, apply_text_encoder=False, apply_unet=True)
    ours = new_adapter(model.layers, recipe.adapter, recipe.training.seed)
    theirs = {module.lora_name: module for module in network.unet_loras}
    assert theirs.keys() == ours.layers.keys()
    with torch.no_grad():
        for name, module in theirs.items():
            tensors = ours.layers[name].tensors
            assert module.scale == ours.layers[name].scale
            module.lora_down.weight.copy_(tensors["down"])
            module.lora_up.weight.copy_(tensors["up"])
    return network.requires_grad_(True).train()


def _lycoris_network(_: Path, model: Any, recipe: Recipe, case: dict[str, Any]) -> Any:
    """LyCORIS' network as sd-scripts makes it, on the layers of `model_of`, with the start values of ours."""
    from lycoris.kohya import LycorisNetworkKohya

    # It logs to stdout, where the curves go.
    logging.getLogger("LyCORIS").setLevel(logging.ERROR)
    config = recipe.adapter
    blocks = ["Transformer2DModel", "ResnetBlock2D", "Downsample2D", "Upsample2D"]
    LycorisNetworkKohya.apply_preset({"unet_target_module": blocks, "unet_target_name": []})
    network = LycorisNetworkKohya(
        None, model.unet.net, 1.0, config.network_dim, config.conv_dim, config.network_alpha, config.conv_alpha,
        network_module=config.algo, train_norm=config.train_norm, rs_lora=config.rs_lora,
        weight_decompose=config.dora_wd, wd_on_out=config.wd_on_output, warn_on_unmatched=False,
    )  # fmt: skip
    network.apply_to(None, model.unet.net, False, True)
    ours = new_adapter(layers_for(recipe, model), config, recipe.training.seed, model.read_weight)
    theirs = {module.lora_name: module for module in network.unet_loras}
    assert theirs.keys() == ours.layers.keys()
    with torch.no_grad():
        for name, module in theirs.items():
            parameters, factors = dict(module.named_parameters()), ours.layers[name]
            for key, value in factors.tensors.items():
                parameters[FILE_KEYS[factors.algo][key]].copy_(value)
            if factors.dora_scale is not None:
                torch.testing.assert_close(parameters[DORA].detach(), factors.dora_scale.detach())
    return network.requires_grad_(True).train()


def layers_for(recipe: Recipe, model: Any) -> list[Layer]:
    return [*model.layers, *(unet_norms(model.unet.net, SD1) if recipe.adapter.train_norm else [])]


def _functions(checkout: Path) -> dict[str, Any]:
    """Functions of the checkout, by name."""
    custom = _pick(
        checkout / "library" / "custom_train_functions.py",
        "apply_snr_weight apply_debiased_estimation pyramid_noise_like apply_noise_offset",
        # Ours draws the ratio from the micro-batch's generator.
        {"random": SimpleNamespace(random=lambda: float(torch.rand(1)))},
    )
    return custom | _pick(
        checkout / "library" / "train_util.py",
        "get_timesteps get_noise_noisy_latents_and_timesteps get_huber_threshold_if_needed conditional_loss",
        {"custom_train_functions": SimpleNamespace(**custom)},
    )


def _pick(path: Path, names: str, known: dict[str, Any]) -> dict[str, Any]:
    tree = ast.parse(path.read_text("utf-8"))
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in names.split()]
    space = {"torch": torch, "math": math, "Optional": Optional, "Tuple": tuple, "Union": Union, "random": random}
    space |= {"DDPMScheduler": object, "Number": float, **known}
    exec(compile(tree, str(path), "exec"), space)
    return {name: space[name] for name in names.split()}


def _noise_scheduler(alphas: Tensor) -> Any:
    """The part of diffusers' DDPMScheduler that sd-scripts uses."""

    def add_noise(latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        alpha = alphas[t].reshape(-1, 1, 1, 1)
        return alpha.sqrt() * latents + (1 - alpha).sqrt() * noise

    config = SimpleNamespace(num_train_timesteps=len(alphas))
    return SimpleNamespace(alphas_cumprod=alphas, all_snr=alphas / (1 - alphas), add_noise=add_noise, config=config)


@contextmanager
def _stubs() -> Any:
    """What `networks/lora.py` imports of its own package."""
    utils, unet = ModuleType("library.utils"), ModuleType("library.sdxl_original_unet")
    utils.setup_logging = lambda *_, **__: None
    unet.SdxlUNet2DConditionModel = type("SdxlUNet2DConditionModel", (), {})
    made = {"library": ModuleType("library"), "library.utils": utils, "library.sdxl_original_unet": unet}
    before = {name: sys.modules.get(name) for name in made}
    sys.modules.update(made)
    try:
        yield
    finally:
        for name, module in before.items():
            sys.modules.pop(name) if module is None else sys.modules.update({name: module})


if __name__ == "__main__":
    curves = {case: their_losses(case, Path(os.environ["SD_SCRIPTS_DIR"])) for case in CASES}
    sys.stdout.write(json.dumps(curves, indent=1) + "\n")
