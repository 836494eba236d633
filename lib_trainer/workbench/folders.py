"""The folders that pages have open, known by keys that cannot be guessed."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from lib_trainer.errors import UserError

if TYPE_CHECKING:
    from lib_trainer.config.recipe import DatasetConfig
    from lib_trainer.dataset.scan import Scan
    from lib_trainer.dataset.thumbnails import Thumbnails
    from lib_trainer.workbench.commands import Commands
    from lib_trainer.workbench.open_folder import OpenFolder

# Each keeps its list of pictures; whoever opens more has forgotten the first.
_MOST_OPEN = 16


class Workbench:
    """All open folders of a program. A page gets a key from the tab's own event, and reads with it by the routes."""

    def __init__(self, cache_dir: Path) -> None:
        self._cache_dir = cache_dir
        self._open: OrderedDict[str, tuple[OpenFolder, Commands]] = OrderedDict()
        self._lock = threading.Lock()

    def open(self, scan: Scan, config: DatasetConfig, kind: str = "") -> str:
        """Opens a folder that was scanned, starts its checks, and returns its key."""
        # Imported late: they pull in Pillow and numpy, which a page that is only opened does not need.
        from lib_trainer.workbench.commands import Commands
        from lib_trainer.workbench.open_folder import OpenFolder

        folder = OpenFolder(scan, config, kind, self._thumbnails)
        key = secrets.token_urlsafe(16)
        with self._lock:
            self._open[key] = folder, Commands(folder)
            while len(self._open) > _MOST_OPEN:
                self._open.popitem(last=False)[1][0].close()
        folder.checking.start()
        return key

    def get(self, key: str) -> OpenFolder:
        """Raises UserError where no folder is open under this key."""
        return self._entry(key)[0]

    def commands(self, key: str) -> Commands:
        """What changes that folder. Raises UserError as `get`."""
        return self._entry(key)[1]

    @cached_property
    def _thumbnails(self) -> Thumbnails:
        from lib_trainer.dataset.checks.measure import MEASURED_PX
        from lib_trainer.dataset.thumbnails import Thumbnails

        thumbnails = Thumbnails(self._cache_dir / "thumbnails", MEASURED_PX)
        thumbnails.prune()
        return thumbnails

    def _entry(self, key: str) -> tuple[OpenFolder, Commands]:
        with self._lock:
            if key not in self._open:
                raise UserError("This folder is not open any more.", "Press Scan again.")
            self._open.move_to_end(key)
            return self._open[key]
