"""A folder of thousands of pictures in Captions & crops: when a person sees it, and what it costs meanwhile.

The page is served by a process of its own and opened in Chromium; memory is that of the process that serves it.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
from PIL import Image

from benchmarks.report import mebibytes, say, table

_COARSE, _SIDES_PX = 12, (480, 360)
_FOLDER = "#train_lora_train_data_dir textarea, #train_lora_train_data_dir input"
_CARDS = ".train-lora-workbench article"
_PATIENCE_S = 1800
# Every picture of the list that is in sight has arrived.
_SEEN = f"""() => {{
    const cards = [...document.querySelectorAll('{_CARDS} img')];
    const box = card => card.getBoundingClientRect();
    const near = cards.filter(card => box(card).top < innerHeight && box(card).bottom > 0);
    return near.length > 0 && near.every(card => card.complete && card.naturalWidth > 0);
}}"""
_PROGRESS = "() => document.querySelector('#train_lora_gallery .findings .progress')?.textContent ?? ''"


@dataclass
class Opened:
    """One opening of the folder. Times are in seconds.

    Attributes:
        listed: from Scan to the list of what it holds; first_page: from Captions & crops to its first pictures.
        checked: from Scan to the end of the checks.
        turns: from Later to the next page of pictures, while the checks run.
        cpu, cpu_checked: of the serving process until the first page, and until the end of the checks.
        memory: its bytes at the start, at the most while checking, and at the end.
    """

    listed: float = 0.0
    first_page: float = 0.0
    checked: float = 0.0
    cpu: float = 0.0
    cpu_checked: float = 0.0
    turns: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)


def measure_folder(pictures: int, folder: Path, chromium: str) -> list[Opened]:
    """Opens a folder of so many pictures twice in one program; the second time its thumbnails are kept."""
    from playwright.sync_api import sync_playwright

    make_varied(folder / "1_jeff_person", pictures)
    with tempfile.TemporaryDirectory() as out, served(Path(out)) as (process, address), sync_playwright() as api:
        browser = api.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        found = [open_folder(browser.new_page(), address, process.pid, folder) for _ in range(2)]
        browser.close()
    return found


def open_folder(page: Any, address: str, pid: int, folder: Path) -> Opened:
    """Scans, opens Captions & crops, and turns its pages until the checks have ended."""
    page.set_default_timeout(_PATIENCE_S * 1000)
    page.goto(address)
    page.wait_for_selector(".train-lora-head")
    page.fill(_FOLDER, str(folder))
    found, before = Opened(memory=[_memory_bytes(pid)]), _cpu_seconds(pid)
    started = time.monotonic()
    page.click("#train_lora_scan")
    page.wait_for_selector("[data-open-workbench]")
    found.listed = time.monotonic() - started
    found.first_page = _seconds(lambda: (page.click("[data-open-workbench]"), page.wait_for_function(_SEEN)))
    found.cpu = _cpu_seconds(pid) - before
    say(f"listed in {found.listed:.1f} s, first page in {found.first_page:.2f} s")
    peak = _memory_bytes(pid)
    # Until the first look at the findings there is no line of progress yet.
    page.wait_for_selector("#train_lora_gallery .findings li")
    while page.evaluate(_PROGRESS):
        if page.is_enabled("[data-do=later]"):
            found.turns.append(_turn(page))
        page.wait_for_timeout(1000)
        peak = max(peak, _memory_bytes(pid))
        say(f"{page.evaluate(_PROGRESS)} {time.monotonic() - started:.0f} s, {mebibytes(_memory_bytes(pid))} MiB")
    found.checked, found.cpu_checked = time.monotonic() - started, _cpu_seconds(pid) - before
    found.memory += [peak, _memory_bytes(pid)]
    page.close()
    return found


def _turn(page: Any) -> float:
    shown = page.inner_text(".train-lora-workbench .place")
    return _seconds(lambda: (page.click("[data-do=later]"), page.wait_for_function(_TURNED, arg=shown)))


_TURNED = f"before => document.querySelector('.train-lora-workbench .place').textContent !== before && ({_SEEN})()"


@contextmanager
def served(out: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The tab as a page of its own: (process, address)."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "lib_trainer", "ui", "--port", str(port), "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}/"
    try:
        _wait_for(address)
        yield process, address
    finally:
        process.terminate()
        process.wait(30)


def make_varied(folder: Path, count: int) -> None:
    """JPEGs of 480×360 px that differ, each with a caption; those that are there already stay."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        path = folder / f"{number:05}.jpg"
        if not path.exists():
            colours = np.random.default_rng(number).integers(0, 256, (_COARSE, _COARSE, 3), dtype=np.uint8)
            path.with_suffix(".txt").write_text(f"jeff_person, tag {number % 50}, picture {number}", encoding="utf-8")
            Image.fromarray(colours).resize(_SIDES_PX, Image.Resampling.BILINEAR).save(path, quality=80)


def report_folder(pictures: int, found: list[Opened]) -> None:
    say(f"\n{pictures:,} pictures in Captions & crops, in Chromium; the second time in the same program\n")
    rows = [
        [
            f"{item.listed:.1f}", f"{item.first_page:.2f}", f"{item.cpu:.1f}", f"{item.checked:.0f}",
            f"{item.cpu_checked:.0f}",
            f"{median(item.turns):.2f} / {max(item.turns):.2f}" if item.turns else "–",
            " / ".join(mebibytes(size) for size in item.memory),
        ]
        for item in found
    ]  # fmt: skip
    head = [
        "listed, s",
        "first page, s",
        "CPU until then, s",
        "checked, s",
        "CPU until then, s",
        "next page, s (median / most)",
    ]
    say(table([*head, "memory, MiB (before / most / after)"], rows))


def _seconds(do: Callable[[], object]) -> float:
    started = time.monotonic()
    do()
    return time.monotonic() - started


def _wait_for(address: str) -> None:
    end = time.monotonic() + 300
    while True:
        try:
            urlopen(address, timeout=60).close()
            return
        except (URLError, OSError):
            if time.monotonic() > end:
                raise
            time.sleep(0.5)


def _memory_bytes(pid: int) -> int:
    """What the process holds in RAM, as Linux tells it."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
