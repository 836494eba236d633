"""One run at a time: its states, its commands, and how it ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from lib_trainer.config import Recipe
from lib_trainer.errors import ConfigError, UserError
from lib_trainer.events import Event, Finished, Kept, Notice, Progress, Saved, Step, StopRequested, Wish
from lib_trainer.jobs import Jobs
from lib_trainer.status import KEPT_LOSSES
from tests.ui.fakes import FakeHost, SlowRun

RECIPE = Recipe().with_values({"output_name": "jeff", "train_data_dir": "/pictures"})
SOON = 5.0


class LedRun:
    """A run that takes a step only when the test says `go`, and notes what was thrown into it."""

    def __init__(self, steps: int = 50) -> None:
        self.steps = steps
        self.go = threading.Semaphore(0)
        self.number = 0
        self.stop: StopRequested | None = None
        self.closed = False
        self.wishes: list[tuple[int, Wish]] = []

    def __call__(self, host: FakeHost, recipe: Recipe, folder: Path) -> Iterator[Event]:
        try:
            for number in range(1, self.steps + 1):
                self.number = number
                self.go.acquire()
                wish = yield Step(self.number, self.steps, 1, 0.1, 1e-4, 0.5)
                while wish:
                    self.wishes.append((number, wish))
                    wish = yield Kept(number)
        except StopRequested as stop:
            self.stop = stop
            if not stop.save:
                raise
        else:
            self.number = self.steps
        finally:
            self.closed = True
        path = host.lora_dir / "jeff.safetensors"
        yield Saved(path, self.number)
        yield Finished(path, "<lora:jeff:0.8>", self.number, stopped_early=self.stop is not None)


@pytest.fixture
def host(tmp_path):
    return FakeHost(tmp_path)


def until(condition, seconds: float = SOON) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)


def events_run(*events: Event | Exception):
    def run(host, recipe, folder):
        for event in events:
            if isinstance(event, Exception):
                raise event
            yield event

    return run


def step(number: int, total: int = 10, seconds: float = 0.5) -> Step:
    return Step(number, total, 1, 1.0 / number, 1e-4, seconds, 2**30)


def test_a_run_goes_from_queued_to_done(host):
    run = LedRun(steps=2)
    jobs = Jobs(host, run)
    assert jobs.status().state == "idle"
    with host.busy:
        jobs.start(RECIPE)
        assert jobs.status().state == "queued"
        assert "Waiting" in jobs.status().phase
    until(lambda: jobs.status().state == "preparing")
    run.go.release()
    until(lambda: jobs.status().state == "training")
    assert (jobs.status().step, jobs.status().steps) == (1, 2)
    run.go.release()
    status = jobs.wait(SOON)
    assert (status.state, status.tag, status.path) == ("done", "<lora:jeff:0.8>", host.lora_dir / "jeff.safetensors")
    assert not status.live


def test_numbers_of_a_run_come_from_its_events(host):
    events = [
        Notice("one is skipped"),
        Progress("caching", 3, 8, "Encoding the pictures"),
        *(step(number, seconds=30.0 if number == 3 else 0.5) for number in range(1, 6)),
    ]
    jobs = Jobs(host, events_run(*events))
    jobs.start(RECIPE)
    status = jobs.wait(SOON)
    assert status.notices == ("one is skipped",)
    assert status.losses == tuple((number, 1.0 / number) for number in range(1, 6))
    # The long third step was a pause: it does not count for the pace.
    assert status.seconds_per_step == 0.5
    assert status.peak_bytes == 2**30
    assert (3, 8, "Encoding the pictures") in host.progress
    assert (5, 10, "Training") in host.progress


def test_time_left_follows_the_pace(host):
    run = LedRun(steps=50)
    jobs = Jobs(host, run)
    jobs.start(RECIPE)
    run.go.release()
    until(lambda: jobs.status().step == 1)
    assert jobs.status().eta_seconds == pytest.approx(49 * 0.5)
    jobs.stop(save=False)
    run.go.release()
    assert jobs.wait(SOON).eta_seconds == 0


@pytest.mark.parametrize("save", [True, False])
def test_stop_is_heard_within_one_event(host, save):
    run = LedRun()
    jobs = Jobs(host, run)
    jobs.start(RECIPE)
    run.go.release()
    until(lambda: run.number == 2)
    jobs.stop(save=save)
    assert jobs.status().stopping
    run.go.release()
    status = jobs.wait(SOON)
    assert (run.number, run.stop.save, run.closed) == (2, save, True)
    assert status.state == "stopped"
    assert status.tag == ("<lora:jeff:0.8>" if save else "")
    assert not status.stopping


def test_stop_while_waiting_for_the_host_ends_at_once_and_runs_nothing(host):
    run = LedRun()
    jobs = Jobs(host, run)
    with host.busy:
        jobs.start(RECIPE)
        jobs.stop(save=True)
        assert jobs.status().state == "stopped"
        jobs.start(RECIPE)
        assert jobs.status().state == "queued"
    until(lambda: jobs.status().state == "preparing")
    jobs.stop(save=False)
    run.go.release()
    assert jobs.wait(SOON).state == "stopped"
    assert run.number <= 1


def test_a_paused_run_takes_no_step_and_still_hears_stop(host):
    run = LedRun()
    jobs = Jobs(host, run)
    jobs.start(RECIPE)
    until(lambda: run.number == 1)
    jobs.pause()
    assert jobs.status().state == "paused"
    for _ in range(5):
        run.go.release()
    until(lambda: jobs.status().step == 1)
    time.sleep(0.05)
    assert (run.number, jobs.status().state) == (1, "paused")
    jobs.resume()
    until(lambda: run.number == 6)
    assert jobs.status().state == "training"
    jobs.pause()
    jobs.stop(save=True)
    run.go.release()
    assert jobs.wait(SOON).state == "stopped"
    assert run.stop.save


def test_the_hosts_interrupt_saves_what_was_learned(host):
    run = LedRun()
    jobs = Jobs(host, run)
    jobs.start(RECIPE)
    until(lambda: run.number == 1)
    jobs.pause()
    run.go.release()
    until(lambda: jobs.status().step == 1)
    host.interrupt = True
    status = jobs.wait(SOON)
    assert (status.state, status.tag) == ("stopped", "<lora:jeff:0.8>")
    assert any("Interrupted" in notice for notice in status.notices)


def test_a_persons_mistake_is_told_with_its_hint(host):
    jobs = Jobs(host, events_run(step(1), UserError("The disk is full.", "Make room.")))
    jobs.start(RECIPE)
    status = jobs.wait(SOON)
    assert (status.state, status.error, status.hint) == ("failed", "The disk is full.", "Make room.")


def test_problems_of_fields_are_kept_by_field(host):
    jobs = Jobs(host, events_run(ConfigError({"output_name": "is taken"})))
    jobs.start(RECIPE)
    assert jobs.wait(SOON).problems == {"output_name": "is taken"}


def test_a_bug_leaves_its_traceback_in_the_log_and_one_line_in_the_status(host, caplog):
    jobs = Jobs(host, events_run(step(1), ZeroDivisionError("a\nb")))
    jobs.start(RECIPE)
    assert jobs.wait(SOON).error == "ZeroDivisionError: a"
    assert "Traceback" in caplog.text


def test_a_failure_after_the_last_event_is_not_hidden(host):
    finished = Finished(host.lora_dir / "jeff.safetensors", "<lora:jeff:0.8>", 5)
    jobs = Jobs(host, events_run(step(5), finished, RuntimeError("the model did not come back")))
    jobs.start(RECIPE)
    status = jobs.wait(SOON)
    assert (status.state, status.error) == ("failed", "RuntimeError: the model did not come back")


def test_a_second_start_is_refused_until_the_first_is_over(host):
    run = LedRun(steps=1)
    jobs = Jobs(host, run)
    jobs.start(RECIPE)
    with pytest.raises(UserError, match="jeff is still being trained"):
        jobs.start(RECIPE)
    run.go.release()
    jobs.wait(SOON)
    jobs.start(RECIPE)
    run.go.release()
    assert jobs.wait(SOON).state == "done"


def test_a_wrong_recipe_never_reaches_the_host(host):
    jobs = Jobs(host, LedRun())
    with pytest.raises(ConfigError):
        jobs.start(Recipe())
    assert jobs.status().state == "idle"


def test_only_one_of_many_simultaneous_starts_wins(host):
    jobs, refused, gate = Jobs(host, SlowRun(steps=3, seconds=0.01)), [], threading.Barrier(8)

    def start() -> None:
        gate.wait()
        try:
            jobs.start(RECIPE)
        except UserError as error:
            refused.append(error)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON)
    assert len(refused) == 7
    assert jobs.wait(SOON).state == "done"


def test_commands_from_many_threads_never_leave_a_run_hanging(host):
    for seed in range(10):
        jobs = Jobs(host, SlowRun(steps=200, seconds=0.001))
        jobs.start(RECIPE)
        commands = [jobs.pause, jobs.resume, jobs.status, jobs.pause, jobs.resume, partial(jobs.stop, save=True)]
        order = commands[seed % 5 :] + commands[: seed % 5]
        threads = [threading.Thread(target=command) for command in order]
        for thread in threads:
            thread.start()
        assert jobs.wait(SOON).state == "stopped"


def test_losses_are_thinned_evenly(host):
    total = KEPT_LOSSES * 3
    jobs = Jobs(host, events_run(*(step(number, total) for number in range(1, total + 1))))
    jobs.start(RECIPE)
    steps = [number for number, _ in jobs.wait(SOON).losses]
    assert KEPT_LOSSES / 3 < len(steps) <= KEPT_LOSSES
    assert len({after - before for before, after in pairwise(steps)}) == 1
    assert steps[-1] > total - 10
