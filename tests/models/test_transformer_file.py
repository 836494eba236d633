"""Files of diffusion transformers, by their headers: the published layouts in files without contents."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from lib_trainer.errors import UserError
from lib_trainer.models.families import ANIMA, CHROMA, FLUX, KLEIN4B, KLEIN9B, LUMINA2, ZIMAGE, Family
from lib_trainer.models.transformer_file import FOUR_BIT_BYTES, read_transformer_file
from tests.models.transformers import LAYOUTS, Layout

SIZES = {"BF16": 2, "F8_E4M3": 1, "U8": 1, "F32": 4}
# What tells families of one layout apart, as the published files have it.
MARKS: dict[Family, Layout] = {
    CHROMA: {"distilled_guidance_layer.in_proj": (5120, 64)},
    KLEIN4B: {"img_in": (3072, 128), "double_stream_modulation_img.lin": (18432, 3072)},
    KLEIN9B: {"img_in": (4096, 128), "double_stream_modulation_img.lin": (24576, 4096)},
    LUMINA2: {"layers.0.adaLN_modulation.1": (9216, 1024)},
    ANIMA: {"llm_adapter.blocks.0.cross_attn.q_proj": (1024, 1024)},
}


def layout_of(family: Family) -> Layout:
    layout = LAYOUTS[family]() | MARKS.get(family, {})
    modulation = ".adaLN_modulation.0"
    return {name: shape for name, shape in layout.items() if family is not LUMINA2 or modulation not in name}


def write(path: Path, layout: Layout, dtype: str = "BF16", prefix: str = "") -> Path:
    """A safetensors file of zeros, which takes no room on the disk."""
    header, begin = {}, 0
    for name, shape in layout.items():
        end = begin + math.prod(shape) * SIZES[dtype]
        header[f"{prefix}{name}.weight"] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
        begin = end
    content = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(content).to_bytes(8, "little") + content)
        file.truncate(8 + len(content) + begin)
    return path


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", "net.", ""])
@pytest.mark.parametrize("family", LAYOUTS, ids=lambda family: family.key)
def test_a_published_file_says_its_family_and_measures(family: Family, prefix: str, tmp_path: Path) -> None:
    found = read_transformer_file(write(tmp_path / "a.safetensors", layout_of(family), prefix=prefix))
    assert (found.family, found.shape, found.weight_bytes) == (family, family.shape, 2.0)


@pytest.mark.parametrize(("dtype", "stored"), [("F8_E4M3", 1.0), ("F32", 4.0)])
def test_the_number_format_is_that_of_most_weights(dtype: str, stored: float, tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", LAYOUTS[ZIMAGE](), dtype)
    assert read_transformer_file(path).weight_bytes == stored


def test_packed_weights_are_those_of_the_published_model(tmp_path: Path) -> None:
    packed = {name: (math.prod(shape) // 2, 1) for name, shape in LAYOUTS[FLUX]().items()}
    found = read_transformer_file(write(tmp_path / "a.safetensors", packed, "U8"))
    assert (found.family, found.shape, found.weight_bytes) == (FLUX, FLUX.shape, FOUR_BIT_BYTES)


def test_a_small_klein_is_a_klein(tmp_path: Path) -> None:
    small = write(tmp_path / "a.safetensors", layout_of(KLEIN4B) | {"img_in": (256, 128)})
    assert read_transformer_file(small).family == KLEIN4B


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    unknown = write(tmp_path / "flux2.safetensors", layout_of(KLEIN4B) | {"img_in": (6144, 128)})
    (tmp_path / "notes.safetensors").write_bytes(b"no checkpoint")
    for path in (unknown, tmp_path / "notes.safetensors"):
        with pytest.raises(UserError, match=path.name):
            read_transformer_file(path)
