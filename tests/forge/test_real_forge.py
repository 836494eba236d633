"""The contract in a real stable-diffusion-webui-forge, one process per checkpoint.

`tests/real_webui.py` says which environment variables name it. `sd15.safetensors` is looked for as well.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.real_webui import FORGE

pytestmark = FORGE.marks


@pytest.mark.parametrize("checkpoint", FORGE.checkpoints)
def test_the_contract_holds(checkpoint: str, tmp_path: Path) -> None:
    FORGE.run_inside(checkpoint, tmp_path, "-k", "not TestTransformers")


@pytest.mark.parametrize("checkpoint", FORGE.transformers)
def test_the_contract_of_transformers_holds(checkpoint: str, tmp_path: Path) -> None:
    FORGE.run_inside(checkpoint, tmp_path, "-k", "TestTransformers")


def test_full_size_sd15(tmp_path: Path) -> None:
    FORGE.run_inside("sd15.safetensors", tmp_path, "-k", "full_size")
