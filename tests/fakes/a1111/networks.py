"""LoRA files by name, and into the weights: every layer looks in its own forward whether other names are wanted now."""

import os
import re
import traceback

import torch
from tests.fakes.textual_inversion import from_data

import network
from modules import sd_hijack, sd_models, shared

available_networks = {}
available_network_aliases = {}
forbidden_network_aliases = {}
loaded_networks = []
networks_in_memory = {}
"""None is kept: that is the setting one starts with."""
originals = extra_network_lora = None
"""Both are set when the extension starts."""

_INSIDE = {
    "resnets": {
        "norm1": "in_layers_0", "conv1": "in_layers_2", "time_emb_proj": "emb_layers_1", "norm2": "out_layers_0",
        "conv2": "out_layers_3", "conv_shortcut": "skip_connection",
    },
    "attentions": {},
}  # fmt: skip


# The real one counts on two.
_RESIDUAL_BLOCKS = 1


def _ldm_names():
    """diffusers' name of a block or layer -> LDM's and the names inside, for so many residual blocks a level."""
    found = {
        "conv_in": ("input_blocks_0_0", {}), "conv_out": ("out_2", {}),
        "time_embedding_linear_1": ("time_embed_0", {}), "time_embedding_linear_2": ("time_embed_2", {}),
    }  # fmt: skip
    blocks = _RESIDUAL_BLOCKS + 1
    for place, (kind, inside) in enumerate(_INSIDE.items()):
        for number in range(2):
            found[f"mid_block_{kind}_{number}"] = f"middle_block_{2 * number if kind == 'resnets' else 1}", inside
        for level in range(4):
            for number in range(blocks):
                up, down = f"output_blocks_{blocks * level + number}", f"input_blocks_{blocks * level + number + 1}"
                found[f"up_blocks_{level}_{kind}_{number}"] = f"{up}_{place}", inside
                found[f"down_blocks_{level}_{kind}_{number}"] = f"{down}_{place}", inside
    for level in range(4):
        # The lowest level has no attention before it is left.
        up, down = blocks * (level + 1) - 1, blocks * (level + 1)
        found[f"up_blocks_{level}_upsamplers_0_conv"] = f"output_blocks_{up}_{2 if level else 1}_conv", {}
        found[f"down_blocks_{level}_downsamplers_0_conv"] = f"input_blocks_{down}_0_op", {}
    return found


_LDM_NAMES = _ldm_names()
_TEXT = {"lora_te_": "", "lora_te1_": "0_", "lora_te2_": "1_"}
_OPEN_CLIP = (
    ("text_model_encoder_layers", "model_transformer_resblocks"),
    ("self_attn", "attn"), ("mlp_fc1", "mlp_c_fc"), ("mlp_fc2", "mlp_c_proj"),
)  # fmt: skip


def _layer_names(name):
    """What kohya's name of a layer may be called in the model."""
    for prefix, place in _TEXT.items():
        if name.startswith(prefix):
            inside = name.removeprefix(prefix)
            yield f"{place}transformer_{inside}"
            for theirs, ours in _OPEN_CLIP:
                inside = inside.replace(theirs, ours)
            yield f"{place}{inside}"
    inside = name.removeprefix("lora_unet_")
    yield f"diffusion_model_{inside}"
    for block, (ours, names) in _LDM_NAMES.items():
        if inside == block or inside.startswith(f"{block}_"):
            rest = inside[len(block) + 1 :]
            yield "_".join(part for part in ("diffusion_model", ours, names.get(rest, rest)) if part)


def _find(name, mapping):
    """(the layer's name, the module) for kohya's name. Query, key and value in one weight are one module."""
    for key in _layer_names(name):
        for owner in (key, re.sub("_[qkv]_proj$", "", key)):
            if owner in mapping:
                return key, mapping[owner]
    return None


def assign_network_names_to_compvis_modules(sd_model):
    """Every module of UNet and text encoders by its name in the model, of which a layer is told."""
    wrappers = enumerate(sd_model.conditioner.embedders) if sd_model.is_sdxl else [("", sd_model.cond_stage_model)]
    parts = [(f"{place}_".lstrip("_"), part.wrapped) for place, part in wrappers if hasattr(part, "wrapped")]
    sd_model.network_layer_mapping = {}
    for prefix, part in [*parts, ("", sd_model.model)]:
        for name, module in part.named_modules():
            module.network_layer_name = prefix + name.replace(".", "_")
            sd_model.network_layer_mapping[module.network_layer_name] = module


def load_network(name, network_on_disk):
    net, layers, words = network.Network(name, network_on_disk), {}, {}
    for tensor_name, tensor in sd_models.read_state_dict(network_on_disk.filename).items():
        layer, _, part = tensor_name.partition(".")
        if layer == "bundle_emb":
            word, _, kind = part.partition(".")
            words.setdefault(word, {})[kind] = tensor
            continue
        found = _find(layer, shared.sd_model.network_layer_mapping)
        # What belongs nowhere is left out without a word.
        if found is not None:
            layers.setdefault(found, {})[part] = tensor_name, tensor
    for (key, module), parts in layers.items():
        first, _ = next(iter(parts.values()))
        tensors = {part: tensor for part, (_, tensor) in parts.items()}
        net.modules[key] = network.NetworkModule(net, first, key, module, tensors)
    for word, parts in words.items():
        kinds = {"string_to_param": {"*": parts["string_to_param.*"]}} if "string_to_param.*" in parts else parts
        net.bundle_embeddings[word] = from_data(kinds, word)
    return net


