"""Starts a WebUI of the Forge family without its page and runs pytest beside it.

It generates on the main thread, so pytest gets another.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
_OPTIONS = ("--nowebui", "--skip-prepare-environment", "--skip-version-check", "--skip-torch-cuda-test", "--data-dir")


def run_inside(tests: Path, webui_dir: str, data_dir: str, options: list[str], own_options: list[str]) -> None:
    """Never returns: the process ends with pytest's exit code.

    Args:
        tests: folder of the tests.
        data_dir: all that the WebUI writes goes there.
        options: for pytest.
        own_options: for the WebUI, besides those that all of the family take.
    """
    os.chdir(webui_dir)
    sys.path[0] = webui_dir
    sys.argv = ["launch.py", *_OPTIONS, data_dir, *own_options]
    import webui  # noqa: F401 - importing it starts the WebUI up to its page
    from modules import script_callbacks
    from modules_forge import main_thread

    # The built-in Lora extension makes `<lora:…>` known here.
    script_callbacks.before_ui_callback()
    threading.Thread(target=_run_pytest, args=(tests, options)).start()
    main_thread.loop()


def _run_pytest(tests: Path, options: list[str]) -> None:
    code = 1
    try:
        import pytest

        code = int(pytest.main([str(tests), f"--rootdir={REPOSITORY}", "-p", "no:cacheprovider", "-rs", *options]))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # The generation loop never ends by itself.
        os._exit(code)
