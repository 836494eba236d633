"""How soon a run takes its first step in a started WebUI, on cached data; the same for every WebUI."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from benchmarks.report import say
from tests.killing import make_pictures
from tests.real_webui import Installation
from tests.webui_process import PATIENCE_S, DataFolder, WebuiProcess

LIMIT_S = 5.0
# Cheap steps: what comes before the first is measured.
SETTINGS = {
    "output_name": "jeff", "resolution_px": "256,256", "min_bucket_reso": 64, "mixed_precision": "fp32",
    "max_train_steps": 40,
}  # fmt: skip


class FirstStep:
    """`Test…` classes derive from it."""

    installation: Installation

    @pytest.mark.parametrize("preset", ["loha_face_config_8gb", "lokr_style_config_8gb"])
    def test_it_comes_soon_on_cached_data(
        self, preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """In seconds of the WebUI's own process on one thread: what it takes by the clock where nothing else runs."""
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        (tmp_path / "made").mkdir()
        data = DataFolder(self.installation, tmp_path, make_pictures(tmp_path / "made"))
        for started in ("with pictures to encode", "with all of them encoded"):
            with data.webui() as webui:
                # The checkpoint is loaded, as it is for whoever has drawn with it.
                webui.ask_webui("sdapi/v1/txt2img", {"prompt": "", "steps": 1, "width": 64, "height": 64}, PATIENCE_S)
                own, clock = first_step(webui, data, preset)
            with capsys.disabled():
                say(f"\n{preset}, started {started}: first step after {own:.1f} s of its own, {clock:.1f} by the clock")
        assert own < LIMIT_S


def first_step(webui: WebuiProcess, data: DataFolder, preset: str) -> tuple[float, float]:
    """Seconds from Train to the first step: of the process's own time, and by the clock. Stops the run."""
    own, clock = webui.cpu_seconds(), time.monotonic()
    run_id = data.start(webui, SETTINGS, preset)
    # Seldom: answering takes time of the process too.
    webui.wait(lambda: webui.ask("status")["step"] >= 1)
    taken = webui.cpu_seconds() - own, time.monotonic() - clock
    webui.ask(f"jobs/{run_id}/stop", {"save": False})
    return taken
