"""What is read from a WebUI's own lists of LoRAs and kept conditioning, with stand-ins for its modules."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from lib_trainer.errors import UserError
from lib_trainer.host.webui import loras
from lib_trainer.host.webui.prompts import forget_prompts


@pytest.fixture
def networks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """A WebUI without LoRAs whose folder is `tmp_path/Lora`."""
    made, modules = ModuleType("networks"), ModuleType("modules")
    made.listed = 0
    made.available_networks, made.available_network_aliases, made.forbidden_network_aliases = {}, {}, {}
    made.list_available_networks = lambda: setattr(made, "listed", made.listed + 1)
    (tmp_path / "Lora").mkdir()
    modules.shared = SimpleNamespace(cmd_opts=SimpleNamespace(lora_dir=str(tmp_path / "Lora")))
    monkeypatch.setitem(sys.modules, "networks", made)
    monkeypatch.setitem(sys.modules, "modules", modules)
    return made


def test_the_folder_is_listed_anew_where_that_is_asked_for(networks: ModuleType) -> None:
    assert loras.list_loras() == [] and networks.listed == 0
    assert loras.list_loras(refresh=True) == [] and networks.listed == 1


def test_a_file_that_was_added_since_is_found_by_its_name(networks: ModuleType) -> None:
    entry = SimpleNamespace(name="new")
    networks.list_available_networks = lambda: networks.available_network_aliases.update(new=entry)
    loras.require_networks("a <lora:new:0.8>")
    with pytest.raises(UserError, match="no LoRA named gone"):
        loras.require_networks("a <lora:new:0.8> <lora:gone:1>")


def test_the_list_is_refreshed_after_a_file_was_written(networks: ModuleType) -> None:
    loras.refresh()
    assert networks.listed == 1


def test_files_on_another_disk_are_found_through_a_link(networks: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk/jeff.safetensors").touch()
    (tmp_path / "Lora/more").symlink_to(tmp_path / "disk")
    assert [path.name for path in loras._files()] == ["jeff.safetensors"]


def test_an_alias_that_several_files_share_means_the_file_of_that_name(networks: ModuleType) -> None:
    own, other = object(), object()
    networks.available_networks["Jeff"] = own
    networks.available_network_aliases["Jeff"] = other
    assert loras._entry("Jeff") is other
    networks.forbidden_network_aliases["jeff"] = 1
    assert loras._entry("Jeff") is own and loras._entry("JEFF") is None


def test_every_kept_conditioning_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("cached_c", "cached_uc", "cached_hr_c", "cached_hr_uc")
    kinds = [
        type(f"StableDiffusionProcessing{kind}", (), {name: ["prompt", "conditioning"] for name in names[:count]})
        for kind, count in (("", 2), ("Txt2Img", 4), ("Img2Img", 2))
    ]
    modules = ModuleType("modules")
    modules.processing = SimpleNamespace(**{kind.__name__: kind for kind in kinds})
    monkeypatch.setitem(sys.modules, "modules", modules)
    forget_prompts()
    kept = [getattr(kind, name) for kind in kinds for name in names if hasattr(kind, name)]
    assert len(kept) == 8 and all(value == [None, None] for value in kept)
