from __future__ import annotations

import os

import pytest

from lib_trainer.host.forge import ForgeHost
from tests.fakes.forge_room import ForgeRoom


@pytest.fixture(scope="session")
def forge() -> ForgeRoom:
    """The Forge whose process this is, with the checkpoint under test selected."""
    room = ForgeRoom(ForgeHost(), os.environ["TRAIN_LORA_INSIDE_FORGE"], "MainThread")
    room.host.lora_dir.mkdir(parents=True, exist_ok=True)
    room.select()
    return room
