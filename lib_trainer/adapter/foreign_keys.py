"""Names that other programs give to an adapter's tensors, in kohya's.

PEFT and diffusers write `unet.down_blocks.0.attentions.0.proj_in.lora_A.weight`, LyCORIS' own wrapper
`lycoris_down_blocks_0_attentions_0_proj_in.lokr_w1`; SDXL files may have diffusers' names where kohya has LDM's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from lib_trainer.adapter.dora import DORA
from lib_trainer.adapter.keys import FILE_KEYS
from lib_trainer.models.layer_names import UNET_PREFIX, diffusers_file_names

_UP_DOWN = {
    **{f"lora_A{adapter}.weight": "lora_down.weight" for adapter in ("", ".default")},
    **{f"lora_B{adapter}.weight": "lora_up.weight" for adapter in ("", ".default")},
    **{f"lora{kind}.{way}.weight": f"lora_{way}.weight" for kind in ("", "_linear_layer") for way in ("down", "up")},
}
# diffusers before 0.22: `attn1.processor.to_q_lora.down.weight`.
_PROCESSOR = re.compile(r"(.*)\.processor\.(to_\w+?)_lora\.(down|up)\.weight")
_PREFIXES = {
    "text_encoder_2.": "lora_te2_",
    "text_encoder.": "lora_te_",
    "unet.": UNET_PREFIX,
    "transformer.": UNET_PREFIX,
    "diffusion_model.": UNET_PREFIX,
    "text_model.": "lora_te_text_model_",
}
_LYCORIS = "lycoris_"
# PEFT's name of a DoRA's magnitudes.
_MAGNITUDES = ("lora_magnitude_vector.weight", "lora_magnitude_vector")
# What ComfyUI writes behind a layer's dotted name as kohya does.
_OWN_ENDS = (DORA, *(key for keys in FILE_KEYS.values() for key in keys.values()))


def kohya_key(key: str) -> str:
    """A tensor's key as kohya would write it; one that no program here is known to write stays as it is."""
    if key.startswith(_LYCORIS):
        name = key[len(_LYCORIS) :]
        return f"lora_te_{name}" if name.startswith("text_model") else f"{UNET_PREFIX}{name}"
    if old := _PROCESSOR.fullmatch(key):
        layer = "to_out.0" if old[2] == "to_out" else old[2]
        key = f"{old[1]}.{layer}.lora.{old[3]}.weight"
    for theirs, kohyas in _UP_DOWN.items():
        if key.endswith(f".{theirs}"):
            return f"{_kohya_layer(key[: -len(theirs) - 1])}.{kohyas}"
    for theirs in _MAGNITUDES:
        if key.endswith(f".{theirs}"):
            return f"{_kohya_layer(key[: -len(theirs) - 1])}.{DORA}"
    for own in _OWN_ENDS:
        layer = key.removesuffix(f".{own}")
        # kohya's own layer names hold no dots.
        if layer != key and "." in layer:
            return f"{_kohya_layer(layer)}.{own}"
    # PEFT's files have no alpha; those that diffusers' scripts convert do.
    if key.endswith(".alpha") and key.count(".") > 1:
        return f"{_kohya_layer(key.removesuffix('.alpha'))}.alpha"
    return key


def naming_of(keys: Iterable[str]) -> str:
    """Whose names the keys of a file are: `kohya`, `LyCORIS`, `ComfyUI`, `PEFT` or `diffusers`."""
    keys = list(keys)
    starts = {"LyCORIS": _LYCORIS, "ComfyUI": "diffusion_model.", "PEFT": "base_model.model."}
    for program, start in starts.items():
        if any(key.startswith(start) for key in keys):
            return program
    return "diffusers" if any(kohya_key(key) != key for key in keys) else "kohya"


def names_in_model(names: Iterable[str], layers: Sequence[str]) -> dict[str, str]:
    """Layer in a file -> the layer of a model that it means; without those that the model lacks.

    Args:
        names: in kohya's form, after `kohya_key`.
        layers: names of all layers of the model.
    """
    known = set(layers)
    # diffusers' names where the model's files have LDM's, and the first of two text encoders as the only one.
    others = diffusers_file_names(layers)
    others |= {f"lora_te_{name[9:]}": name for name in layers if name.startswith("lora_te1_")}
    return {name: name if name in known else others[name] for name in names if name in known or name in others}


def _kohya_layer(module: str) -> str:
    module = module.removeprefix("base_model.model.")
    for prefix, kohyas in _PREFIXES.items():
        if module.startswith(prefix):
            return kohyas + module[len(prefix) :].replace(".", "_")
    return UNET_PREFIX + module.replace(".", "_")
