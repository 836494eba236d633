"""Real WebUIs on this machine, named by environment variables; none of them is written to.

    FORGE_DIR=… [FORGE_PYTHON=…] [FORGE_CHECKPOINTS=a.safetensors,b.safetensors] pytest tests/forge

`FORGE_DIR` names the installation, `FORGE_PYTHON` its interpreter (by default the one in its `venv`; it needs pytest),
`FORGE_CHECKPOINTS` files in its `models/Stable-diffusion`, or in `FORGE_CKPT_DIR`. `FORGE_TRANSFORMERS` names diffusion
transformers there; tiny ones need an extension that takes sizes from the tensors: `FORGE_EXTENSION`, its folder.
`NEO_…`, `REFORGE_…` and `A1111_…` are the same for the others.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

LIMIT_S = 3600


@dataclass(frozen=True)
class Installation:
    """A WebUI on this machine.

    Attributes:
        name: of its tests' package and of their mark; the environment variables begin with it.
        program: what `NAME_DIR` has to name.
        cpu_options: what it is started with on a CPU.
    """

    name: str
    program: str
    cpu_options: Sequence[str]

    def variable(self, ending: str, default: str = "") -> str:
        return os.environ.get(f"{self.name.upper()}_{ending}") or default

    @property
    def folder(self) -> str:
        return self.variable("DIR")

    @property
    def python(self) -> str:
        own = Path(self.folder, "venv", "Scripts/python.exe" if sys.platform == "win32" else "bin/python")
        return self.variable("PYTHON", str(own))

    @property
    def checkpoint_dir(self) -> Path:
        return Path(self.variable("CKPT_DIR", str(Path(self.folder, "models", "Stable-diffusion"))))

    @property
    def checkpoints(self) -> list[str]:
        return self.variable("CHECKPOINTS", "sd15-small.safetensors,sdxl-small.safetensors").split(",")

    @property
    def transformers(self) -> list[str]:
        return [name for name in self.variable("TRANSFORMERS").split(",") if name]

    @property
    def marks(self) -> list[pytest.MarkDecorator]:
        missing = pytest.mark.skipif(not self.folder, reason=f"{self.name.upper()}_DIR names no {self.program}")
        return [getattr(pytest.mark, self.name), missing]

    def checkpoint(self, name: str) -> Path:
        """Skips the test where there is no such file."""
        path = self.checkpoint_dir / name
        if not path.is_file():
            pytest.skip(f"{name} is not in {self.checkpoint_dir}")
        return path

    def run_inside(self, checkpoint: str, data_dir: Path, *options: str) -> None:
        """Runs `tests/NAME/inside` in the WebUI itself; what it writes goes to `data_dir`, `options` go to pytest."""
        self.checkpoint(checkpoint)
        if self.variable("EXTENSION") and checkpoint in self.transformers:
            extension = Path(self.variable("EXTENSION"))
            shutil.copytree(extension, data_dir / "extensions" / extension.name)
        boot = Path(__file__).parent / self.name / "inside" / "boot.py"
        command = [self.python, str(boot), self.folder, str(data_dir), checkpoint, *options]
        inside = {f"TRAIN_LORA_INSIDE_{self.name.upper()}": checkpoint, "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(
            command, env={**os.environ, **inside}, capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
        assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


FORGE = Installation("forge", "stable-diffusion-webui-forge", ("--always-cpu",))
NEO = Installation("neo", "stable-diffusion-webui-forge-neo", ("--cpu",))
_WITHOUT_HALVES = ("--use-cpu", "all", "--no-half")
REFORGE = Installation("reforge", "stable-diffusion-webui-reForge", ("--always-cpu", *_WITHOUT_HALVES))
A1111 = Installation("a1111", "AUTOMATIC1111 stable-diffusion-webui", _WITHOUT_HALVES)
