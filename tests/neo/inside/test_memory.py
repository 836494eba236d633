"""A real step on Forge Neo's own UNet takes what was predicted for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lib_trainer.host.forge.inspect import profile_of_file
from tests.fakes.neo_room import NeoRoom
from tests.host.contract_memory import Memory
from tests.host.contract_runs import pictures  # noqa: F401 - a fixture
from tests.host.helpers import without_room


class TestMemory(Memory):
    pass


def test_a_checkpoint_that_is_only_selected_is_known_by_its_file(forge: NeoRoom) -> None:
    loaded = forge.run(lambda: _loaded_profile(forge))
    found = profile_of_file(Path(forge.engine.sd_checkpoint_info.filename), None)
    assert without_room(found) == without_room(loaded)


def _loaded_profile(forge: NeoRoom) -> Any:
    with forge.host.open_model() as model:
        return model.memory_profile()
