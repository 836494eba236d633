"""What the extension changes in torch itself, for as long as the WebUI runs."""

import torch

import networks

_KINDS = [torch.nn.Linear, torch.nn.Conv2d, torch.nn.GroupNorm, torch.nn.LayerNorm, torch.nn.MultiheadAttention]


class LoraPatches:
    def __init__(self):
        """Before a layer computes, it looks which LoRAs are wanted; with a new weight it forgets which it holds."""
        steps = {
            "forward": networks.network_apply_weights,
            "_load_from_state_dict": networks.network_reset_cached_weight,
        }
        # What a class only inherits is not its own.
        self._own = [(kind, {name: vars(kind)[name] for name in steps if name in vars(kind)}) for kind in _KINDS]
        for kind in _KINDS:
            for name, step in steps.items():
                setattr(kind, name, _after(step, getattr(kind, name)))

    def undo(self):
        for kind, own in self._own:
            for name in ("forward", "_load_from_state_dict"):
                delattr(kind, name)
            for name, method in own.items():
                setattr(kind, name, method)


def _after(step, method):
    def changed(self, *args, **kwargs):
        step(self)
        return method(self, *args, **kwargs)

    return changed
