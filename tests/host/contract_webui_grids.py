"""The contract of grids that every WebUI is held to."""

from __future__ import annotations

from typing import Any

import pytest

from lib_trainer.errors import UserError
from lib_trainer.lora.tags import LoraRef
from lib_trainer.preview.drawing import draw_cells
from lib_trainer.preview.grid_job import save_grid
from lib_trainer.preview.grid_spec import strength_grid
from tests.host.contract_grids import Grids
from tests.host.grid_checks import drawn, parse_infotext, put


class WebUIGrids(Grids):
    """What only a WebUI has: its own buttons, progress bar, settings and names."""

    def test_every_picture_is_of_the_checkpoint_of_the_first(self, room: Any) -> None:
        put(room, "jeff")
        plan = strength_grid(room.request(), ["p"], [7], LoraRef("jeff"), [0, 1])
        wanted = [item.picture.tobytes() for item in drawn(room, plan)]
        model = room.model

        def work() -> list[bytes]:
            pictures = []
            for item in draw_cells(room.host, plan):
                pictures.append(item.picture.tobytes())
                room.select_eight_bits()
                assert room.model == model, "the checkpoint is not loaded anew between cells"
            return pictures

        try:
            assert room.run(work) == wanted
        finally:
            room.select()

    @pytest.mark.parametrize("how", ["interrupt", "skip", "stop_generating"])
    def test_interrupt_keeps_whole_pictures_alone(self, room: Any, how: str, monkeypatch: Any) -> None:
        from modules import processing, shared

        put(room, "jeff")
        plan = strength_grid(room.request(), ["p"], [7], LoraRef("jeff"), [0, 0.5, 1])
        whole = [item.picture.tobytes() for item in drawn(room, plan)]
        real, calls = processing.process_images, []

        def pressed(job: Any) -> Any:
            calls.append(job)
            done = real(job)
            if len(calls) == 2:
                # As if the button had been pressed during the last step.
                setattr(
                    shared.state, {"interrupt": "interrupted", "skip": "skipped"}.get(how, "stopping_generation"), True
                )
            return done

        monkeypatch.setattr(processing, "process_images", pressed)
        kept = [item.picture.tobytes() for item in drawn(room, plan)]
        assert kept == {"interrupt": whole[:1], "skip": [whole[0], whole[2]], "stop_generating": whole[:2]}[how]

    def test_the_progress_bar_counts_the_pictures(self, room: Any) -> None:
        from modules import shared

        put(room, "jeff")
        plan = strength_grid(room.request(), ["p"], [7], LoraRef("jeff"), [0, 1])

        def work() -> list[tuple[int, int]]:
            return [(shared.state.job_no, shared.state.job_count) for _ in draw_cells(room.host, plan)]

        assert room.run(work) == [(1, 2), (2, 2)]

    @pytest.mark.parametrize("name", ["a#b", "a=b"])
    def test_a_name_that_a_prompt_cannot_hold_is_refused(self, room: Any, name: str) -> None:
        put(room, name)
        assert "its name" in room.host.loras()[0].problem
        with pytest.raises(UserError, match="its name"):
            drawn(room, strength_grid(room.request(), ["p"], [7], LoraRef(name), [1]))
        with pytest.raises(UserError, match="its name"):
            room.run(lambda: room.host.generate(room.request(f"p <lora:{name}:1>")))

    def test_a_name_that_cannot_be_written_is_called_by_its_alias(self, room: Any) -> None:
        put(room, "a#b", ss_output_name="ab")
        assert [(lora.name, lora.problem) for lora in room.host.loras()] == [("ab", "")]
        assert drawn(room, strength_grid(room.request(), ["p"], [7], LoraRef("ab"), [1]))

    def test_a_person_may_keep_no_grids(self, room: Any) -> None:
        from modules import shared

        put(room, "jeff")
        plan = strength_grid(room.request(), ["p"], [7], LoraRef("jeff"), [1])
        cells = drawn(room, plan)
        shared.opts.data["grid_save"] = False
        try:
            assert room.run(lambda: save_grid(room.host, plan, cells)) is None
        finally:
            shared.opts.data["grid_save"] = True

    def test_infotexts_are_known_even_if_files_get_none(self, room: Any) -> None:
        from modules import shared

        put(room, "jeff")
        shared.opts.data["enable_pnginfo"] = False
        try:
            cells = drawn(room, strength_grid(room.request(), ["p"], [7], LoraRef("jeff"), [1]))
        finally:
            shared.opts.data["enable_pnginfo"] = True
        assert parse_infotext(cells[0].infotext)["Prompt"] == "p <lora:jeff:1>"

    def test_a_button_is_handed_to_the_webuis_own_sending(self, room: Any) -> None:
        from modules import infotext_utils

        button, field = object(), object()
        assert room.host.bind_sending(button, field)
        binding = infotext_utils.registered_param_bindings.pop()
        assert (binding.paste_button, binding.source_text_component, binding.tabname) == (button, field, "txt2img")
