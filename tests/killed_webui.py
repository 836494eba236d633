"""A WebUI that is killed while it trains, started again and told over REST to go on; the same for every WebUI.

`TRAIN_LORA_KILLS=20` kills it at twenty moments.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.killing import make_pictures
from tests.real_webui import Installation
from tests.webui_process import DataFolder

KILLS, STEPS = int(os.environ.get("TRAIN_LORA_KILLS", "3")), 8
SETTINGS = {
    "output_name": "jeff", "network_dim": 4, "conv_dim": 0, "factor": 4, "max_train_steps": STEPS,
    "resolution_px": "64,64", "min_bucket_reso": 64, "gradient_accumulation_steps": 2, "save_every_n_steps": 2,
    "save_last_n_steps": 1, "resume_every_minutes": 1e-6, "optimizer": "AdamW",
}  # fmt: skip


class Killed:
    """`Test…` classes derive from it."""

    installation: Installation

    @pytest.fixture(scope="class")
    def pictures(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return make_pictures(tmp_path_factory.mktemp("pictures"))

    @pytest.fixture(scope="class")
    def unbroken(self, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], float]:
        """What a run leaves that was never broken, and how many seconds it took."""
        data = DataFolder(self.installation, tmp_path_factory.mktemp("unbroken"), pictures)
        with data.webui() as webui:
            started, run_id = time.monotonic(), data.start(webui, SETTINGS)
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
        data = DataFolder(self.installation, tmp_path, pictures)
        with data.webui() as webui:
            run_id = data.start(webui, SETTINGS)
            time.sleep(seconds * (kill + 0.5) / KILLS)
        data.contents()
        with data.webui() as webui:
            # The last moments may come after the end.
            if kill < KILLS - 1 or not webui.is_over(run_id):
                webui.ask(f"jobs/{run_id}/resume", {})
                webui.wait(lambda: webui.is_over(run_id))
        assert data.contents() == contents
        assert not list(data.folder.rglob("*.part"))
