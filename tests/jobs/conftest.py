from __future__ import annotations

import pytest

from tests.ui.fakes import FakeHost


@pytest.fixture
def host(tmp_path):
    return FakeHost(tmp_path)
