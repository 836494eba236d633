"""The kernel strategy of each kind of layer: measured once where it runs, and kept."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from lib_trainer.adapter.kernels.candidates import INT8, LayerCase, candidates, pinned
from lib_trainer.utils.atomic_file import partial_path
from lib_trainer.utils.json_object import json_object
from lib_trainer.utils.limited_read import read_at_most

FILE = "kernels.json"
MOST_SECONDS = 2.0
_MOST_BYTES, _MOST_DEVICES, _PATIENCE_SECONDS = 2**22, 8, 1.0
_log = logging.getLogger(__name__)


class KernelChoices:
    """Chooses the strategy of a layer: as recorded, else as in the cache, else measured now.

    Args:
        setting: `kernel_strategy` of the recipe.
        int8: its `int8_matmul`.
        folder: cache folder, for the choices of later runs; None keeps none.
        recorded: (`LayerCase.key` -> strategy) of an interrupted run, which must compute as it began.
        most_seconds: for all measurements; what is left over is chosen by count, and kept like the others.
    """

    def __init__(
        self,
        setting: str = "auto",
        int8: str = "off",
        folder: Path | None = None,
        recorded: Mapping[str, str] | None = None,
        most_seconds: float = MOST_SECONDS,
    ) -> None:
        self._setting, self._int8 = setting, int8
        self._cache = folder / FILE if folder else None
        self._made: dict[str, str] = dict(recorded or {})
        self._left = most_seconds

    @property
    def made(self) -> dict[str, str]:
        """`LayerCase.key` -> strategy of all that was chosen among several."""
        return dict(self._made)

    @property
    def takes_int8(self) -> bool:
        """Whether any layer may be computed in 8 bits."""
        return self._int8 != "off"

    def possible(self, case: LayerCase) -> tuple[str, ...]:
        """The strategies among which a layer's is chosen."""
        if self._setting == "auto":
            names: tuple[str, ...] = candidates(case)
        else:
            names = candidates(case)[:1] if self._setting == "counted" else (pinned(self._setting, case),)
        if not case.int8 or self._int8 == "off":
            return names
        in_int8 = tuple(name + INT8 for name in names)
        # Unmeasured, 8 bits are not taken: how much they gain no count tells.
        return in_int8 if self._int8 == "on" else names + in_int8

    def choose(self, case: LayerCase, device: torch.device, measure: Callable[[tuple[str, ...]], str]) -> str:
        """The strategy of a layer.

        Args:
            measure: strategies -> the fastest of them; asked at most once a case.
        """
        names = self.possible(case)
        # Tensors without contents take no time.
        if len(names) == 1 or device.type == "meta":
            return names[0]
        found = self._made.get(case.key)
        if found not in names:
            found = self._kept(device).get(case.key) if self._cache else None
            if found not in names:
                found = self._keep(device, case.key, self._measured(names, measure), names)
            self._made[case.key] = found
        return found

    def _measured(self, names: tuple[str, ...], measure: Callable[[tuple[str, ...]], str]) -> str:
        if self._left <= 0:
            return names[0]
        start = time.perf_counter()
        found = measure(names)
        self._left -= time.perf_counter() - start
        return found

    def _kept(self, device: torch.device) -> dict[str, str]:
        """The choices in the cache for this device and these libraries; {} where it cannot be read."""
        found = _read(self._cache).get(_where(device))
        return found if isinstance(found, dict) else {}

    def _keep(self, device: torch.device, key: str, name: str, names: tuple[str, ...]) -> str:
        """Writes a choice into the cache; the choice in force, which another process may have written first."""
        if self._cache is None:
            return name
        try:
            self._cache.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self._cache.with_suffix(".lock"), timeout=_PATIENCE_SECONDS):
                every, where = _read(self._cache), _where(device)
                here = every.pop(where, None)
                here = here if isinstance(here, dict) else {}
                if here.get(key) in names:
                    return here[key]
                # The devices and releases that were used last.
                kept = dict([*every.items()][1 - _MOST_DEVICES :]) | {where: here | {key: name}}
                part = partial_path(self._cache)
                # Without waiting for the disk: a broken file is measured again.
                part.write_text(json.dumps(kept, indent=1, ensure_ascii=False), "utf-8")
                os.replace(part, self._cache)
        except (OSError, NotImplementedError, Timeout) as error:
            _log.warning("%s could not be written: %s", self._cache, error)
        return name


def _read(path: Path) -> dict[str, object]:
    try:
        return json_object(read_at_most(path, _MOST_BYTES) or b"")
    except OSError:
        return {}


def _where(device: torch.device) -> str:
    """The device and what computes on it: choices hold for these alone."""
    if device.type == "cuda":
        parts = [torch.cuda.get_device_name(device), f"CUDA {torch.version.cuda}"]
        parts.append(f"cuDNN {torch.backends.cudnn.version()}")
    else:
        vectors = torch.backends.cpu.get_cpu_capability() if device.type == "cpu" else device.type
        parts = [platform.processor() or platform.machine(), vectors, f"{torch.get_num_threads()} threads"]
    return " · ".join([*parts, f"torch {torch.__version__}", _kernels_hash()])


@lru_cache
def _kernels_hash() -> str:
    """Of this package: strategies that were changed are measured anew."""
    found = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()[:12]
