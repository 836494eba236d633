"""Fresh factors of one layer, as LyCORIS makes them."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from torch import Tensor, nn

from lib_trainer.adapter.dora import magnitude_shape, magnitudes
from lib_trainer.adapter.kernels.autograd import LayerOp
from lib_trainer.adapter.keys import ALPHA, FILE_KEYS
from lib_trainer.adapter.layer_rules import layer_rule
from lib_trainer.adapter.modules import AdapterModule
from lib_trainer.config.recipe import AdapterConfig
from lib_trainer.errors import MissingPackage


def new_module(
    name: str, operation: LayerOp, config: AdapterConfig, weight: Tensor | None = None
) -> AdapterModule | None:
    """Fresh factors of one layer as LyCORIS makes them; None for a layer that the recipe leaves alone.

    LyCORIS draws its start values from torch's global random state.

    Args:
        weight: the layer's own; a DoRA begins with its norms, nothing else reads it.
    """
    # LyCORIS counts 1×1 convolutions as linear layers.
    wide = operation.is_conv and operation.shape[2:] != (1, 1)
    rule = layer_rule(name, config, wide=wide)
    if rule.rank == 0:
        return None
    module = _lycoris_module(config.algo)(
        name,
        _shell(operation),
        lora_dim=rule.rank,
        alpha=rule.alpha,
        use_tucker=config.use_tucker,
        factor=config.factor,
        decompose_both=config.decompose_both,
        full_matrix=config.full_matrix,
        unbalanced_factorization=config.unbalanced_factorization,
        # LyCORIS hands back an alpha with which alpha / rank is alpha / √rank, for programs that do not know of it.
        rs_lora=config.rs_lora,
    )
    # Only the start values are LyCORIS'; from here on the factors are ours.
    made = dict(module.named_parameters())
    tensors = {ours: made[theirs].detach() for ours, theirs in FILE_KEYS[config.algo].items() if theirs in made}
    return AdapterModule(config.algo, tensors, float(getattr(module, ALPHA)), _first_magnitudes(config, weight))


def _first_magnitudes(config: AdapterConfig, weight: Tensor | None) -> Tensor | None:
    if not config.dora_wd:
        return None
    if weight is None:
        raise ValueError("a DoRA begins with the norms of the layer's weight, which was not given")
    return magnitudes(weight.detach().float(), magnitude_shape(tuple(weight.shape), on_output=config.wd_on_output))


def _lycoris_module(algo: str) -> Any:
    if not find_spec("lycoris"):
        raise MissingPackage("lycoris-lora", "Training an adapter")
    from lycoris.modules.locon import LoConModule
    from lycoris.modules.loha import LohaModule
    from lycoris.modules.lokr import LokrModule

    return {"loha": LohaModule, "lokr": LokrModule, "locon": LoConModule}[algo]


def _shell(operation: LayerOp) -> nn.Module:
    """A layer of the same shape without weights: LyCORIS reads nothing but the shape from it."""
    out, inner = operation.shape[:2]
    if not operation.is_conv:
        return nn.Linear(inner, out, bias=False, device="meta")
    return nn.Conv2d(
        inner * operation.groups,
        out,
        operation.shape[2:],
        operation.stride,
        operation.padding,
        operation.dilation,
        operation.groups,
        bias=False,
        device="meta",
    )
