"""The contract in a real stable-diffusion-webui-forge-neo, one process per checkpoint.

`tests/real_webui.py` says which environment variables name it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.real_webui import NEO

pytestmark = NEO.marks


@pytest.mark.parametrize("checkpoint", NEO.checkpoints)
def test_the_contract_holds(checkpoint: str, tmp_path: Path) -> None:
    NEO.run_inside(checkpoint, tmp_path, "-k", "not TestTransformers")


@pytest.mark.parametrize("checkpoint", NEO.transformers)
def test_the_contract_of_transformers_holds(checkpoint: str, tmp_path: Path) -> None:
    NEO.run_inside(checkpoint, tmp_path, "-k", "TestTransformers")
