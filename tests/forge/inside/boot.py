"""Starts Forge without its page and runs pytest beside it: `boot.py FORGE_DIR DATA_DIR CHECKPOINT …`.

Forge generates on the main thread, so pytest gets another. What follows the checkpoint goes to pytest.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> None:
    forge_dir, data_dir, _checkpoint, *options = sys.argv[1:]
    repository = HERE.parents[2]
    os.chdir(forge_dir)
    sys.path[0] = forge_dir
    sys.path.append(str(repository))
    checkpoints = str(Path(forge_dir, "models", "Stable-diffusion"))
    # The checkpoints stay where they are; all that Forge writes goes to data_dir.
    sys.argv = ["launch.py", "--nowebui", "--skip-prepare-environment", "--skip-version-check", "--data-dir", data_dir]
    sys.argv += ["--skip-torch-cuda-test", "--ckpt-dir", checkpoints]
    import torch

    if not torch.cuda.is_available():
        sys.argv.append("--always-cpu")
    import webui  # noqa: F401 - importing it starts Forge up to its page
    from modules import script_callbacks
    from modules_forge import main_thread

    # The built-in Lora extension makes `<lora:…>` known here.
    script_callbacks.before_ui_callback()
    threading.Thread(target=_run_pytest, args=(repository, options)).start()
    main_thread.loop()


def _run_pytest(repository: Path, options: list[str]) -> None:
    code = 1
    try:
        import pytest

        code = int(pytest.main([str(HERE), f"--rootdir={repository}", "-p", "no:cacheprovider", "-rs", *options]))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # The generation loop never ends by itself.
        os._exit(code)


if __name__ == "__main__":
    main()
