"""LoRA files to patches, and patches into the weights of a model."""

import torch

_CLIP_PREFIXES = {"clip_l": ("lora_te_", "lora_te1_"), "clip_g": ("lora_te2_",), "clip_h": ("lora_te_",)}
_LOHA = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2")
_LOKR = ("lokr_w1", "lokr_w2", "lokr_w1_a", "lokr_w1_b", "lokr_w2_a", "lokr_w2_b", "lokr_t2")
_LORA = ("lora_up.weight", "lora_down.weight", "lora_mid.weight")


def load_lora(lora, to_load):
    """(patches by model key, the tensors that belong to no key of `to_load`)."""
    patches, used = {}, set()
    for name, key in to_load.items():
        alpha = lora.get(f"{name}.alpha")
        for kind, parts in (("loha", _LOHA), ("lokr", _LOKR), ("lora", _LORA)):
            found = {part: lora[f"{name}.{part}"] for part in parts if f"{name}.{part}" in lora}
            if found:
                if f"{name}.dora_scale" in lora:
                    found["dora_scale"] = lora[f"{name}.dora_scale"]
                patches[key] = (kind, (found, None if alpha is None else alpha.item()))
                used |= {f"{name}.alpha", *(f"{name}.{part}" for part in found)}
        for part, end in (("w_norm", "weight"), ("b_norm", "bias")):
            if f"{name}.{part}" in lora:
                patches[f"{key.removesuffix('weight')}{end}"] = ("diff", ({"diff": lora[f"{name}.{part}"]}, None))
                used.add(f"{name}.{part}")
    return patches, {name: value for name, value in lora.items() if name not in used}


def model_lora_keys_unet(model, key_map):
    keys = [key for key in model.state_dict() if key.startswith("diffusion_model.") and key.endswith(".weight")]
    inner = {key: key.removeprefix("diffusion_model.").removesuffix(".weight") for key in keys}
    other = _diffusers_names(model.diffusion_model) if hasattr(model.diffusion_model, "input_blocks") else {}
    for key, name in inner.items():
        key_map["lora_unet_" + name.replace(".", "_")] = key
        if name in other:
            key_map["lora_unet_" + other[name].replace(".", "_")] = key
    return key_map


def model_lora_keys_clip(model, key_map):
    for key in model.state_dict():
        encoder, _, rest = key.partition(".transformer.")
        if rest.startswith("text_model.encoder.layers.") and rest.endswith(".weight"):
            name = rest.removesuffix(".weight").replace(".", "_")
            prefixes = _CLIP_PREFIXES[encoder]
            key_map.update({prefix + name: key for prefix in prefixes})
    return key_map


def _diffusers_names(unet):
    """LDM name -> diffusers name of every layer that has one, by walking the blocks in diffusers' order."""
    names = {"input_blocks.0.0": "conv_in", "out.2": "conv_out"}
    names.update({"time_embed.0": "time_embedding.linear_1", "time_embed.2": "time_embedding.linear_2"})

    def note(block, ldm, level, resnets, attentions, prefix):
        for index, part in enumerate(block):
            kind = type(part).__name__
            name = {
                "ResBlock": f"{prefix}.resnets.{resnets}",
                "SpatialTransformer": f"{prefix}.attentions.{attentions}",
                "Downsample": f"{prefix}.downsamplers.0",
                "Upsample": f"{prefix}.upsamplers.0",
            }.get(kind)
            renamed = {"in_layers.2": "conv1", "out_layers.3": "conv2", "emb_layers.1": "time_emb_proj", "op": "conv"}
            renamed |= {"skip_connection": "conv_shortcut", "in_layers.0": "norm1", "out_layers.0": "norm2"}
            for inner, _ in part.named_modules():
                names[f"{ldm}.{index}.{inner}"] = f"{name}.{renamed.get(inner, inner)}"
            resnets += kind == "ResBlock"
        return resnets

    level = resnets = 0
    for number, block in enumerate(list(unet.input_blocks)[1:], 1):
        resnets = note(block, f"input_blocks.{number}", level, resnets, resnets, f"down_blocks.{level}")
        if type(block[0]).__name__ == "Downsample":
            level, resnets = level + 1, 0
    note(unet.middle_block, "middle_block", 0, 0, 0, "mid_block")
    level = resnets = 0
    for number, block in enumerate(unet.output_blocks):
        resnets = note(block, f"output_blocks.{number}", level, resnets, resnets, f"up_blocks.{level}")
        if type(block[-1]).__name__ == "Upsample":
            level, resnets = level + 1, 0
    return names


def _tucker(core, a, b):
    return torch.einsum("ijkl,jr,ip->prkl", core, b, a)


def _delta(kind, parts, alpha):
    """ΔW as (out, …), and the rank that alpha is divided by (None where there is none)."""
    if kind == "diff":
        return parts["diff"], None
    if kind == "lora":
        up, down = parts["lora_up.weight"], parts["lora_down.weight"]
        if "lora_mid.weight" in parts:
            rank = down.shape[0]
            return torch.einsum("om,mnkl,ni->oikl", up.flatten(1), parts["lora_mid.weight"], down.flatten(1)), rank
        return up.flatten(1) @ down.flatten(1), down.shape[0]
    if kind == "loha":
        halves = [(parts[f"hada_w{n}_a"], parts[f"hada_w{n}_b"], parts.get(f"hada_t{n}")) for n in (1, 2)]
        first, second = (a @ b if core is None else _tucker(core, a, b) for a, b, core in halves)
        return first * second, parts["hada_w1_b"].shape[0]
    rank, pair = None, []
    for n in (1, 2):
        factor = parts.get(f"lokr_w{n}")
        if factor is None:
            a, b = parts[f"lokr_w{n}_a"], parts[f"lokr_w{n}_b"]
            rank, core = b.shape[0], parts.get("lokr_t2") if n == 2 else None
            factor = a @ b if core is None else _tucker(core, a, b)
        pair.append(factor)
    first, second = pair
    # As in the real one, this fails on what `_tucker` returns: no LoKr in tucker form can be used.
    return torch.kron(first.reshape(*first.shape, *[1] * (second.ndim - 2)), second), rank


@torch.inference_mode()
def merge_lora_to_weight(patches, weight, key="online_lora", computation_dtype=torch.float32):
    merged = weight.to(computation_dtype, copy=True)
    for strength, (kind, (parts, alpha)), *_ in patches:
        delta, rank = _delta(kind, {name: part.to(computation_dtype) for name, part in parts.items()}, alpha)
        scale = alpha / rank if alpha is not None and rank is not None else 1.0
        delta = scale * delta.reshape(merged.shape)
        if "dora_scale" in parts:
            delta = _decomposed(merged, delta, parts["dora_scale"].to(computation_dtype)) - merged
        merged += strength * delta
    return merged.to(weight.dtype)


def _decomposed(weight, delta, magnitude):
    """m · (W + ΔW) / ‖W + ΔW‖ by column; by row, as in the real one, the length is that of W alone."""
    changed, by_row = weight + delta, magnitude.shape[0] == weight.shape[0]
    lengths = weight.flatten(1).norm(dim=1) if by_row else changed.transpose(0, 1).flatten(1).norm(dim=1)
    shape = (-1, 1) if by_row else (1, -1)
    lengths = lengths.reshape(*shape, *[1] * (weight.dim() - 2)) + torch.finfo(weight.dtype).eps
    return changed * (magnitude / lengths)
