"""What the benchmark prints: on which machine, with which releases, when; and tables for the README."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path

import torch


def say(text: str, *, progress: bool = False) -> None:
    """A line of the result, or of how far it is, which goes to the error stream."""
    stream = sys.stderr if progress else sys.stdout
    stream.write(f"{text}\n")
    stream.flush()


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def mebibytes(count: int) -> str:
    return f"{count / 2**20:.1f}"


def where_and_when(threads: int) -> str:
    """`AMD EPYC, 1 thread · Linux · Python 3.11 · torch 2.13.0 · 24 November 2026`."""
    count = f"{threads} thread{'s' * (threads > 1)} of {os.cpu_count()}"
    today = date.today()
    parts = [
        f"{_processor()}, {count}",
        platform.system(),
        f"Python {platform.python_version()}",
        *(f"{name} {version(name)}" for name in ("torch", "diffusers")),
        f"{today.day} {today:%B %Y}",
    ]
    return " · ".join(parts) if not torch.cuda.is_available() else " · ".join([torch.cuda.get_device_name(), *parts])


def _processor() -> str:
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        for line in listing.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
