"""Which host is found in which WebUI."""

from __future__ import annotations

from pathlib import Path

import pytest

from lib_trainer.errors import UserError
from lib_trainer.host.detect import current_host
from tests.fakes.a1111_room import fake_a1111
from tests.fakes.forge_room import fake_forge
from tests.fakes.neo_room import fake_neo


def test_forge(tmp_path: Path) -> None:
    with fake_forge(tmp_path / "forge", "sd1.safetensors"):
        assert current_host().name == "Forge"


def test_forge_neo(tmp_path: Path) -> None:
    with fake_neo(tmp_path / "neo", "sd1.safetensors"):
        assert current_host().name == "Forge Neo"


def test_a1111(tmp_path: Path) -> None:
    with fake_a1111(tmp_path / "a1111", "sd1.safetensors"):
        assert current_host().name == "A1111"


def test_no_webui() -> None:
    with pytest.raises(UserError, match="not a WebUI") as caught:
        current_host()
    assert "stable-diffusion-webui" in caught.value.hint


def test_reforge_and_forge_classic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They hold their models as ComfyUI does, and bring A1111's packages along."""
    add_packages(tmp_path, monkeypatch, "modules", "modules_forge", "ldm", "sgm", "ldm_patched")
    assert current_host().name == "reForge"


@pytest.mark.parametrize("packages", [("modules",), ("modules", "modules_forge", "ldm", "sgm")])
def test_a_webui_that_is_neither_is_not_taken_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packages: tuple[str, ...]
) -> None:
    add_packages(tmp_path, monkeypatch, *packages)
    with pytest.raises(UserError, match="this WebUI"):
        current_host()


def add_packages(folder: Path, monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    for package in packages:
        (folder / package).mkdir()
        (folder / package / "__init__.py").touch()
    monkeypatch.syspath_prepend(folder)
