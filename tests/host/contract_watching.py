"""A run inside the host while people go on using it: Generate, Interrupt, test pictures, another program's calls."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from lib_trainer.app import default_run
from lib_trainer.config.recipe import Recipe
from lib_trainer.jobs.queue import Jobs
from lib_trainer.jobs.status import Status
from tests.fakes.room import WebuiRoom
from tests.host.contract_lock import end_another_call
from tests.host.contract_runs import recipe, same_file, undisturbed
from tests.host.helpers import differing, parts_of, state_of
from tests.waiting import PATIENCE_S
from tests.waiting import until as wait_until

# Of a run that something happens to: it must not have ended when a busy machine sees its first step.
STEPS = 10


def until(jobs: Jobs, condition: Callable[[Status], bool]) -> Status:
    """Waits; a run that fails meanwhile says why at once."""

    def happened() -> bool:
        status = jobs.status()
        if condition(status):
            return True
        assert status.state != "failed", status.error
        return False

    wait_until(happened)
    return jobs.status()


def long_recipe(pictures: Path, name: str, **changes: object) -> Recipe:
    return recipe(pictures, name, max_train_steps=1000, **changes)


@pytest.fixture
def jobs(room: WebuiRoom):
    jobs = Jobs(room.host, default_run)
    yield jobs
    jobs.stop(save=False)
    jobs.wait(PATIENCE_S)


class Watching:
    def test_generate_waits_for_its_turn_and_draws_what_it_would_have(
        self, room: WebuiRoom, pictures: Path, jobs: Jobs
    ) -> None:
        clean, drawn = room.clean_picture(), []
        jobs.start(long_recipe(pictures, "busy"))
        until(jobs, lambda status: status.step >= 1)
        other = threading.Thread(target=lambda: drawn.append(room.picture()))
        other.start()
        before = jobs.status().step
        until(jobs, lambda status: status.step >= before + 2)
        assert not drawn
        jobs.stop(save=False)
        other.join(PATIENCE_S)
        assert drawn == [clean]

    def test_interrupt_saves_and_gives_everything_back(self, room: WebuiRoom, pictures: Path, jobs: Jobs) -> None:
        from modules import shared

        clean, state = room.clean_picture(), state_of(parts_of(room))
        jobs.start(long_recipe(pictures, "interrupted"))
        until(jobs, lambda status: status.step >= 2)
        assert shared.state.job == "Train LoRA" and shared.state.sampling_steps == 1000
        shared.state.interrupt()
        status = jobs.wait(PATIENCE_S)
        assert (status.state, status.tag) == ("stopped", "<lora:interrupted:0.8>")
        assert differing(state, state_of(parts_of(room))) == []
        assert room.picture() == clean
        assert room.picture(f"a photo {status.tag}") != clean

    def test_interrupt_cancels_a_waiting_picture_and_not_the_run(
        self, room: WebuiRoom, pictures: Path, jobs: Jobs
    ) -> None:
        from modules import call_queue, progress, shared

        seen: list[bool] = []

        def draw(_task: str) -> list[str]:
            seen.append(shared.state.interrupted)
            return ["", ""]

        jobs.start(long_recipe(pictures, "going"))
        begun = until(jobs, lambda status: status.step >= 2).step
        picture = call_queue.wrap_gradio_gpu_call(draw)
        waiting = threading.Thread(target=picture, args=("task(waiting)",))
        waiting.start()
        wait_until(lambda: "task(waiting)" in progress.pending_tasks)
        shared.state.interrupt()
        assert "task(waiting)" in progress.finished_tasks, "its page waits no longer"
        assert until(jobs, lambda status: status.step >= begun + 3).state == "training"
        shared.state.interrupt()
        assert (jobs.wait(PATIENCE_S).state, jobs.status().tag) == ("stopped", "<lora:going:0.8>")
        waiting.join(PATIENCE_S)
        picture("task(next)")
        assert seen == [True, False], "when its turn comes it draws nothing, and the next one does"
        assert "begin" not in vars(shared.state)

    def test_interrupt_cancels_the_sample_that_is_drawn_and_not_the_run(
        self, room: WebuiRoom, pictures: Path, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from modules import processing, shared

        draw, presses = processing.process_images, [shared.state.interrupt, shared.state.stop_generating]

        def press_while_drawing(job: object) -> object:
            drawn = draw(job)
            if presses:
                getattr(shared.state, presses.pop().__name__)()
            return drawn

        monkeypatch.setattr(processing, "process_images", press_while_drawing)
        prompts = {"sample_every_n_steps": 1, "sample_prompts": "a photo --w 64 --h 64 --s 1 --l 1 --d 7"}
        jobs.start(recipe(pictures, "sampled", max_train_steps=3, **prompts))
        status = jobs.wait(PATIENCE_S)
        # A press that only asks to finish the picture keeps it.
        assert (status.state, [sample.step for sample in status.samples]) == ("done", [1, 3])
        assert any("was interrupted" in notice for notice in status.notices)

    def test_interrupt_is_heard_though_another_call_clears_it_at_once(
        self, room: WebuiRoom, pictures: Path, jobs: Jobs
    ) -> None:
        from modules import shared

        jobs.start(long_recipe(pictures, "cleared"))
        until(jobs, lambda status: status.step >= 2)
        shared.state.interrupt()
        end_another_call()
        status = jobs.wait(PATIENCE_S)
        assert (status.state, status.tag) == ("stopped", "<lora:cleared:0.8>")

    def test_other_calls_that_move_models_wait_and_change_nothing(
        self, room: WebuiRoom, pictures: Path, jobs: Jobs
    ) -> None:
        clean = room.clean_picture()
        alone = undisturbed(room, pictures, steps=STEPS)
        others = [threading.Thread(target=call) for call in room.models_movers()]
        jobs.start(recipe(pictures, "disturbed", max_train_steps=STEPS))
        until(jobs, lambda status: status.step >= 1)
        jobs.pause()
        for other in others:
            other.start()
        time.sleep(0.1)
        waiting = [other.is_alive() for other in others]
        jobs.resume()
        disturbed = jobs.wait(PATIENCE_S)
        for other in others:
            other.join(PATIENCE_S)
        assert waiting and all(waiting) and not any(other.is_alive() for other in others)
        assert (disturbed.state, same_file(alone, disturbed.path)) == ("done", True)
        assert room.picture() == clean

    def test_test_pictures_show_what_is_learned_and_change_nothing(
        self, room: WebuiRoom, pictures: Path, jobs: Jobs
    ) -> None:
        clean = room.clean_picture()
        prompts = {"sample_every_n_steps": 1, "sample_prompts": "a photo --w 64 --h 64 --s 1 --l 1 --d 7"}
        jobs.start(recipe(pictures, "shown", **prompts))
        shown = jobs.wait(PATIENCE_S)
        assert (shown.state, [sample.step for sample in shown.samples]) == ("done", [1, 2])
        drawn = [Image.open(sample.path).tobytes() for sample in shown.samples]
        assert len({clean, *drawn}) == 3
        assert room.picture() == clean
        assert same_file(shown.path, undisturbed(room, pictures))

    def test_a_stopped_run_goes_on_and_ends_as_if_it_never_had(
        self, room: WebuiRoom, pictures: Path, jobs: Jobs
    ) -> None:
        whole = undisturbed(room, pictures, steps=STEPS)
        run_id = jobs.start(recipe(pictures, "broken", max_train_steps=STEPS))
        until(jobs, lambda status: status.step >= 2)
        jobs.stop(save=True)
        assert jobs.wait(PATIENCE_S).state in ("stopped", "done")
        if jobs.past()[0].state == "stopped":
            jobs.resume_run(run_id)
            assert jobs.wait(PATIENCE_S).state == "done"
        assert same_file(whole, jobs.status().path)

    def test_a_picture_may_be_drawn_between_two_lives(self, room: WebuiRoom, pictures: Path, jobs: Jobs) -> None:
        run_id = jobs.start(long_recipe(pictures, "lives"))
        until(jobs, lambda status: status.step >= 1)
        jobs.pause()
        until(jobs, lambda status: status.kept_step >= 1)
        jobs.stop(save=True)
        stopped = jobs.wait(PATIENCE_S)
        assert room.picture(f"a photo {stopped.tag}") != room.clean_picture()
        jobs.resume_run(run_id)
        assert until(jobs, lambda status: status.step > stopped.step).state == "training"
