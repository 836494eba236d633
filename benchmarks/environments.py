"""A folder of packages for each implementation that needs its own; all share one torch, so that only they differ."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.cases import Implementation

ROOT = Path(__file__).resolve().parent.parent
# Every side keeps the memory it freed, as the allocator of a GPU does. glibc would return it whenever the
# end of its heap is free, and each step would fault in hundreds of thousands of pages, never the same count.
_KEEP_HEAP = {"MALLOC_TRIM_THRESHOLD_": str(4 * 10**9), "MALLOC_MMAP_THRESHOLD_": str(2 * 10**9)}


def prepare(implementation: Implementation, folder: Path) -> None:
    """Installs what it needs into its folder, once. Its own dependencies are those of the running environment."""
    target = folder / implementation.name
    if implementation.requirement and not target.is_dir():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target)]
        subprocess.run([*command, implementation.requirement], check=True, stdout=sys.stderr)


def variables(implementation: Implementation, folder: Path, threads: int) -> dict[str, str]:
    """Environment variables of its process: its packages before all others, and so many threads."""
    paths = [str(folder / implementation.name)] if implementation.requirement else []
    paths += [os.environ[implementation.checkout]] if implementation.checkout else []
    limits = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "DIFFUSERS_VERBOSITY": "error"}
    return {**os.environ, **_KEEP_HEAP, **limits, **offline, "PYTHONPATH": os.pathsep.join([*paths, str(ROOT)])}
