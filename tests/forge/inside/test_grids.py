"""The contract of grids, on the real Forge."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing

import pytest

from lib_trainer.host.webui.txt2img import make_job
from lib_trainer.lora.tags import LoraRef
from lib_trainer.preview.drawing import draw_cells
from lib_trainer.preview.grid_spec import strength_grid
from tests.fakes.forge_room import ForgeRoom
from tests.host.contract_webui_grids import WebUIGrids
from tests.host.grid_checks import STRENGTHS, put
from tests.host.webui_grid_room import WebUIGridRoom

# What checking, comparing and noting may add.
LIMIT = 1.05


@pytest.fixture(scope="session")
def room(forge: ForgeRoom) -> WebUIGridRoom:
    forge.clean_picture()
    return WebUIGridRoom(forge)


class TestGrids(WebUIGrids):
    pass


def test_a_row_costs_what_its_pictures_cost(room: WebUIGridRoom) -> None:
    """Five cells against five plain pictures of the same prompts, in turns, by the generation thread's own time."""
    put(room, "cost")
    plan = strength_grid(room.request(steps=4), ["p"], [7], LoraRef("cost"), STRENGTHS)
    requests = [cell.request for cell in plan.cells]

    def spent(work: Callable[[], object]) -> float:
        def timed() -> float:
            begun = time.thread_time()
            work()
            return time.thread_time() - begun

        return room.run(timed)

    def plain() -> None:
        for request in requests:
            with closing(make_job(request)) as job:
                processing.process_images(job)

    def ours() -> None:
        list(draw_cells(room.host, plan))

    from modules import processing

    for warm_up in (plain, ours):
        room.run(warm_up)
    rounds = [(spent(ours), spent(plain)) for _ in range(3)]
    ours_s, plain_s = (min(costs) for costs in zip(*rounds, strict=True))
    assert ours_s <= LIMIT * plain_s, f"{ours_s:.2f} s for a row, {plain_s:.2f} s for its pictures"
