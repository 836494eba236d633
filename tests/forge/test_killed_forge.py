"""Forge itself, killed while it trains, started again and told over REST to go on.

FORGE_DIR=… [FORGE_PYTHON=…] [TRAIN_LORA_KILLS=20] pytest tests/forge/test_killed_forge.py
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.forge.test_real_forge import CHECKPOINTS, FORGE_DIR, forge_python
from tests.killed_webui import Installation, Killed

CHECKPOINT = Path(FORGE_DIR, "models", "Stable-diffusion", CHECKPOINTS[0])

pytestmark = [
    pytest.mark.forge,
    pytest.mark.skipif(not FORGE_DIR, reason="FORGE_DIR names no stable-diffusion-webui-forge"),
    pytest.mark.skipif(not CHECKPOINT.is_file(), reason=f"there is no {CHECKPOINT}"),
]


@pytest.fixture(scope="module")
def installation() -> Installation:
    return Installation(FORGE_DIR, forge_python(), CHECKPOINT, ("--always-cpu",))


class TestKilled(Killed):
    pass
