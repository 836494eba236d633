"""Forge Neo itself, killed while it trains, started again and told over REST to go on.

NEO_DIR=… [NEO_PYTHON=…] [TRAIN_LORA_KILLS=20] pytest tests/neo/test_killed_neo.py
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.killed_webui import Installation, Killed
from tests.neo.test_real_neo import CHECKPOINTS, NEO_DIR, neo_python

CHECKPOINT = Path(NEO_DIR, "models", "Stable-diffusion", CHECKPOINTS[0])

pytestmark = [
    pytest.mark.neo,
    pytest.mark.skipif(not NEO_DIR, reason="NEO_DIR names no stable-diffusion-webui-forge-neo"),
    pytest.mark.skipif(not CHECKPOINT.is_file(), reason=f"there is no {CHECKPOINT}"),
]


@pytest.fixture(scope="module")
def installation() -> Installation:
    return Installation(NEO_DIR, neo_python(), CHECKPOINT, ("--cpu",))


class TestKilled(Killed):
    pass
