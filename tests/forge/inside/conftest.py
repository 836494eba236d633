from __future__ import annotations

import os

import pytest

from lib_trainer.host.forge.host import ForgeHost
from tests.fakes.forge_room import ForgeRoom
from tests.fakes.room import WebuiRoom


@pytest.fixture(scope="session")
def forge() -> ForgeRoom:
    """The Forge whose process this is, with the checkpoint under test selected."""
    from modules import shared

    room = ForgeRoom(ForgeHost(), os.environ["TRAIN_LORA_INSIDE_FORGE"], "MainThread")
    room.host.lora_dir.mkdir(parents=True, exist_ok=True)
    # Previews while drawing want a model that Forge would download.
    shared.opts.data["live_previews_enable"] = False
    room.select()
    return room


@pytest.fixture(scope="session")
def room(forge: ForgeRoom) -> WebuiRoom:
    """The WebUI that the contracts run in."""
    return forge
