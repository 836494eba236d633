"""Forge itself, killed while it trains, started again and told over REST to go on.

FORGE_DIR=… [FORGE_PYTHON=…] [TRAIN_LORA_KILLS=20] pytest tests/forge/test_killed_forge.py
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.forge.test_real_forge import CHECKPOINTS, FORGE_DIR, forge_python
from tests.killing import make_pictures, whole_files

ROOT = Path(__file__).resolve().parents[2]
KILLS, STEPS = int(os.environ.get("TRAIN_LORA_KILLS", "3")), 8
SETTINGS = {
    "output_name": "jeff", "network_dim": 4, "conv_dim": 0, "factor": 4, "max_train_steps": STEPS,
    "resolution_px": "64,64", "min_bucket_reso": 64, "gradient_accumulation_steps": 2, "save_every_n_steps": 2,
    "save_last_n_steps": 1, "resume_every_minutes": 1e-6, "optimizer": "AdamW",
}  # fmt: skip
PATIENCE_S = 300
LOOK_SECONDS = 0.05

CHECKPOINT = Path(FORGE_DIR, "models", "Stable-diffusion", CHECKPOINTS[0])

pytestmark = [
    pytest.mark.forge,
    pytest.mark.skipif(not FORGE_DIR, reason="FORGE_DIR names no stable-diffusion-webui-forge"),
    pytest.mark.skipif(not CHECKPOINT.is_file(), reason=f"there is no {CHECKPOINT}"),
]


class Forge:
    """A Forge with its page, and our routes of it."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        options = ["--skip-prepare-environment", "--skip-version-check", "--always-cpu", "--skip-torch-cuda-test"]
        options += ["--api", "--port", str(port), "--data-dir", str(folder), "--ckpt-dir"]
        options += [str(Path(FORGE_DIR, "models", "Stable-diffusion")), "--ckpt", str(CHECKPOINT)]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "GRADIO_ANALYTICS_ENABLED": "False"}
        self._routes, self._log = f"http://127.0.0.1:{port}/train-lora/v1/", folder / "forge.log"
        with self._log.open("ab") as console:
            self.process = subprocess.Popen(
                [forge_python(), "launch.py", *options], cwd=FORGE_DIR, env=environment, stdout=console, stderr=console
            )

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

    def answers(self) -> bool:
        with suppress(urllib.error.URLError, ConnectionError):
            return bool(self.ask("status"))
        return False

    def is_over(self, run_id: str) -> bool:
        state = self.ask(f"jobs/{run_id}")["state"]
        assert state != "failed"
        return state == "done"


class Room:
    """A data folder of Forge's, and Forge working in it now and then."""

    def __init__(self, folder: Path, pictures: Path) -> None:
        self.folder, self._lora_dir = folder, folder / "models" / "Lora"
        self._pictures = Path(shutil.copytree(pictures, folder / "pictures"))
        (folder / "extensions").mkdir()
        (folder / "extensions" / "train-lora").symlink_to(ROOT)

    @contextmanager
    def forge(self) -> Iterator[Forge]:
        """Forge, until it is killed at the end."""
        forge = Forge(self.folder)
        try:
            forge.wait(forge.answers)
            yield forge
        finally:
            forge.process.kill()
            forge.process.wait()

    def start(self, forge: Forge) -> str:
        recipe = {**SETTINGS, "train_data_dir": str(self._pictures)}
        return forge.ask("jobs", {"preset": "lokr_style_config_8gb", "recipe": recipe})["id"]

    def contents(self) -> dict[str, bytes]:
        """The adapter files, each of them whole."""
        return {path.name: path.read_bytes() for path in whole_files(self._lora_dir)}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def unbroken(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], float]:
    """What a run leaves that was never broken, and how many seconds it took."""
    room = Room(tmp_path_factory.mktemp("unbroken"), pictures)
    with room.forge() as forge:
        started, run_id = time.monotonic(), room.start(forge)
        forge.wait(lambda: forge.is_over(run_id))
        seconds = time.monotonic() - started
    assert list(room.contents()) == [f"jeff-step{STEPS - 2:08}.safetensors", "jeff.safetensors"]
    return room.contents(), seconds


@pytest.mark.parametrize("kill", range(KILLS))
def test_a_forge_that_is_killed_goes_on_with_the_run(unbroken, pictures: Path, tmp_path: Path, kill: int) -> None:
    """Moments spread over the whole run: preparing, caching, steps, copies on the way."""
    contents, seconds = unbroken
    room = Room(tmp_path, pictures)
    with room.forge() as forge:
        run_id = room.start(forge)
        time.sleep(seconds * (kill + 0.5) / KILLS)
    room.contents()
    with room.forge() as forge:
        # The last moments may come after the end.
        if kill < KILLS - 1 or not forge.is_over(run_id):
            forge.ask(f"jobs/{run_id}/resume", {})
            forge.wait(lambda: forge.is_over(run_id))
    assert room.contents() == contents
    assert not list(room.folder.rglob("*.part"))
