"""Starts Forge without its page and runs pytest beside it: `boot.py FORGE_DIR DATA_DIR CHECKPOINT …`.

What follows the checkpoint goes to pytest.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> None:
    forge_dir, data_dir, _checkpoint, *options = sys.argv[1:]
    # At the end, behind Forge's own packages.
    sys.path.append(str(HERE.parents[2]))
    import torch

    from tests.forge_process import run_inside

    device = [] if torch.cuda.is_available() else ["--always-cpu"]
    own = ["--ckpt-dir", str(Path(forge_dir, "models", "Stable-diffusion")), *device]
    run_inside(HERE, forge_dir, data_dir, options, own)


if __name__ == "__main__":
    main()
