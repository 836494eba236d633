"""One run: its states, its commands, and how it ends."""

from __future__ import annotations

import gc
import time
import weakref
from itertools import pairwise
from pathlib import Path

import pytest

from lib_trainer.errors import ConfigError, UserError
from lib_trainer.events import Command, Finished, Notice, Progress, StateSaved, Step
from lib_trainer.jobs.queue import Jobs
from lib_trainer.jobs.status import KEPT_LOSSES
from tests.jobs.runs import RECIPE, LedRun, events_run, named, step
from tests.ui.fakes import FakeHost
from tests.waiting import PATIENCE_S, until


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
    status = jobs.wait(PATIENCE_S)
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
    status = jobs.wait(PATIENCE_S)
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
    assert jobs.wait(PATIENCE_S).eta_seconds == 0


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
    status = jobs.wait(PATIENCE_S)
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
    assert jobs.wait(PATIENCE_S).state == "stopped"
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
    assert jobs.wait(PATIENCE_S).state == "stopped"
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
    status = jobs.wait(PATIENCE_S)
    assert (status.state, status.tag) == ("stopped", "<lora:jeff:0.8>")
    assert any("Interrupted" in notice for notice in status.notices)


def test_a_persons_mistake_is_told_with_its_hint(host):
    jobs = Jobs(host, events_run(step(1), UserError("The disk is full.", "Make room.")))
    jobs.start(RECIPE)
    status = jobs.wait(PATIENCE_S)
    assert (status.state, status.error, status.hint) == ("failed", "The disk is full.", "Make room.")


def test_problems_of_fields_are_kept_by_field(host):
    jobs = Jobs(host, events_run(ConfigError({"output_name": "is taken"})))
    jobs.start(RECIPE)
    assert jobs.wait(PATIENCE_S).problems == {"output_name": "is taken"}


def test_a_bug_leaves_its_traceback_in_the_log_and_one_line_in_the_status(host, caplog):
    jobs = Jobs(host, events_run(step(1), ZeroDivisionError("a\nb")))
    jobs.start(RECIPE)
    assert jobs.wait(PATIENCE_S).error == "ZeroDivisionError: a"
    assert "Traceback" in caplog.text


def test_a_failure_after_the_last_event_is_not_hidden(host):
    finished = Finished(host.lora_dir / "jeff.safetensors", "<lora:jeff:0.8>", 5)
    jobs = Jobs(host, events_run(step(5), finished, RuntimeError("the model did not come back")))
    jobs.start(RECIPE)
    status = jobs.wait(PATIENCE_S)
    assert (status.state, status.error) == ("failed", "RuntimeError: the model did not come back")


def test_losses_are_thinned_evenly(host):
    total = KEPT_LOSSES * 3
    jobs = Jobs(host, events_run(*(step(number, total) for number in range(1, total + 1))))
    jobs.start(RECIPE)
    steps = [number for number, _ in jobs.wait(PATIENCE_S).losses]
    assert KEPT_LOSSES / 3 < len(steps) <= KEPT_LOSSES
    assert len({after - before for before, after in pairwise(steps)}) == 1
    assert steps[-1] > total - 10


def test_commands_are_taken_after_the_step_and_also_while_paused(host):
    run = LedRun()
    jobs = Jobs(host, run)
    jobs.start(RECIPE)
    jobs.ask(Command.SAVE)
    run.go.release()
    until(lambda: run.commands == [(1, Command.SAVE)] and run.number == 2)
    jobs.pause()
    run.go.release()
    until(lambda: run.commands[1:] == [(2, Command.SAVE_STATE)])
    assert jobs.status().kept_step == 2, "who pauses may shut the machine down"
    jobs.ask(Command.SAMPLE)
    until(lambda: run.commands[2:] == [(2, Command.SAMPLE)])
    assert (jobs.status().state, run.number) == ("paused", 2)
    jobs.stop(save=False)
    jobs.wait(PATIENCE_S)


def test_ten_clicks_before_the_next_step_are_one_copy(host):
    run = LedRun(steps=2)
    jobs = Jobs(host, run)
    jobs.start(RECIPE)
    for _ in range(10):
        jobs.ask(Command.SAVE)
    run.go.release()
    until(lambda: run.number == 2)
    assert run.commands == [(1, Command.SAVE)]
    run.go.release()
    jobs.wait(PATIENCE_S)


def test_a_command_that_comes_too_early_waits_for_a_step(host):
    heard = []

    def run(_host, _recipe, _folder):
        jobs.ask(Command.SAVE)
        heard.append((yield Progress("caching", 1, 2, "")))
        heard.append((yield Step(1, 1, 1, 0.5, 1e-4, 0.001)))
        yield StateSaved(1)

    jobs = Jobs(host, run)
    jobs.start(RECIPE)
    jobs.wait(PATIENCE_S)
    assert heard == [None, Command.SAVE]


def test_a_run_that_was_stopped_leaves_nothing_of_itself_in_memory(tmp_path: Path) -> None:
    class Ballast:
        """The tensors of a run."""

    held: list[weakref.ref] = []

    def run(_host, _recipe, _folder):
        ballast = Ballast()
        held.append(weakref.ref(ballast))
        for number in range(1, 10_000):
            time.sleep(0.001)
            yield Step(number, 10_000, 1, 0.5, 1e-4, 0.001)

    jobs = Jobs(FakeHost(tmp_path), run)
    jobs.start(named("stopped"))
    until(lambda: jobs.status().step > 1)
    jobs.stop(save=False)
    assert jobs.wait(PATIENCE_S).state == "stopped"
    gc.collect()
    assert held[0]() is None
