"""Runs in processes of their own that are killed as a power cut would: SIGKILL at a chosen moment."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from lib_trainer.events import Event, Step

# One moment each: a step, another event of the run, a file that is written and not yet in its place.
STEP, OTHER_EVENT, WRITTEN = b"s", b".", b"w"
PATIENCE_S = 60
# Gets a function that it calls at every event.
Work = Callable[[Callable[[Event], None]], object]


def live(work: Work, *, killed_at: int = 0) -> bytes:
    """Runs `work` in a process; kills it at moment number `killed_at`, never where that is 0.

    Returns:
        The moments there were: STEP, OTHER_EVENT or WRITTEN each.

    Raises:
        ChildProcessError: the process failed by itself.
        TimeoutError: nothing happened in it for a long time.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        _live(work, writing)
    os.close(writing)
    moments = b""
    while moment := os.read(reading, 1) if select.select([reading], [], [], PATIENCE_S)[0] else _give_up(child):
        moments += moment
        if len(moments) == killed_at:
            os.kill(child, signal.SIGKILL)
            break
    os.close(reading)
    _, status = os.waitpid(child, 0)
    if status and not os.WIFSIGNALED(status):
        raise ChildProcessError(f"the run ended with {status}")
    return moments


def _give_up(child: int) -> bytes:
    os.kill(child, signal.SIGKILL)
    raise TimeoutError("the run hangs")


def _live(work: Work, writing: int) -> None:
    """The child's whole life."""
    code = 1
    try:
        flush = os.fsync

        def mark(event: Event) -> None:
            os.write(writing, STEP if isinstance(event, Step) else OTHER_EVENT)

        def fsync(file: int) -> None:
            os.write(writing, WRITTEN)
            flush(file)

        os.fsync = fsync
        work(mark)
        code = 0
    finally:
        os._exit(code)


def make_pictures(folder: Path) -> Path:
    """Fills `folder` with four small pictures of noise and their captions."""
    inner = folder / "2_jeff_person"
    inner.mkdir()
    for number in range(4):
        Image.effect_noise((64, 64), 40 + number).convert("RGB").save(inner / f"{number}.png")
        (inner / f"{number}.txt").write_text(f"jeff_person, photo {number}, outside")
    return folder


def whole_files(folder: Path) -> list[Path]:
    """The adapter files that a WebUI would show. Raises SafetensorError for one that is not whole."""
    from safetensors.torch import load

    paths = sorted(folder.glob("*.safetensors"))
    for path in paths:
        assert load(path.read_bytes())
    return paths
