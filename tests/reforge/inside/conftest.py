from __future__ import annotations

import os

import pytest

from lib_trainer.host.reforge.host import ReforgeHost
from tests.fakes.reforge_room import ReforgeRoom


@pytest.fixture(scope="session")
def reforge() -> ReforgeRoom:
    """The reForge whose process this is, with the checkpoint under test selected."""
    from modules import shared

    room = ReforgeRoom(ReforgeHost(), os.environ["TRAIN_LORA_INSIDE_REFORGE"], "MainThread")
    room.host.lora_dir.mkdir(parents=True, exist_ok=True)
    # Previews while drawing want a model that reForge would download.
    shared.opts.data["live_previews_enable"] = False
    room.select()
    return room


@pytest.fixture(scope="session")
def room(reforge: ReforgeRoom) -> ReforgeRoom:
    """The WebUI that the contracts run in."""
    return reforge
