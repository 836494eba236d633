"""Which program drives a run: a lock of the operating system, which ends with the program however it ends."""

from __future__ import annotations

import logging
from pathlib import Path

from filelock import FileLock, Timeout

LOCK_FILE = "lock"
# `is_locked` of another program holds the lock for a moment.
PATIENCE_SECONDS = 0.5
_log = logging.getLogger(__name__)


class RunLocked(Exception):
    """The run is already locked, by this program or another."""


class RunLock:
    """The lock on the run of a folder. A thread may release what another acquired."""

    def __init__(self, folder: Path) -> None:
        """Raises RunLocked. Where files cannot be locked (some network drives), it only logs a warning."""
        # The run's thread releases what the page's thread acquired.
        self._lock = FileLock(folder / LOCK_FILE, thread_local=False)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=PATIENCE_SECONDS, poll_interval=0.02)
        except Timeout:
            raise RunLocked from None
        except (OSError, NotImplementedError) as error:
            _log.warning("%s cannot be locked against other programs: %s", folder, error)

    def release(self) -> None:
        """May be repeated."""
        self._lock.release()


def is_locked(folder: Path) -> bool:
    """Whether a living program drives the run of `folder`, this one included."""
    # Asking must not create files in folders of runs from before there were locks.
    if not (folder / LOCK_FILE).exists():
        return False
    lock = FileLock(folder / LOCK_FILE, thread_local=False)
    try:
        with lock.acquire(timeout=0):
            return False
    except Timeout:
        return True
    except (OSError, NotImplementedError):
        return False
