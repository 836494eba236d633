"""Worker processes that take turns."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from benchmarks.cases import Implementation
from benchmarks.environments import ROOT, prepare, variables


class WorkerDied(RuntimeError):
    """A worker ended instead of answering; what it said stands on the console."""


class Worker:
    """One implementation in its own process; the next load starts it again if it ended, as for want of memory."""

    def __init__(self, implementation: Implementation, environment: dict[str, str]) -> None:
        self.implementation = implementation
        self._environment = environment
        self._process = self._start()

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def ask(self, **task: Any) -> Any:
        """The answer to one task. Raises WorkerDied."""
        try:
            self._process.stdin.write(json.dumps(task) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self.close()
            raise WorkerDied(f"{self.implementation.name} ended at {task}")
        return json.loads(line)

    @contextmanager
    def loaded(self, **task: Any) -> Iterator[None]:
        """What `task` describes is built in a process of its own, which can be asked while entered."""
        if not self.is_running:
            self._process = self._start()
        self.ask(**task)
        yield
        self.ask(unload=True)

    def close(self) -> None:
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _start(self) -> subprocess.Popen:
        command = [sys.executable, "-m", "benchmarks.worker", self.implementation.name]
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=self._environment
        )


@contextmanager
def workers(names: Sequence[Implementation], folder: Path, threads: int) -> Iterator[list[Worker]]:
    """A process for each, with its packages installed below `folder`."""
    with ExitStack() as stack:
        started = []
        for implementation in names:
            prepare(implementation, folder)
            worker = Worker(implementation, variables(implementation, folder, threads))
            stack.callback(worker.close)
            started.append(worker)
        yield started
