"""Several processes that train together, as torchrun starts them: forks of this one, which has imported the rest."""

from __future__ import annotations

import os
import pickle
import select
import signal
import socket
import tempfile
import time
from collections.abc import Callable
from typing import Any

from lib_trainer.errors import UserError
from lib_trainer.training.process_group import ProcessGroup
from lib_trainer.training.processes import Processes

PATIENCE_S = 60


def together(count: int, work: Callable[[Processes], Any]) -> list[Any]:
    """What `work` returns in each of `count` joined processes, or what it raises, as text."""
    with tempfile.TemporaryDirectory() as folder:

        def join_and_work(rank: int) -> Any:
            processes = ProcessGroup(init_method=f"file://{folder}/store", rank=rank, world_size=count)
            try:
                return work(processes)
            except (UserError, RuntimeError) as error:
                return repr(error)

        return forked(count, join_and_work)


def as_torchrun(count: int, work: Callable[[int], Any]) -> list[Any]:
    """The same without joining, in the environment of torchrun; `work` gets the rank."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def in_environment(rank: int) -> Any:
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE=str(count))
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
        return work(rank)

    return forked(count, in_environment)


def forked(count: int, work: Callable[[int], Any]) -> list[Any]:
    """What `work` returns in each fork; None for one that was killed. Raises TimeoutError if one hangs."""
    children = [_fork(rank, work) for rank in range(count)]
    deadline = time.monotonic() + PATIENCE_S
    try:
        return [_read(reading, deadline) for _, reading in children]
    finally:
        for child, reading in children:
            os.close(reading)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _fork(rank: int, work: Callable[[int], Any]) -> tuple[int, int]:
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    try:
        with os.fdopen(writing, "wb") as answer:
            answer.write(pickle.dumps(work(rank)))
    finally:
        os._exit(0)


def _read(reading: int, deadline: float) -> Any:
    content = b""
    while select.select([reading], [], [], max(0.0, deadline - time.monotonic()))[0]:
        part = os.read(reading, 2**16)
        if not part:
            return pickle.loads(content) if content else None
        content += part
    raise TimeoutError("a process hangs")
