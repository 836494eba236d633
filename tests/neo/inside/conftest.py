from __future__ import annotations

import os

import pytest

from lib_trainer.host.neo.host import NeoHost
from tests.fakes.neo_room import NeoRoom
from tests.fakes.room import WebuiRoom


@pytest.fixture(scope="session")
def forge() -> NeoRoom:
    """The Neo whose process this is, with the checkpoint under test selected."""
    from modules import shared

    room = NeoRoom(NeoHost(), os.environ["TRAIN_LORA_INSIDE_NEO"], "MainThread")
    room.host.lora_dir.mkdir(parents=True, exist_ok=True)
    # Previews while drawing want a model that Neo would download.
    shared.opts.data["live_previews_enable"] = False
    room.select()
    return room


@pytest.fixture(scope="session")
def room(forge: NeoRoom) -> WebuiRoom:
    """The WebUI that the contracts run in."""
    return forge
