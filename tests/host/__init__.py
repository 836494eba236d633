"""What hosts must do. `contract_*.py` hold tests that several hosts share, so their asserts explain themselves too."""

import pytest

_SHARED = ("borrowing", "forge", "grids", "loras", "model", "runs", "turns", "watching")
pytest.register_assert_rewrite(*(f"tests.host.contract_{name}" for name in _SHARED))
