"""The contract in a real stable-diffusion-webui-reForge, one process per checkpoint.

    REFORGE_DIR=… [REFORGE_PYTHON=…] [REFORGE_CHECKPOINTS=a.safetensors,b.safetensors] pytest tests/reforge

`REFORGE_DIR` names the installation, `REFORGE_PYTHON` its interpreter (by default the one in its `venv`; it needs
pytest), `REFORGE_CHECKPOINTS` files in its `models/Stable-diffusion`. The installation itself is not written to.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REFORGE_DIR = os.environ.get("REFORGE_DIR", "")
CHECKPOINTS = os.environ.get("REFORGE_CHECKPOINTS", "sd15-small.safetensors,sdxl-small.safetensors").split(",")
LIMIT_S = 3600

pytestmark = [
    pytest.mark.reforge,
    pytest.mark.skipif(not REFORGE_DIR, reason="REFORGE_DIR names no stable-diffusion-webui-reForge"),
]


def reforge_python() -> str:
    own = Path(REFORGE_DIR, "venv", "Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    return os.environ.get("REFORGE_PYTHON") or str(own)


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_the_contract_holds(checkpoint: str, tmp_path: Path) -> None:
    _inside(checkpoint, tmp_path)


def _inside(checkpoint: str, data_dir: Path) -> None:
    if not Path(REFORGE_DIR, "models", "Stable-diffusion", checkpoint).exists():
        pytest.skip(f"{checkpoint} is not in reForge's models/Stable-diffusion")
    boot = Path(__file__).with_name("inside") / "boot.py"
    command = [reforge_python(), str(boot), REFORGE_DIR, str(data_dir), checkpoint]
    environment = {**os.environ, "TRAIN_LORA_INSIDE_REFORGE": checkpoint, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
