"""What a WebUI runs at its start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))

# As A1111 runs it: the extension's folder is on the path for the file alone.
AS_THE_WEBUI_DOES = """
import runpy, sys, types
sys.modules["modules"] = modules = types.ModuleType("modules")
modules.scripts = types.SimpleNamespace(Script=object)
modules.script_callbacks = types.SimpleNamespace(on_ui_tabs=lambda _: None, on_app_started=lambda _: None)
before = list(sys.path)
sys.path.insert(0, sys.argv[2])
runpy.run_path(sys.argv[1])
sys.path[:] = before
import lib_trainer.errors
print(sorted(name for name in sys.modules if name.startswith("lib_trainer")))
"""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_the_package_is_found_after_its_folder_left_the_path_and_nothing_else_is_loaded(script: Path) -> None:
    # Without site-packages, where this package may be installed as well.
    command = [sys.executable, "-I", "-S", "-c", AS_THE_WEBUI_DOES, str(script), str(ROOT)]
    done = subprocess.run(command, cwd=ROOT.parent, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "['lib_trainer', 'lib_trainer.errors']", done.stderr
