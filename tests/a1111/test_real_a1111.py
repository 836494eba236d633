"""The contract in a real AUTOMATIC1111 stable-diffusion-webui, one process per checkpoint.

    A1111_DIR=… [A1111_PYTHON=…] [A1111_CKPT_DIR=…] [A1111_CHECKPOINTS=a.safetensors,b.safetensors] pytest tests/a1111

`A1111_DIR` names the installation, `A1111_PYTHON` its interpreter (by default the one in its `venv`; it needs pytest),
`A1111_CHECKPOINTS` files in `A1111_CKPT_DIR` (by default its `models/Stable-diffusion`). A checkpoint of SD 1.x needs
two residual blocks a level and none with attention at the lowest: A1111 reads the names in LoRA files that way. The
installation itself is not written to.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

A1111_DIR = os.environ.get("A1111_DIR", "")
CKPT_DIR = os.environ.get("A1111_CKPT_DIR") or str(Path(A1111_DIR, "models", "Stable-diffusion"))
CHECKPOINTS = os.environ.get("A1111_CHECKPOINTS", "sd15-small.safetensors,sdxl-small.safetensors").split(",")
LIMIT_S = 3600

pytestmark = [
    pytest.mark.a1111,
    pytest.mark.skipif(not A1111_DIR, reason="A1111_DIR names no AUTOMATIC1111 stable-diffusion-webui"),
]


def a1111_python() -> str:
    own = Path(A1111_DIR, "venv", "Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    return os.environ.get("A1111_PYTHON") or str(own)


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_the_contract_holds(checkpoint: str, tmp_path: Path) -> None:
    if not Path(CKPT_DIR, checkpoint).exists():
        pytest.skip(f"{checkpoint} is not in {CKPT_DIR}")
    boot = Path(__file__).with_name("inside") / "boot.py"
    command = [a1111_python(), str(boot), A1111_DIR, str(tmp_path)]
    environment = {**os.environ, "TRAIN_LORA_INSIDE_A1111": checkpoint, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
