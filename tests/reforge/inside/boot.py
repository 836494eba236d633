"""Starts reForge without its page and runs pytest beside it: `boot.py REFORGE_DIR DATA_DIR CHECKPOINT …`.

What follows the checkpoint goes to pytest.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> None:
    reforge_dir, data_dir, checkpoint, *options = sys.argv[1:]
    # At the end, behind reForge's own packages.
    sys.path.append(str(HERE.parents[2]))
    import torch

    from tests.forge_process import run_inside

    folder = Path(reforge_dir, "models", "Stable-diffusion")
    # What is loaded in eight bits has to have a name of its own.
    second = Path(data_dir, "models", "Stable-diffusion", f"eight-bits-{checkpoint}")
    second.parent.mkdir(parents=True, exist_ok=True)
    second.symlink_to((folder / checkpoint).resolve())
    own = ["--skip-load-model-at-start", "--ckpt-dir", str(folder)]
    if not torch.cuda.is_available():
        own += ["--always-cpu", "--use-cpu", "all", "--no-half"]
    run_inside(HERE, reforge_dir, data_dir, options, own)


if __name__ == "__main__":
    main()
