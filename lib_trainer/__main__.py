"""`python -m lib_trainer`: see `lib_trainer.cli`."""

from __future__ import annotations

import sys

from lib_trainer.cli.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
