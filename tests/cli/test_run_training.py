"""Ctrl-C: heard between two steps, saves what is learned, leaves whole files only."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lib_trainer.cli.main import main
from lib_trainer.cli.run_training import _Bar, follow
from lib_trainer.events import Finished, Notice, Progress, Saved, Step, StopRequested
from tests.cli.test_main import train

PATH = Path("out.safetensors")


def step(number: int) -> Step:
    return Step(number, 9, 1, 0.5, 1e-4, 0.1)


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def a_run(log: list, *, press_at: str):
    """Events as `run.run` gives them; Ctrl-C is pressed while the named part is under way."""

    def at(place: str) -> None:
        log.append(place)
        if place == press_at:
            press()

    at("caching")
    yield Progress("caching", 1, 1)
    early = False
    try:
        for number in (1, 2, 3):
            at(f"step {number}")
            yield step(number)
    except StopRequested as stop:
        assert stop.save
        early = True
    yield Progress("saving", 0, 1)
    at("saving")
    yield Saved(PATH, 3)
    yield Finished(PATH, "<lora:out:0.8>", 3, early)


@pytest.mark.parametrize(
    ("press_at", "reached", "early"),
    [
        ("never", ["caching", "step 1", "step 2", "step 3", "saving"], False),
        ("step 2", ["caching", "step 1", "step 2", "saving"], True),
        ("saving", ["caching", "step 1", "step 2", "step 3", "saving"], False),
    ],
)
def test_ctrl_c_ends_training_and_nothing_else(press_at, reached, early):
    log = []
    before = signal.getsignal(signal.SIGINT)
    finished, _ = follow(a_run(log, press_at=press_at))
    assert log == reached
    assert finished.stopped_early is early
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_before_anything_is_learned_ends_the_run():
    log = []
    with pytest.raises(StopRequested):
        follow(a_run(log, press_at="caching"))
    assert log == ["caching"]


def test_a_second_ctrl_c_breaks_off_and_closes_the_run():
    closed = []

    def stubborn():
        try:
            yield step(1)
            press()
            press()
            yield step(2)
        finally:
            closed.append(True)

    with pytest.raises(KeyboardInterrupt):
        follow(stubborn())
    assert closed == [True]


def test_notices_are_shown_and_handed_back(capsys):
    events = iter([Notice("cat.png is skipped"), Finished(PATH, "<lora:out:0.8>", 0)])
    _, notices = follow(event for event in events)
    assert notices == ("cat.png is skipped",)
    assert "cat.png is skipped" in capsys.readouterr().err


def test_exit_code_when_nothing_was_learned(embedded, pictures, tmp_path, monkeypatch, capsys):
    from lib_trainer.cli import run_training as progress

    monkeypatch.setattr(progress, "run", lambda *_: a_run([], press_at="caching"))
    assert main(train(pictures, tmp_path, "--json")) == 130
    printed = capsys.readouterr()
    assert "nothing new is written" in printed.err
    assert json.loads(printed.out) == {"stopped_early": True, "path": None}


def test_ctrl_c_on_the_program_saves_a_whole_file(weights, pictures, tmp_path):
    arguments = train(pictures, tmp_path / "out", "--set", "max_train_steps=100000", "--json")
    program = subprocess.Popen(
        [sys.executable, "-m", "tests.cli.tiny_demo", str(weights), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    try:
        seen = b""
        while b"loss=" not in seen:
            chunk = os.read(program.stderr.fileno(), 4096)
            assert chunk, seen.decode(errors="replace")
            seen += chunk
        time.sleep(0.3)
        program.send_signal(signal.SIGINT)
        out, err = program.communicate(timeout=60)
    finally:
        program.kill()
    assert program.returncode == 130, err.decode(errors="replace")
    import json

    from lib_trainer.adapter.io import read_adapter

    answer = json.loads(out.splitlines()[-1])
    assert answer["stopped_early"]
    assert 0 < answer["steps"] < 100000
    assert read_adapter(Path(answer["path"])).factors
    assert sorted(path.name for path in (tmp_path / "out" / "models" / "Lora").iterdir()) == [
        "jeff.json",
        "jeff.safetensors",
    ]


def test_each_phase_has_one_bar(capsys):
    with _Bar() as bar:
        for number in range(1, 6):
            bar.show(Progress("caching", number, 5))
        for number in range(1, 6):
            bar.show(Step(number, 5, 1, 0.5, 1e-4, 0.1))
    said = capsys.readouterr().err
    # A bar that is closed leaves its line behind.
    assert said.count("\n") == 2
    assert "caching: 100%" in said and "training: 100%" in said
