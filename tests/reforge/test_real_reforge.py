"""The contract in a real stable-diffusion-webui-reForge, one process per checkpoint.

`tests/real_webui.py` says which environment variables name it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.real_webui import REFORGE

pytestmark = REFORGE.marks


@pytest.mark.parametrize("checkpoint", REFORGE.checkpoints)
def test_the_contract_holds(checkpoint: str, tmp_path: Path) -> None:
    REFORGE.run_inside(checkpoint, tmp_path)
