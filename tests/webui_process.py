"""A WebUI of this machine in a process of its own, with our routes, and a data folder that it works in now and then."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.killing import whole_files
from tests.real_webui import Installation

ROOT = Path(__file__).resolve().parents[1]
PATIENCE_S = 900
LOOK_SECONDS = 0.2


class WebuiProcess:
    """A WebUI with its page, and our routes of it."""

    def __init__(self, installation: Installation, data_dir: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        options = ["--skip-prepare-environment", "--skip-version-check", "--skip-torch-cuda-test", "--api"]
        options += ["--port", str(port), "--data-dir", str(data_dir)]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "GRADIO_ANALYTICS_ENABLED": "False"}
        environment["PYTHONUNBUFFERED"] = "1"
        self._address, self._log = f"http://127.0.0.1:{port}/", data_dir / "console.log"
        self._log_start = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("ab") as console:
            self.process = subprocess.Popen(
                [installation.python, "launch.py", *options, *installation.cpu_options],
                cwd=installation.folder, env=environment, stdout=console, stderr=console,
            )  # fmt: skip

    def ask(self, path: str, body: Any = None) -> Any:
        """The answer of one route; what is posted is `body`. Raises URLError."""
        return self.ask_webui(f"train-lora/v1/{path}", body)

    def ask_webui(self, path: str, body: Any = None, patience_s: float = 60) -> Any:
        """The answer of one of the WebUI's own routes."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._address + path, data, {"Content-Type": "application/json"})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=patience_s) as answer:
            return json.load(answer)

    def cpu_seconds(self) -> float:
        """What the process has computed so far, on all of its threads."""
        import psutil

        times = psutil.Process(self.process.pid).cpu_times()
        return times.user + times.system

    def wait(self, until: Callable[[], bool]) -> None:
        started = time.monotonic()
        while not until():
            waited = time.monotonic() - started
            alive = self.process.poll() is None and waited < PATIENCE_S
            assert alive, self._log.read_text("utf-8", "replace")[-4000:]
            time.sleep(LOOK_SECONDS)

    def is_up(self) -> bool:
        """By its console: a request between the opening of the port and the adding of `--api`'s middleware ends it."""
        return b"Startup time" in self._log.read_bytes()[self._log_start :]

    def is_over(self, run_id: str) -> bool:
        job = self.ask(f"jobs/{run_id}")
        assert job["state"] != "failed", (job, self._log.read_text("utf-8", "replace")[-4000:])
        return job["state"] == "done"


class DataFolder:
    """A data folder of the WebUI's, and the WebUI working in it now and then."""

    def __init__(self, installation: Installation, folder: Path, pictures: Path) -> None:
        self.folder, self._installation = folder, installation
        self._pictures = Path(shutil.copytree(pictures, folder / "pictures"))
        # The only one there is: Neo has no option that chooses one. A1111 reads the configuration beside it.
        checkpoints = folder / "models" / "Stable-diffusion"
        checkpoints.mkdir(parents=True)
        checkpoint = installation.checkpoint(installation.checkpoints[0])
        for path in checkpoint.parent.glob(f"{checkpoint.stem}.*"):
            (checkpoints / path.name).symlink_to(path.resolve())
        (folder / "extensions").mkdir()
        (folder / "extensions" / "train-lora").symlink_to(ROOT)

    @contextmanager
    def webui(self) -> Iterator[WebuiProcess]:
        """The WebUI, until it is killed at the end."""
        webui = WebuiProcess(self._installation, self.folder)
        try:
            webui.wait(webui.is_up)
            yield webui
        finally:
            webui.process.kill()
            webui.process.wait()

    def start(self, webui: WebuiProcess, settings: dict[str, Any], preset: str = "lokr_style_config_8gb") -> str:
        """Starts a run on the folder's pictures; its id."""
        recipe = {**settings, "train_data_dir": str(self._pictures)}
        return webui.ask("jobs", {"preset": preset, "recipe": recipe})["id"]

    def contents(self) -> dict[str, bytes]:
        """The adapter files, each of them whole."""
        return {path.name: path.read_bytes() for path in whole_files(self.folder / "models" / "Lora")}
