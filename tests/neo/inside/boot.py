"""Starts Forge Neo without its page and runs pytest beside it: `boot.py NEO_DIR DATA_DIR CHECKPOINT …`.

What follows the checkpoint goes to pytest.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> None:
    neo_dir, data_dir, _checkpoint, *options = sys.argv[1:]
    # At the end, behind Neo's own packages.
    sys.path.append(str(HERE.parents[2]))
    import torch

    from tests.forge_process import run_inside

    device = [] if torch.cuda.is_available() else ["--cpu"]
    own = ["--ckpt-dirs", str(Path(neo_dir, "models", "Stable-diffusion")), *device]
    run_inside(HERE, neo_dir, data_dir, options, own)


if __name__ == "__main__":
    main()
