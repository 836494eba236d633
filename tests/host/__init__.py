"""What hosts must do. `contract_*.py` hold tests that several hosts share, so their asserts explain themselves too."""

import pytest

_SHARED = (
    "families",
    "forge",
    "grids",
    "lock",
    "loras",
    "memory",
    "model",
    "neo",
    "open_model",
    "runs",
    "watching",
    "webui_grids",
)
pytest.register_assert_rewrite(*(f"tests.host.contract_{name}" for name in _SHARED))
