"""A WebUI that is killed while it trains, started again and told over REST to go on; the same for every WebUI.

`TRAIN_LORA_KILLS=20` kills it at twenty moments.
"""

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

import pytest

from tests.killing import make_pictures, whole_files
from tests.real_webui import Installation

ROOT = Path(__file__).resolve().parents[1]
KILLS, STEPS = int(os.environ.get("TRAIN_LORA_KILLS", "3")), 8
SETTINGS = {
    "output_name": "jeff", "network_dim": 4, "conv_dim": 0, "factor": 4, "max_train_steps": STEPS,
    "resolution_px": "64,64", "min_bucket_reso": 64, "gradient_accumulation_steps": 2, "save_every_n_steps": 2,
    "save_last_n_steps": 1, "resume_every_minutes": 1e-6, "optimizer": "AdamW",
}  # fmt: skip
PATIENCE_S = 900
LOOK_SECONDS = 0.2


class _Process:
    """A WebUI with its page, and our routes of it."""

    def __init__(self, installation: Installation, data_dir: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        options = ["--skip-prepare-environment", "--skip-version-check", "--skip-torch-cuda-test", "--api"]
        options += ["--port", str(port), "--data-dir", str(data_dir)]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "GRADIO_ANALYTICS_ENABLED": "False"}
        environment["PYTHONUNBUFFERED"] = "1"
        self._routes, self._log = f"http://127.0.0.1:{port}/train-lora/v1/", data_dir / "console.log"
        self._log_start = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("ab") as console:
            self.process = subprocess.Popen(
                [installation.python, "launch.py", *options, *installation.cpu_options],
                cwd=installation.folder, env=environment, stdout=console, stderr=console,
            )  # fmt: skip

    def ask(self, path: str, body: Any = None) -> Any:
        """The answer of one route; what is posted is `body`. Raises URLError."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._routes + path, data, {"Content-Type": "application/json"})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=60) as answer:
            return json.load(answer)

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


class _DataFolder:
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
    def webui(self) -> Iterator[_Process]:
        """The WebUI, until it is killed at the end."""
        webui = _Process(self._installation, self.folder)
        try:
            webui.wait(webui.is_up)
            yield webui
        finally:
            webui.process.kill()
            webui.process.wait()

    def start(self, webui: _Process) -> str:
        recipe = {**SETTINGS, "train_data_dir": str(self._pictures)}
        return webui.ask("jobs", {"preset": "lokr_style_config_8gb", "recipe": recipe})["id"]

    def contents(self) -> dict[str, bytes]:
        """The adapter files, each of them whole."""
        return {path.name: path.read_bytes() for path in whole_files(self.folder / "models" / "Lora")}


class Killed:
    """`Test…` classes derive from it."""

    installation: Installation

    @pytest.fixture(scope="class")
    def pictures(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return make_pictures(tmp_path_factory.mktemp("pictures"))

    @pytest.fixture(scope="class")
    def unbroken(self, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], float]:
        """What a run leaves that was never broken, and how many seconds it took."""
        data = _DataFolder(self.installation, tmp_path_factory.mktemp("unbroken"), pictures)
        with data.webui() as webui:
            started, run_id = time.monotonic(), data.start(webui)
            webui.wait(lambda: webui.is_over(run_id))
            seconds = time.monotonic() - started
        assert list(data.contents()) == [f"jeff-step{STEPS - 2:08}.safetensors", "jeff.safetensors"]
        return data.contents(), seconds

    @pytest.mark.parametrize("kill", range(KILLS))
    def test_a_webui_that_is_killed_goes_on_with_the_run(
        self, unbroken: Any, pictures: Path, tmp_path: Path, kill: int
    ) -> None:
        """Moments spread over the whole run: preparing, caching, steps, copies on the way."""
        contents, seconds = unbroken
        data = _DataFolder(self.installation, tmp_path, pictures)
        with data.webui() as webui:
            run_id = data.start(webui)
            time.sleep(seconds * (kill + 0.5) / KILLS)
        data.contents()
        with data.webui() as webui:
            # The last moments may come after the end.
            if kill < KILLS - 1 or not webui.is_over(run_id):
                webui.ask(f"jobs/{run_id}/resume", {})
                webui.wait(lambda: webui.is_over(run_id))
        assert data.contents() == contents
        assert not list(data.folder.rglob("*.part"))
