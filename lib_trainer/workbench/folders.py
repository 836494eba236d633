"""The folders that pages have open, known by keys that cannot be guessed."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from lib_trainer.errors import UserError
from lib_trainer.host.base import Host

if TYPE_CHECKING:
    from PIL.Image import Image

    from lib_trainer.captioning.captioner import Captioner
    from lib_trainer.config.recipe import DatasetConfig
    from lib_trainer.dataset.scan import Scan
    from lib_trainer.dataset.thumbnails import Thumbnails
    from lib_trainer.workbench.commands import Commands
    from lib_trainer.workbench.open_folder import OpenFolder

# Each keeps its list of pictures, about 1.5 kB apiece; whoever opens more has forgotten the first.
_MOST_OPEN, _MOST_PICTURES = 16, 50_000


class Workbench:
    """All open folders of a program. A page gets a key from the tab's own event, and reads with it by the routes."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._open: OrderedDict[str, tuple[OpenFolder, Commands]] = OrderedDict()
        self._lock = threading.Lock()

    def open(
        self, scan: Scan, config: DatasetConfig, kind: str = "", read: Callable[[Path], Image] | None = None
    ) -> str:
        """Opens a folder that was scanned, starts its checks, and returns its key.

        Args:
            read: gives the checks their small copies; by default `thumbnails` does.
        """
        # Imported late: they pull in Pillow and numpy, which a page that is only opened does not need.
        from lib_trainer.workbench.auto_captions import AutoCaptions
        from lib_trainer.workbench.commands import Commands
        from lib_trainer.workbench.open_folder import OpenFolder

        folder = OpenFolder(scan, config, kind, self.thumbnails, self._host.count_tokens, read)
        key = secrets.token_urlsafe(16)
        with self._lock:
            self._open[key] = folder, Commands(folder, AutoCaptions(self._host.run_exclusive), self.captioners)
            while len(self._open) > 1 and self._is_too_much():
                self._open.popitem(last=False)[1][0].close()
        folder.checking.start()
        return key

    def get(self, key: str) -> OpenFolder:
        """Raises UserError where no folder is open under this key."""
        return self._entry(key)[0]

    def commands(self, key: str) -> Commands:
        """What changes that folder. Raises UserError as `get`."""
        return self._entry(key)[1]

    def _is_too_much(self) -> bool:
        pictures = sum(len(folder.images) for folder, _ in self._open.values())
        return len(self._open) > _MOST_OPEN or pictures > _MOST_PICTURES

    @cached_property
    def thumbnails(self) -> Thumbnails:
        """Small copies of pictures, as the page shows them and the checks look at them."""
        from lib_trainer.dataset.checks.measure import MEASURED_PX
        from lib_trainer.dataset.thumbnails import Thumbnails

        thumbnails = Thumbnails(self._host.cache_dir / "thumbnails", MEASURED_PX)
        thumbnails.prune()
        return thumbnails

    def captioners(self) -> list[Captioner]:
        """What can caption here: the program's own, then every tagger's ONNX file below its models."""
        from lib_trainer.captioning.onnx_tagger import OnnxTagger, find_taggers

        return [*self._host.captioners(), *map(OnnxTagger, find_taggers([self._host.lora_dir.parent]))]

    def _entry(self, key: str) -> tuple[OpenFolder, Commands]:
        with self._lock:
            if key not in self._open:
                raise UserError("This folder is not open any more.", "Press Scan again.")
            self._open.move_to_end(key)
            return self._open[key]
