"""The tiny model in the place of the embedded one."""

from tests.cli.conftest import embedded, weights

__all__ = ["embedded", "weights"]
