"""Work under the generation lock: on the generation thread, seen and stopped from the WebUI's own page."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lib_trainer.errors import UserError
from lib_trainer.utils.patch import attributes
from tests.fakes.room import WebuiRoom
from tests.waiting import PATIENCE_S


def end_another_call() -> None:
    """As when any other call of the page ends, the refresh of a list for one."""
    from modules.call_queue import wrap_gradio_call

    wrap_gradio_call(lambda: [""])()


class GenerationLock:
    def test_what_is_run_returns(self, room: WebuiRoom) -> None:
        assert room.run(lambda: 42) == 42

    def test_what_is_raised_comes_back_and_the_next_turn_works(self, room: WebuiRoom) -> None:
        error = UserError("No.", "Yes.")

        def fail() -> None:
            raise error

        with pytest.raises(UserError) as caught:
            room.run(fail)
        assert caught.value is error
        assert room.run(lambda: "next") == "next"

    def test_even_an_exit_does_not_end_the_generation_thread(self, room: WebuiRoom) -> None:
        with pytest.raises(SystemExit):
            room.run(lambda: exec("raise SystemExit"))
        assert room.run(lambda: 1) == 1

    def test_what_a_failed_turn_held_is_free_at_once(self, room: WebuiRoom) -> None:
        class Tensors:
            pass

        seen = []

        def fail() -> None:
            held = Tensors()
            seen.append(weakref.ref(held))
            raise UserError("No.")

        gc.disable()
        try:
            with suppress(UserError):
                room.run(fail)
            assert seen[0]() is None
        finally:
            gc.enable()

    def test_a_turn_is_on_the_generation_thread_under_the_lock(self, room: WebuiRoom) -> None:
        from modules import shared
        from modules.call_queue import queue_lock

        seen = room.run(lambda: (threading.current_thread().name, queue_lock.acquire(False), shared.state.job))
        assert seen == (room.generation_thread, False, "Train LoRA")
        assert queue_lock.acquire(False)
        queue_lock.release()
        assert shared.state.job == ""

    def test_interrupt_is_seen_during_our_turn_and_forgotten_in_the_next(self, room: WebuiRoom) -> None:
        from modules import shared

        def work() -> list[bool]:
            seen = [room.host.interrupted()]
            shared.state.interrupt()
            seen.append(room.host.interrupted())
            shared.state.interrupted = False
            shared.state.stop_generating()
            return [*seen, room.host.interrupted()]

        assert room.run(work) == [False, True, True]
        assert room.run(room.host.interrupted) is False

    @pytest.mark.parametrize("button", ["interrupt", "stop_generating"])
    def test_a_press_outlives_what_other_calls_clear(self, room: WebuiRoom, button: str) -> None:
        from modules import shared

        def work() -> bool:
            getattr(shared.state, button)()
            end_another_call()
            assert not (shared.state.interrupted or shared.state.stopping_generation)
            return room.host.interrupted()

        assert room.run(work) is True
        assert room.run(room.host.interrupted) is False

    @pytest.mark.parametrize("button", ["interrupt", "skip"])
    def test_a_picture_that_was_cut_short_is_none_whatever_is_cleared_meanwhile(
        self, room: WebuiRoom, button: str
    ) -> None:
        from modules import processing, shared

        draw = processing.process_images

        def press_while_drawing(job: Any) -> Any:
            drawn = draw(job)
            getattr(shared.state, button)()
            end_another_call()
            return drawn

        def work() -> tuple[int, int]:
            with attributes([processing], process_images=press_while_drawing):
                cut_short = len(room.host.generate(room.request()))
            return cut_short, len(room.host.generate(room.request()))

        # Skip is for one picture alone.
        assert room.run(work) == (0, 1 if button == "skip" else 0)

    def test_an_event_loop_is_refused_a_move_of_the_models_rather_than_held_up(self, room: WebuiRoom) -> None:
        from modules import sd_models

        async def unload() -> None:
            sd_models.unload_model_weights()

        said: list[str] = []

        def route() -> None:
            with pytest.raises(UserError) as refused:
                asyncio.run(unload())
            said.append(str(refused.value))

        def work() -> None:
            other = threading.Thread(target=route)
            other.start()
            other.join(PATIENCE_S)

        room.run(work)
        assert said and "Train LoRA is using the model" in said[0]

    def test_the_buttons_are_the_hosts_own_again_afterwards(self, room: WebuiRoom) -> None:
        from modules import shared

        buttons = {"interrupt", "stop_generating", "skip", "set_current_image"}
        assert room.run(lambda: buttons & set(vars(shared.state))) == buttons
        assert not buttons & set(vars(shared.state))

    def test_no_preview_is_made_of_what_we_draw(self, room: WebuiRoom) -> None:
        from modules import shared

        # On the thread of whoever asks how far we are.
        assert room.run(lambda: shared.state.set_current_image()) is None

    def test_progress_comes_back_after_what_other_calls_clear(self, room: WebuiRoom) -> None:
        from modules import shared

        def work() -> tuple[object, ...]:
            room.host.show_progress(1, 4, "")
            end_another_call()
            room.host.show_progress(2, 4, "")
            return shared.state.job, shared.state.job_count, shared.state.sampling_step

        assert room.run(work) == ("Train LoRA", 1, 2)

    def test_progress_moves_the_bar(self, room: WebuiRoom) -> None:
        from modules import shared

        def work() -> tuple[object, ...]:
            room.host.show_progress(30, 120, "Training 30/120")
            state = shared.state
            # The share that the WebUI shows.
            share = state.job_no / state.job_count + state.sampling_step / state.sampling_steps / state.job_count
            return share, state.textinfo

        assert room.run(work) == (0.25, "Training 30/120")

    def test_progress_survives_a_picture_drawn_in_between(self, room: WebuiRoom) -> None:
        from modules import shared

        def work() -> tuple[int, int, int, int]:
            room.host.show_progress(1, 9, "")
            room.host.generate(room.request())
            room.host.show_progress(2, 9, "")
            state = shared.state
            return state.job_no, state.job_count, state.sampling_step, state.sampling_steps

        assert room.run(work) == (0, 1, 2, 9)

    def test_our_pictures_do_not_become_the_last_prompt(self, room: WebuiRoom) -> None:
        from modules import shared
        from modules.paths_internal import data_path

        last = Path(data_path, "params.txt")
        last.write_text("what a person asked for")
        room.picture()
        assert last.read_text() == "what a person asked for"
        assert shared.cmd_opts.no_prompt_history is False

    def test_places(self, room: WebuiRoom) -> None:
        from modules import shared
        from modules.paths_internal import data_path

        assert str(room.host.lora_dir) == shared.cmd_opts.lora_dir
        assert str(room.host.cache_dir).startswith(data_path)
        assert str(room.host.settings_file.parent) == data_path
        assert room.host.settings_file.suffix == ".json"

    def test_the_line_in_the_head_names_checkpoint_family_and_precision(self, room: WebuiRoom) -> None:
        room.select()
        assert room.host.describe().startswith(room.checkpoint)
        room.picture()
        line = room.host.describe()
        storage = str(room.precision.stored).removeprefix("torch.")
        assert line.startswith(f"{room.checkpoint} · SD") and storage in line
