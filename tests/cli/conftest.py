"""A tiny random model in the place of the embedded one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from lib_trainer.host.standalone import host as standalone
from tests.cli.tiny_demo import write_weights


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> Path:
    return write_weights(tmp_path_factory.mktemp("tiny") / "weights")


@pytest.fixture
def embedded(weights, monkeypatch) -> Path:
    monkeypatch.setattr(standalone, "WEIGHTS", weights)
    return weights


@pytest.fixture
def pictures(tmp_path) -> Path:
    folder = tmp_path / "pictures" / "2_jeff"
    folder.mkdir(parents=True)
    for number in range(3):
        Image.new("RGB", (64, 64), (60 * number, 90, 200)).save(folder / f"{number}.png")
    return folder.parent


@pytest.fixture
def last_json(capsys) -> Callable[[], dict]:
    """The last line of stdout, which must be the only JSON there."""

    def read() -> dict:
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 1
        return json.loads(lines[0])

    return read
