"""The layers of published diffusion transformers, name -> (out, in), as their own code names them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from lib_trainer.models.families import ANIMA, CHROMA, FLUX, KLEIN4B, KLEIN9B, LUMINA2, ZIMAGE, Family

Layout = dict[str, tuple[int, ...]]


def tree(layout: Layout) -> nn.Module:
    """A model of linear layers without contents, under these names."""
    root = nn.Module()
    for name, (rows, columns) in layout.items():
        *path, last = name.split(".")
        parent = root
        for part in path:
            if not hasattr(parent, part):
                parent.add_module(part, nn.Module())
            parent = getattr(parent, part)
        parent.add_module(last, nn.Linear(columns, rows, bias=False, device=torch.device("meta")))
    return root


def _flux(width: int, double: int, single: int, mlp: int, gates: int, *, modulated: bool) -> Layout:
    layout: Layout = {"img_in": (width, 64), "txt_in": (width, 4096), "final_layer.linear": (64, width)}
    for block in range(double):
        for stream in ("img", "txt"):
            name = f"double_blocks.{block}.{stream}"
            layout |= {f"{name}_attn.qkv": (3 * width, width), f"{name}_attn.proj": (width, width)}
            layout |= {f"{name}_mlp.0": (gates * mlp, width), f"{name}_mlp.2": (width, mlp)}
            layout |= {f"{name}_mod.lin": (6 * width, width)} if modulated else {}
    for block in range(single):
        name = f"single_blocks.{block}"
        layout |= {f"{name}.linear1": (3 * width + gates * mlp, width), f"{name}.linear2": (width, width + mlp)}
        layout |= {f"{name}.modulation.lin": (3 * width, width)} if modulated else {}
    return layout


def _lumina(width: int, count: int, kv_width: int, mlp: int, context: int) -> Layout:
    layout: Layout = {"x_embedder": (width, 64), "cap_embedder.1": (width, context), "final_layer.linear": (64, width)}
    for part, blocks in (("noise_refiner", 2), ("context_refiner", 2), ("layers", count)):
        for block in range(blocks):
            name = f"{part}.{block}"
            layout |= {f"{name}.attention.qkv": (width + 2 * kv_width, width), f"{name}.attention.out": (width, width)}
            layout |= {f"{name}.feed_forward.{each}": (mlp, width) for each in ("w1", "w3")}
            layout |= {f"{name}.feed_forward.w2": (width, mlp), f"{name}.adaLN_modulation.0": (4 * width, 256)}
    return layout


def _anima() -> Layout:
    layout: Layout = {"x_embedder.proj.1": (2048, 68), "t_embedder.1.linear_1": (2048, 2048)}
    for block in range(28):
        for attention, context in (("self_attn", 2048), ("cross_attn", 1024)):
            name = f"blocks.{block}.{attention}"
            layout |= {f"{name}.q_proj": (2048, 2048), f"{name}.output_proj": (2048, 2048)}
            layout |= {f"{name}.k_proj": (2048, context), f"{name}.v_proj": (2048, context)}
        name = f"blocks.{block}"
        layout |= {f"{name}.mlp.layer1": (8192, 2048), f"{name}.mlp.layer2": (2048, 8192)}
        layout |= {f"{name}.adaln_modulation_mlp.1": (256, 2048), f"{name}.adaln_modulation_mlp.2": (6144, 256)}
    return layout | {"llm_adapter.blocks.0.self_attn.q_proj": (1024, 1024)}


LAYOUTS: dict[Family, Callable[[], Layout]] = {
    FLUX: lambda: _flux(3072, 19, 38, 12288, 1, modulated=True),
    CHROMA: lambda: _flux(3072, 19, 38, 12288, 1, modulated=False),
    KLEIN4B: lambda: _flux(3072, 5, 20, 9216, 2, modulated=False),
    KLEIN9B: lambda: _flux(4096, 8, 24, 12288, 2, modulated=False),
    ZIMAGE: lambda: _lumina(3840, 30, 3840, 10240, 2560),
    LUMINA2: lambda: _lumina(2304, 26, 768, 9216, 2304),
    ANIMA: _anima,
}
