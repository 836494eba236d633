"""What a file of a diffusion transformer says about itself: its family, measures and number format.

Only the header of the file is read. Text encoders and VAE may lie in files of their own.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lib_trainer.errors import UserError
from lib_trainer.models.families import ANIMA, CHROMA, FLUX, KLEIN4B, KLEIN9B, LUMINA2, ZIMAGE, Family, TransformerShape
from lib_trainer.models.transformer_layers import is_adapted, transformer_shape
from lib_trainer.utils.safetensors_header import HeaderError, read_header

Shapes = Mapping[str, tuple[int, ...]]

# Of a whole checkpoint, of ComfyUI's and of Cosmos' files; published files of the transformer alone have none.
_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "net.", "")
_WEIGHT = ".weight"
# nf4 and fp4: half a byte, and a float32 scale for every 64 values.
FOUR_BIT_BYTES = 0.5 + 4 / 64
_BYTES = {"F32": 4.0, "F16": 2.0, "BF16": 2.0, "F8_E4M3": 1.0, "F8_E5M2": 1.0, "I8": 1.0, "U8": FOUR_BIT_BYTES}


@dataclass(frozen=True)
class TransformerFile:
    """A transformer that is not loaded.

    Attributes:
        weight_bytes: of one stored parameter; `FOUR_BIT_BYTES` for nf4 and fp4.
    """

    family: Family
    shape: TransformerShape
    weight_bytes: float


def read_transformer_file(path: Path) -> TransformerFile:
    """Which transformer a .safetensors file holds.

    Raises:
        UserError: it holds none that is trained here.
        OSError: it cannot be read.
    """
    try:
        layout = read_header(path).layout
    except HeaderError as error:
        raise UserError(f"{path.name} is not a checkpoint: {error}.", "Choose a .safetensors file.") from error
    for prefix in _PREFIXES:
        own = {name.removeprefix(prefix): entry for name, entry in layout.items() if name.startswith(prefix)}
        shapes = {name: tuple(entry["shape"]) for name, entry in own.items()}
        family = _family_of(shapes)
        if family is None:
            continue
        adapted = [name for name in shapes if name.endswith(_WEIGHT) and is_adapted(name.removesuffix(_WEIGHT), family)]
        weight_bytes = _BYTES.get(_usual_dtype({name: own[name] for name in adapted}))
        if weight_bytes is None:
            break
        if weight_bytes == FOUR_BIT_BYTES:
            # Packed weights are one row of bytes; files in 4 bits are made of the published models.
            return TransformerFile(family, family.shape, weight_bytes)
        measured = {name.removesuffix(_WEIGHT): shapes[name] for name in adapted}
        return TransformerFile(family, transformer_shape(measured, family), weight_bytes)
    raise UserError(f"{path.name} holds no diffusion transformer that is trained here.", "Choose another checkpoint.")


def _family_of(shapes: Shapes) -> Family | None:
    if "double_blocks.0.img_attn.qkv.weight" in shapes and "img_in.weight" in shapes:
        if "double_stream_modulation_img.lin.weight" in shapes:
            width = shapes["img_in.weight"][0]
            # FLUX.2 itself is wider.
            return next((family for family in (KLEIN4B, KLEIN9B) if width <= family.shape.width), None)
        return CHROMA if any(name.startswith("distilled_guidance_layer.") for name in shapes) else FLUX
    if "cap_embedder.1.weight" in shapes and "noise_refiner.0.attention.qkv.weight" in shapes:
        # Lumina has a SiLU in front of its modulation.
        return ZIMAGE if "layers.0.adaLN_modulation.0.weight" in shapes else LUMINA2
    anima = "llm_adapter.blocks.0.cross_attn.q_proj.weight" in shapes and "blocks.0.mlp.layer1.weight" in shapes
    return ANIMA if anima else None


def _usual_dtype(layout: Mapping[str, Mapping[str, object]]) -> str:
    """The number format of most parameters, by safetensors' name."""
    counts: Counter[str] = Counter()
    for entry in layout.values():
        counts[str(entry["dtype"])] += math.prod(entry["shape"])  # type: ignore[call-overload]
    return counts.most_common(1)[0][0] if counts else ""
