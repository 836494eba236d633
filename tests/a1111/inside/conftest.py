from __future__ import annotations

import os

import pytest

from lib_trainer.host.a1111.host import A1111Host
from tests.fakes.a1111_room import A1111Room


@pytest.fixture(scope="session")
def a1111() -> A1111Room:
    """The A1111 whose process this is, with the checkpoint under test selected."""
    from modules import shared

    room = A1111Room(A1111Host(), os.environ["TRAIN_LORA_INSIDE_A1111"], "MainThread")
    room.host.lora_dir.mkdir(parents=True, exist_ok=True)
    # Previews while drawing want a model that A1111 would download.
    shared.opts.data["live_previews_enable"] = False
    room.select()
    return room


@pytest.fixture(scope="session")
def room(a1111: A1111Room) -> A1111Room:
    """The WebUI that the contracts run in."""
    return a1111
