"""`inspect`: what an adapter file holds, and whether a WebUI will find its layers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lib_trainer.adapter.io import AdapterFile, read_adapter
from lib_trainer.adapter.metadata import LABELS, RECIPE_KEY
from lib_trainer.adapter.modules import AdapterModule
from lib_trainer.cli.output import Answer
from lib_trainer.lora.describe import family_by_layers, family_by_metadata
from lib_trainer.models.families import UNET_FAMILIES
from lib_trainer.models.transformer_layers import family_of_file_name
from lib_trainer.utils.json_object import json_object

_TRANSFORMER = (
    r"(norm|proj_in|proj_out|transformer_blocks_\d+_(norm[123]|attn[12]_to_(q|k|v|out_0)|ff_net_0_proj|ff_net_2))"
)
_RESNET = r"(norm1|norm2|conv1|conv2|time_emb_proj|conv_shortcut)"
_LDM_RESNET = r"(in_layers_[02]|out_layers_[03]|emb_layers_1|skip_connection)"
# The names by which WebUIs find layers: diffusers', LDM's, and those of CLIP in transformers.
KNOWN_NAME = re.compile(
    "lora_unet_("
    r"conv_in|conv_out|time_embedding_linear_[12]|add_embedding_linear_[12]"
    rf"|((down|up)_blocks_\d|mid_block)_(resnets_\d_{_RESNET}|attentions_\d_{_TRANSFORMER})"
    r"|down_blocks_\d_downsamplers_0_conv|up_blocks_\d_upsamplers_0_conv"
    rf"|((input|output)_blocks_\d+_|middle_block_)([012]_{_LDM_RESNET}|1_{_TRANSFORMER}|0_op|[12]_conv)"
    r"|input_blocks_0_0|out_2|time_embed_[02]|label_emb_0_[02]"
    r")|lora_te[12]?_text_model_encoder_layers_\d+_(self_attn_(q|k|v|out)_proj|mlp_fc[12])"
)
_CONTEXT_FAMILIES = {family.context_dim: family for family in UNET_FAMILIES}
_SHOWN = 12
_PER_OUTPUT = "per output"


def inspect_file(path: Path) -> Answer:
    """What a LoHa, LoKr or LoCon file holds. Raises UserError for another kind of file."""
    file = read_adapter(path)
    names = list(file.factors)
    # Forge drops the whole file at more than 12 keys that it cannot match.
    unmatched = [*file.unmatched, *(name for name in names if not _is_known(name))]
    values = {
        "file": path,
        "bytes": path.stat().st_size,
        "adapter": sorted({LABELS[factors.algo] for factors in file.factors.values()}),
        "dora": len(file.dora),
        "dora_norm": _dora_norm(file),
        "naming": file.naming,
        "program": program_of(file.metadata),
        "family": family_of(file),
        "modules": {
            "unet": sum(name.startswith("lora_unet_") for name in names),
            "text_encoder": sum(name.startswith("lora_te") for name in names),
        },
        "ranks": _ranks(file.factors),
        "parameters": sum(p.numel() for factors in file.factors.values() for p in factors.parameters()),
        "embeddings": {word: len(next(iter(vectors.values()))) for word, vectors in file.embeddings.items()},
        "unmatched_keys": unmatched,
        "metadata": file.metadata,
    }
    return Answer(values, tuple(_lines(values)))


def program_of(metadata: Mapping[str, str]) -> str:
    """The program that wrote a file, by what each puts into the metadata; "" where nothing says it."""
    if RECIPE_KEY in metadata:
        return "Train LoRA"
    # ai-toolkit writes {"name": …, "repo": …} as JSON.
    if name := json_object(metadata.get("software", "")).get("name"):
        return str(name)
    if any(key.startswith("ot_") for key in metadata):
        return "OneTrainer"
    if metadata.get("ss_network_module"):
        library = "LyCORIS in " if metadata["ss_network_module"].startswith("lycoris") else ""
        return f"{library}kohya's sd-scripts"
    if "lora_adapter_metadata" in metadata:
        return "diffusers"
    implementation = metadata.get("modelspec.implementation", "")
    return "" if implementation in ("", "diffusers") else implementation


def family_of(file: AdapterFile) -> str:
    """The model family by the metadata, else by the width of what cross-attention reads; "unknown" if neither says."""
    # Metadata first: small or distilled checkpoints may have other widths.
    if family := family_by_metadata(file.metadata):
        return family.label
    for name, factors in file.factors.items():
        # Cross-attention reads the text: its input width differs between families.
        if name.endswith("attn2_to_k"):
            family = _CONTEXT_FAMILIES.get(factors.delta().shape[1])
            return family.label if family else "unknown"
    family = family_by_layers(file.factors)
    return family.label if family else "unknown"


def _dora_norm(file: AdapterFile) -> str:
    """Over what the lengths of a DoRA are taken; "" where there is none."""
    scales = [file.factors[name].dora_scale for name in file.dora]
    # LyCORIS' magnitudes of columns have one row; PEFT's vectors are of rows.
    per_output = any(scale.ndim == 1 or scale.shape[0] > 1 for scale in scales)
    return (_PER_OUTPUT if per_output else "per input") if scales else ""


def _is_known(name: str) -> bool:
    return bool(KNOWN_NAME.fullmatch(name) or family_of_file_name(name))


def _ranks(layers: Mapping[str, AdapterModule]) -> dict[str, int]:
    """`32, alpha 16` -> how many layers have it."""
    counts = Counter(
        f"{f'rank {factors.rank}' if factors.rank else 'full'}, alpha {factors.alpha:g}" for factors in layers.values()
    )
    return dict(counts.most_common())


def _lines(values: dict[str, Any]) -> list[str]:
    modules, unmatched = values["modules"], values["unmatched_keys"]
    norm = f" (DoRA, norm {values['dora_norm']})" if values["dora"] else ""
    kind = " and ".join(values["adapter"]) + norm
    lines = [
        f"{values['file']}: {values['bytes'] / 1e6:.1f} MB",
        f"{kind} for {values['family']}, {values['parameters'] / 1e6:.2f} M parameters",
        f"{modules['unet']} layers of the UNet, {modules['text_encoder']} of the text encoder",
        *(f"  {count} with {rank}" for rank, count in values["ranks"].items()),
    ]
    for word, count in values["embeddings"].items():
        lines.append(f"an embedding of {count} vectors for the word {word}, which A1111 reads from this file")
    if values["dora_norm"] == _PER_OUTPUT:
        lines.append("WebUIs draw a DoRA with the norm per output otherwise than it was trained (docs/loras.md).")
    if values["program"]:
        lines.append(f"written by {values['program']}")
    if values["naming"] != "kohya":
        lines.append(f"keys named as {values['naming']} names them")
    if unmatched:
        shown = ", ".join(unmatched[:_SHOWN]) + (" …" if len(unmatched) > _SHOWN else "")
        lines.append(f"{len(unmatched)} keys that no WebUI matches: {shown}")
    else:
        lines.append("WebUIs match every key.")
    return lines + [f"  {key}: {value:.120}" for key, value in sorted(values["metadata"].items())]
