from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save

from lib_trainer.utils.safetensors_header import HeaderError, header_of, read_header, with_metadata

CONTENT = save({"a": torch.ones(2, 3), "b": torch.zeros(5, dtype=torch.float16)}, {"title": "x", "other": "ü"})


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def raw(header: object, tensors: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + tensors


def test_metadata_and_shapes_are_those_of_the_library(tmp_path: Path) -> None:
    header = read_header(written(tmp_path / "a", CONTENT))
    assert header.metadata == {"title": "x", "other": "ü"}
    assert header.shapes == {"a": (2, 3), "b": (5,)}
    assert header == header_of(CONTENT)
    assert len(CONTENT) - header.size_bytes == 2 * 3 * 4 + 5 * 2


def test_new_metadata_leaves_the_tensors_as_they_are(tmp_path: Path) -> None:
    changed = with_metadata(CONTENT, {"z": "1", "a": "2"})
    assert changed == with_metadata(CONTENT, {"a": "2", "z": "1"})
    assert header_of(changed).size_bytes % 8 == 0
    with safe_open(written(tmp_path / "a", changed), framework="pt") as file:
        assert file.metadata() == {"a": "2", "z": "1"}
        assert torch.equal(file.get_tensor("a"), torch.ones(2, 3))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04",
        b"\xff" * 64,
        b"{not json}" * 8,
        raw([1, 2]),
        raw({"a": 3}),
        raw({"a": {"dtype": "F32", "shape": ["x"], "data_offsets": [0, 4]}}, b"1234"),
        raw({"a": {"dtype": "F32", "shape": [1]}}, b"1234"),
        (4).to_bytes(8, "little") + b"\xff\xfe\xfd\xfc",
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(HeaderError, match=r"header|end is missing"):
        read_header(written(tmp_path / "a", content))


@pytest.mark.parametrize("cut", [1, 20, len(CONTENT) - 12])
def test_a_broken_off_download_is_noticed(tmp_path: Path, cut: int) -> None:
    with pytest.raises(HeaderError, match="its end is missing"):
        read_header(written(tmp_path / "a", CONTENT[:-cut]))
