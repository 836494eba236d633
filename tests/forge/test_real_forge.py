"""The contract in a real stable-diffusion-webui-forge, one process per checkpoint.

    FORGE_DIR=… [FORGE_PYTHON=…] [FORGE_CHECKPOINTS=a.safetensors,b.safetensors] pytest tests/forge

`FORGE_DIR` names the installation, `FORGE_PYTHON` its interpreter (by default the one in its `venv`; it needs pytest),
`FORGE_CHECKPOINTS` files in its `models/Stable-diffusion`, where `sd15.safetensors` is looked for as well. The
installation itself is not written to.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FORGE_DIR = os.environ.get("FORGE_DIR", "")
CHECKPOINTS = os.environ.get("FORGE_CHECKPOINTS", "sd15-small.safetensors,sdxl-small.safetensors").split(",")
# Diffusion transformers. Tiny ones need an extension that takes sizes from the tensors: its folder.
TRANSFORMERS = [name for name in os.environ.get("FORGE_TRANSFORMERS", "").split(",") if name]
EXTENSION = os.environ.get("FORGE_EXTENSION", "")
LIMIT_S = 3600

pytestmark = [
    pytest.mark.forge,
    pytest.mark.skipif(not FORGE_DIR, reason="FORGE_DIR names no stable-diffusion-webui-forge"),
]


def forge_python() -> str:
    own = Path(FORGE_DIR, "venv", "Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    return os.environ.get("FORGE_PYTHON") or str(own)


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_the_contract_holds(checkpoint: str, tmp_path: Path) -> None:
    _inside(checkpoint, tmp_path, "-k", "not TestTransformers")


@pytest.mark.parametrize("checkpoint", TRANSFORMERS)
def test_the_contract_of_transformers_holds(checkpoint: str, tmp_path: Path) -> None:
    if EXTENSION:
        shutil.copytree(EXTENSION, tmp_path / "extensions" / Path(EXTENSION).name)
    _inside(checkpoint, tmp_path, "-k", "TestTransformers")


def test_full_size_sd15(tmp_path: Path) -> None:
    _inside("sd15.safetensors", tmp_path, "-k", "full_size")


def _inside(checkpoint: str, data_dir: Path, *options: str) -> None:
    if not Path(FORGE_DIR, "models", "Stable-diffusion", checkpoint).exists():
        pytest.skip(f"{checkpoint} is not in Forge's models/Stable-diffusion")
    boot = Path(__file__).with_name("inside") / "boot.py"
    command = [forge_python(), str(boot), FORGE_DIR, str(data_dir), checkpoint, *options]
    environment = {**os.environ, "TRAIN_LORA_INSIDE_FORGE": checkpoint, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