def load_networks(names, te_multipliers=None, unet_multipliers=None):
    """What is wanted from now on. A name that means nothing is noted, and the others are drawn all the same."""
    held = {net.name: net for net in loaded_networks}
    database = sd_hijack.model_hijack.embedding_db
    for word in [word for net in loaded_networks for word in net.bundle_embeddings]:
        database.register_embedding_by_name(None, shared.sd_model, word)
    loaded_networks.clear()
    if not all(map(_on_disk, names)):
        list_available_networks()
    for place, name in enumerate(names):
        net = _newest(name, held.get(name))
        if net is not None:
            net.te_multiplier = te_multipliers[place] if te_multipliers else 1.0
            net.unet_multiplier = unet_multipliers[place] if unet_multipliers else 1.0
            loaded_networks.append(net)
            for word, embedding in net.bundle_embeddings.items():
                # One of the folder's is preferred.
                if word not in database.word_embeddings:
                    database.register_embedding_by_name(embedding, shared.sd_model, word)


def _newest(name, net):
    """As its file is now; None where there is no file or none that can be read."""
    entry = _on_disk(name)
    if entry is None:
        sd_hijack.model_hijack.comments.append(f"There is no LoRA {name}.")
        return None
    if net is not None and net.mtime >= os.path.getmtime(entry.filename):
        return net
    try:
        return load_network(name, entry)
    except Exception:  # noqa: BLE001
        traceback.print_exc()
        return None


def _on_disk(name):
    if name.lower() in forbidden_network_aliases:
        return available_networks.get(name)
    return available_network_aliases.get(name)


def list_available_networks():
    for table in (available_networks, available_network_aliases, forbidden_network_aliases):
        table.clear()
    forbidden_network_aliases.update({"none": 1, "Addams": 1})
    for folder, _, files in sorted(os.walk(shared.cmd_opts.lora_dir, followlinks=True)):
        for file in sorted(files):
            name, ending = os.path.splitext(file)
            if ending in (".safetensors", ".ckpt", ".pt"):
                _list(network.NetworkOnDisk(name, os.path.join(folder, file)))


def _list(entry):
    available_networks[entry.name] = entry
    # Two files of one alias: it means neither of them any more.
    if entry.alias in available_network_aliases:
        forbidden_network_aliases[entry.alias.lower()] = 1
    available_network_aliases[entry.name] = available_network_aliases[entry.alias] = entry


def _weights_of(layer):
    """(module, name) of each tensor that may be written to."""
    if isinstance(layer, torch.nn.MultiheadAttention):
        return [(layer, "in_proj_weight"), (layer.out_proj, "weight")]
    return [(layer, name) for name in ("weight", "bias") if getattr(layer, name, None) is not None]


def network_restore_weights_from_backup(self):
    backup = getattr(self, "network_weights_backup", None) or []
    for (owner, name), kept in zip(_weights_of(self), backup, strict=False):
        # Not under no_grad, as in the real one: it fails where gradients are on and the weight asks for them.
        getattr(owner, name).copy_(kept)


def network_reset_cached_weight(self):
    """With a new weight, nothing is known of it."""
    self.network_current_names, self.network_weights_backup = (), None


def network_apply_weights(self):
    """What is loaded now, into the weights of a layer that holds something else: known by name and strength."""
    wanted = tuple((net.name, net.te_multiplier, net.unet_multiplier) for net in loaded_networks)
    if not hasattr(self, "network_layer_name") or wanted == getattr(self, "network_current_names", ()):
        return
    if getattr(self, "network_weights_backup", None) is None:
        self.network_weights_backup = [getattr(owner, name).detach().clone() for owner, name in _weights_of(self)]
    network_restore_weights_from_backup(self)
    for net in loaded_networks:
        try:
            with torch.no_grad():
                _add(self, net.modules)
        except RuntimeError:
            # Counted, and drawn without.
            extra_network_lora.errors[net.name] = extra_network_lora.errors.get(net.name, 0) + 1
    self.network_current_names = wanted


def _add(layer, modules):
    name = layer.network_layer_name
    if not isinstance(layer, torch.nn.MultiheadAttention):
        if name in modules:
            delta, of_bias = modules[name].calc_updown(layer.weight)
            layer.weight.copy_(layer.weight.to(delta.dtype) + delta)
            if of_bias is not None:
                layer.bias.add_(of_bias)
        return
    parts = [modules.get(f"{name}_{part}_proj") for part in ("q", "k", "v", "out")]
    # All four, or none of them.
    if all(parts):
        weights = [*layer.in_proj_weight.chunk(3), layer.out_proj.weight]
        for weight, part in zip(weights, parts, strict=True):
            weight.add_(part.calc_updown(weight)[0])


class ExtraNetworkLora:
    """`<lora:name:strength>`, with a strength for the UNet of its own after it or as `unet=`."""

    name = "lora"

    def __init__(self):
        self.errors = {}

    def activate(self, p, tags):
        self.errors.clear()
        strengths = [_strengths(values) for _, *values in tags]
        load_networks([tag[0] for tag in tags], [text for text, _ in strengths], [unet for _, unet in strengths])

    def deactivate(self, p):
        if self.errors:
            p.comment("These had errors: " + ", ".join(f"{name} ({count})" for name, count in self.errors.items()))


def _strengths(values):
    """(of the text encoders, of the UNet)."""
    named = dict(value.split("=") for value in values if "=" in value)
    plain = [value for value in values if "=" not in value]
    text = named.get("te", plain[0] if plain else 1.0)
    return float(text), float(named.get("unet", plain[1] if len(plain) > 1 else text))
