"""Which pictures of two folders belong together, and what is said where they do not."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from lib_trainer.config.recipe import DatasetConfig
from lib_trainer.dataset.pairs import scan_pairs
from lib_trainer.dataset.scan import Scan, scan_folder
from lib_trainer.errors import ConfigError


def fill(folder: Path, names: str, size: tuple[int, int] = (64, 64)) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names.split():
        Image.new("RGB", size, "red").save(folder / name)
    return folder


def paired(tmp_path: Path, first: str, second: str) -> tuple[Scan, Scan]:
    config = DatasetConfig(train_data_dir=str(fill(tmp_path / "first" / "5_face", first).parent))
    scan = scan_folder(config)
    return scan, scan_pairs(scan, config, str(fill(tmp_path / "second", second)))


def test_pictures_belong_together_by_name_or_else_by_order(tmp_path: Path) -> None:
    scan, others = paired(tmp_path / "name", "a.png B.png", "b.jpg a.webp z.png")
    assert [(one.image.name, other.image.name) for one, other in zip(scan.samples, others.samples, strict=True)] == [
        ("B.png", "b.jpg"),
        ("a.png", "a.webp"),
    ]
    assert all(other.repeats == 5 for other in others.samples), "drawn as often as the first"
    _, others = paired(tmp_path / "order", "a.png b.png", "1.png 2.png")
    assert [sample.image.name for sample in others.samples] == ["1.png", "2.png"]


def test_all_that_is_wrong_with_pairs_is_said_at_once(tmp_path: Path) -> None:
    fill(tmp_path / "second", "b.png", (32, 64))
    with pytest.raises(ConfigError) as caught:
        paired(tmp_path, "a.png b.png c.png", "c.png")
    (text,) = caught.value.problems.values()
    assert list(caught.value.problems) == ["diff_target_dir"]
    assert "no picture there belongs to a.png" in text and "b.png (64×64 and 32×64)" in text and "c.png" not in text
    config = DatasetConfig(train_data_dir=str(tmp_path / "first"))
    with pytest.raises(ConfigError, match="same file"):
        scan_pairs(scan_folder(config), config, config.train_data_dir)
    with pytest.raises(ConfigError, match="does not exist"):
        scan_pairs(scan_folder(config), config, str(tmp_path / "none"))
