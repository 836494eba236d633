"""The first checkpoint, which a WebUI loads on a thread of its own as it starts."""

from __future__ import annotations

import threading

from tests.fakes.room import WebuiRoom
from tests.waiting import PATIENCE_S


class FirstLoad:
    def test_a_run_that_begins_meanwhile_waits_for_it(self, room: WebuiRoom) -> None:
        """Whoever asks for the model waits for a lock that the loading thread holds; it must not wait for ours."""
        from modules import sd_models

        room.select()
        sd_models.model_data.__init__()
        done: list[bool] = []

        def work() -> bool:
            loader = threading.Thread(target=sd_models.model_data.get_sd_model, daemon=True)
            loader.start()
            while loader.is_alive() and not sd_models.model_data.lock.locked():
                loader.join(0.01)
            with room.host.open_model():
                # A thread that has let go of its lock may take a moment to end.
                return loader.is_alive() and sd_models.model_data.lock.locked()

        run = threading.Thread(target=lambda: done.append(room.run(work)), daemon=True)
        run.start()
        run.join(PATIENCE_S)
        assert done == [False]
