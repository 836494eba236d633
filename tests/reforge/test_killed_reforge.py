"""reForge itself, killed while it trains, started again and told over REST to go on.

REFORGE_DIR=… [REFORGE_PYTHON=…] [TRAIN_LORA_KILLS=20] pytest tests/reforge/test_killed_reforge.py
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.killed_webui import Installation, Killed
from tests.reforge.test_real_reforge import CHECKPOINTS, REFORGE_DIR, reforge_python

CHECKPOINT = Path(REFORGE_DIR, "models", "Stable-diffusion", CHECKPOINTS[0])

pytestmark = [
    pytest.mark.reforge,
    pytest.mark.skipif(not REFORGE_DIR, reason="REFORGE_DIR names no stable-diffusion-webui-reForge"),
    pytest.mark.skipif(not CHECKPOINT.is_file(), reason=f"there is no {CHECKPOINT}"),
]


@pytest.fixture(scope="module")
def installation() -> Installation:
    return Installation(REFORGE_DIR, reforge_python(), CHECKPOINT, ("--always-cpu", "--use-cpu", "all", "--no-half"))


class TestKilled(Killed):
    pass
