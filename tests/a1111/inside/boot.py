"""Starts A1111 without its page and runs pytest in it: `boot.py A1111_DIR DATA_DIR CHECKPOINT …`.

What follows the checkpoint goes to pytest. A1111 generates on whichever thread asks, so pytest has the main one.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> None:
    a1111_dir, data_dir, _checkpoint, *options = sys.argv[1:]
    repository = HERE.parents[2]
    os.chdir(a1111_dir)
    sys.path[0] = a1111_dir
    sys.path.append(str(repository))
    checkpoints = os.environ.get("A1111_CKPT_DIR") or str(Path(a1111_dir, "models", "Stable-diffusion"))
    # The checkpoints stay where they are; all that A1111 writes goes to data_dir.
    sys.argv = ["launch.py", "--nowebui", "--skip-prepare-environment", "--skip-version-check", "--data-dir", data_dir]
    sys.argv += ["--skip-torch-cuda-test", "--skip-load-model-at-start", "--ckpt-dir", checkpoints]
    import torch

    if not torch.cuda.is_available():
        sys.argv += ["--use-cpu", "all", "--no-half"]
    import webui  # noqa: F401 - importing it imports all of A1111 in the order that it needs
    from modules import initialize, script_callbacks

    initialize.initialize()
    # The built-in Lora extension makes `<lora:…>` known here.
    script_callbacks.before_ui_callback()
    import pytest

    code = pytest.main([str(HERE), f"--rootdir={repository}", "-p", "no:cacheprovider", "-rs", *options])
    sys.stdout.flush()
    sys.stderr.flush()
    # A1111 keeps threads that never end by themselves.
    os._exit(int(code))


if __name__ == "__main__":
    main()
