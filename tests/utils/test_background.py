"""Threads that work beside a program end with it, and without a word."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lib_trainer.utils import background
from lib_trainer.utils.background import start_background
from tests.waiting import PATIENCE_S

PROGRAM = """
import atexit, threading, time
from lib_trainer.utils.background import start_background
from lib_trainer.utils.prefetch import prefetched

begun, stop = threading.Event(), threading.Event()

def check():
    for _ in prefetched(range(10**6), lambda n: time.sleep(0.01), workers=1, ahead=1):
        begun.set()

def wait():
    stop.wait()

# Called last, because it is registered first.
atexit.register(lambda: print(sum(thread.daemon for thread in threading.enumerate()), "left"))
start_background(check, lambda: None, "check")
start_background(wait, stop.set, "wait")
begun.wait()
"""


def test_no_thread_is_left_when_the_interpreter_is_torn_down() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "0 left\n", "")


def test_what_is_done_is_not_asked_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[object] = []
    monkeypatch.setattr(background.atexit, "register", ends.append)
    monkeypatch.setattr(background.atexit, "unregister", ends.remove)
    go_on = threading.Event()
    thread = start_background(go_on.wait, lambda: None, "short")
    assert len(ends) == 1 and thread.daemon
    go_on.set()
    thread.join(PATIENCE_S)
    assert ends == []
