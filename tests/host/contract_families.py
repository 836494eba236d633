"""What a host says of each family's checkpoints."""

from __future__ import annotations

from lib_trainer.models.base import HostModel
from lib_trainer.models.families import SD1, SD2, SDXL
from tests.fakes.room import WebuiRoom


def opened(room: WebuiRoom) -> HostModel:
    """The opened model, closed again: what it says of itself stays."""

    def work() -> HostModel:
        with room.host.open_model() as model:
            return model

    return room.run(work)


class Families:
    def test_each_is_known_with_what_it_predicts(self, room: WebuiRoom) -> None:
        found = {}
        for checkpoint in ("sd1.safetensors", "sd2-v.safetensors", "sdxl.safetensors"):
            room.select(checkpoint)
            model = opened(room)
            found[checkpoint] = model.family, model.prediction, model.checkpoint.name
            assert len(model.checkpoint.sha256) == 64
        assert found == {
            "sd1.safetensors": (SD1, "epsilon", "sd1.safetensors"),
            "sd2-v.safetensors": (SD2, "v", "sd2-v.safetensors"),
            "sdxl.safetensors": (SDXL, "epsilon", "sdxl.safetensors"),
        }
        room.select()
