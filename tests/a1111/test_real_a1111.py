"""The contract in a real AUTOMATIC1111 stable-diffusion-webui, one process per checkpoint.

`tests/real_webui.py` says which environment variables name it. A checkpoint of SD 1.x needs two residual blocks a level
and none with attention at the lowest: A1111 reads the names in LoRA files that way. It takes no sizes from a file: a
smaller checkpoint, of SDXL too, needs its configuration beside it, as a `.yaml` of the same name.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.real_webui import A1111

pytestmark = A1111.marks


@pytest.mark.parametrize("checkpoint", A1111.checkpoints)
def test_the_contract_holds(checkpoint: str, tmp_path: Path) -> None:
    A1111.run_inside(checkpoint, tmp_path)
