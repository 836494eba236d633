"""The contract in a real stable-diffusion-webui-forge-neo, one process per checkpoint.

    NEO_DIR=… [NEO_PYTHON=…] [NEO_CHECKPOINTS=a.safetensors,b.safetensors] pytest tests/neo

`NEO_DIR` names the installation, `NEO_PYTHON` its interpreter (by default the one in its `venv`; it needs pytest),
`NEO_CHECKPOINTS` files in its `models/Stable-diffusion`. The installation itself is not written to.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

NEO_DIR = os.environ.get("NEO_DIR", "")
CHECKPOINTS = os.environ.get("NEO_CHECKPOINTS", "sd15-small.safetensors,sdxl-small.safetensors").split(",")
# Diffusion transformers. Tiny ones need an extension that takes sizes from the tensors: its folder.
TRANSFORMERS = [name for name in os.environ.get("NEO_TRANSFORMERS", "").split(",") if name]
EXTENSION = os.environ.get("NEO_EXTENSION", "")
LIMIT_S = 3600

pytestmark = [
    pytest.mark.neo,
    pytest.mark.skipif(not NEO_DIR, reason="NEO_DIR names no stable-diffusion-webui-forge-neo"),
]


def neo_python() -> str:
    own = Path(NEO_DIR, "venv", "Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    return os.environ.get("NEO_PYTHON") or str(own)


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_the_contract_holds(checkpoint: str, tmp_path: Path) -> None:
    _inside(checkpoint, tmp_path, "-k", "not TestTransformers")


@pytest.mark.parametrize("checkpoint", TRANSFORMERS)
def test_the_contract_of_transformers_holds(checkpoint: str, tmp_path: Path) -> None:
    if EXTENSION:
        shutil.copytree(EXTENSION, tmp_path / "extensions" / Path(EXTENSION).name)
    _inside(checkpoint, tmp_path, "-k", "TestTransformers")


def _inside(checkpoint: str, data_dir: Path, *options: str) -> None:
    if not Path(NEO_DIR, "models", "Stable-diffusion", checkpoint).exists():
        pytest.skip(f"{checkpoint} is not in Neo's models/Stable-diffusion")
    boot = Path(__file__).with_name("inside") / "boot.py"
    command = [neo_python(), str(boot), NEO_DIR, str(data_dir), checkpoint, *options]
    environment = {**os.environ, "TRAIN_LORA_INSIDE_NEO": checkpoint, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
