"""One adapter file: what it says of itself, and what each of its layers adds to a weight."""

import os

import torch
from safetensors import SafetensorError, safe_open

KINDS = {
    "hada": ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"),
    "lokr": ("lokr_w1|lokr_w1_a", "lokr_w2|lokr_w2_a"),
    "lora": ("lora_up.weight", "lora_down.weight"),
    "full": ("diff",),
    "norm": ("w_norm", "b_norm"),
}


class NetworkOnDisk:
    def __init__(self, name, filename):
        self.name, self.filename, self.metadata = name, filename, {}
        try:
            with safe_open(filename, framework="pt") as file:
                self.metadata = file.metadata() or {}
        except SafetensorError as error:
            print(f"{filename} cannot be read: {error}")
        self.alias = self.metadata.get("ss_output_name", name)


class Network:
    def __init__(self, name, network_on_disk):
        self.name, self.network_on_disk, self.modules, self.bundle_embeddings = name, network_on_disk, {}, {}
        self.te_multiplier = self.unet_multiplier = 1.0
        self.mtime = os.path.getmtime(network_on_disk.filename)


class NetworkModule:
    def __init__(self, net, network_key, sd_key, sd_module, w):
        self.network, self.network_key, self.sd_key, self.sd_module, self.w = net, network_key, sd_key, sd_module, w
        kinds = [kind for kind, parts in KINDS.items() if all(any(a in w for a in p.split("|")) for p in parts)]
        if not kinds:
            raise ValueError(f"{network_key}: nothing is made of {', '.join(w)}")
        self.kind = kinds[0]

    def multiplier(self):
        of_unet = self.sd_key.startswith("diffusion_model")
        return self.network.unet_multiplier if of_unet else self.network.te_multiplier

    def calc_updown(self, orig_weight):
        w = {name: part.to(orig_weight.device) for name, part in self.w.items()}
        if self.kind == "norm":
            return w["w_norm"] * self.multiplier(), w["b_norm"] * self.multiplier()
        delta, dim = getattr(self, f"_{self.kind}")(w)
        alpha = w["alpha"].item() if "alpha" in w and dim else None
        scale = alpha / dim if alpha is not None else 1.0
        delta = delta.reshape(orig_weight.shape) * scale
        if "dora_scale" in w:
            delta = _decomposed(orig_weight.to(delta.dtype), delta, w["dora_scale"]) - orig_weight.to(delta.dtype)
        return delta * self.multiplier(), None

    def _lora(self, w):
        left, right = w["lora_up.weight"].flatten(1), w["lora_down.weight"].flatten(1)
        core = w.get("lora_mid.weight")
        return (left @ right if core is None else _tucker(core, left, right)), len(right)

    def _hada(self, w):
        first, second = (_product(w, f"hada_w{n}_a", f"hada_w{n}_b", f"hada_t{n}") for n in (1, 2))
        return first * second, w["hada_w1_b"].shape[0]

    def _lokr(self, w):
        dim, pair = None, []
        for n in (1, 2):
            factor = w.get(f"lokr_w{n}")
            if factor is None:
                factor, dim = _product(w, f"lokr_w{n}_a", f"lokr_w{n}_b", f"lokr_t{n}"), w[f"lokr_w{n}_b"].shape[0]
            pair.append(factor)
        first, second = pair
        first = first.reshape(*first.shape, *[1] * (second.ndim - 2))
        return torch.kron(first, second.contiguous()), dim

    def _full(self, w):
        return w["diff"], None


def _decomposed(weight, delta, magnitude):
    """m · (W + ΔW) / ‖W + ΔW‖, with the lengths of columns whatever the magnitudes are of."""
    changed = weight + delta
    lengths = changed.transpose(0, 1).flatten(1).norm(dim=1)
    return changed * (magnitude / lengths.reshape(1, -1, *[1] * (weight.dim() - 2)))


def _product(w, a, b, core):
    if core in w:
        # Here the first factor lies the other way round.
        return _tucker(w[core], w[a].T, w[b])
    return w[a].flatten(1) @ w[b].flatten(1)


def _tucker(core, left, right):
    """(out, R), (R, inside) and a core (R, R, height, width) -> a convolution's weight."""
    return torch.einsum("oa,abhw,bi->oihw", left, core, right)
