"""A1111 itself, killed while it trains, started again and told over REST to go on.

A1111_DIR=… [A1111_PYTHON=…] [TRAIN_LORA_KILLS=20] pytest tests/a1111/test_killed_a1111.py
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.a1111.test_real_a1111 import A1111_DIR, CHECKPOINTS, CKPT_DIR, a1111_python
from tests.killed_webui import Installation, Killed

CHECKPOINT = Path(CKPT_DIR, CHECKPOINTS[0])

pytestmark = [
    pytest.mark.a1111,
    pytest.mark.skipif(not A1111_DIR, reason="A1111_DIR names no AUTOMATIC1111 stable-diffusion-webui"),
    pytest.mark.skipif(not CHECKPOINT.is_file(), reason=f"there is no {CHECKPOINT}"),
]


@pytest.fixture(scope="module")
def installation() -> Installation:
    return Installation(A1111_DIR, a1111_python(), CHECKPOINT, ("--use-cpu", "all", "--no-half"))


class TestKilled(Killed):
    pass
