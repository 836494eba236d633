"""Names of an adapter's tensors: ours inside, LyCORIS' and kohya's in files."""

from __future__ import annotations

# algo -> our name of a factor -> the name in a file, behind `{layer}.`
FILE_KEYS: dict[str, dict[str, str]] = {
    "loha": {name: f"hada_{name}" for name in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")},
    "lokr": {name: f"lokr_{name}" for name in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")},
    # LyCORIS names LoCon as kohya's LoRA, so that every WebUI reads it.
    "locon": {"up": "lora_up.weight", "down": "lora_down.weight", "mid": "lora_mid.weight"},
    "norm": {"w": "w_norm", "b": "b_norm"},
}
NORM, ALPHA = "norm", "alpha"
_ALGO_OF = {key: (algo, name) for algo, keys in FILE_KEYS.items() for name, key in keys.items()}


def split_key(key: str) -> tuple[str, str]:
    """`lora_unet_x.lora_up.weight` -> (`lora_unet_x`, `lora_up.weight`). Layer names hold no dots."""
    layer, _, rest = key.partition(".")
    return layer, rest


def algo_of(file_key: str) -> tuple[str, str] | None:
    """`hada_w1_a` -> (`loha`, `w1_a`); None for a tensor that is none of an adapter's factors."""
    return _ALGO_OF.get(file_key)
