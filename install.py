"""Run by the WebUI before it starts: adds the packages this extension needs, and changes nothing that is there.

Every package is installed without its dependencies, and every installed package is held at its version, so that the
WebUI's own torch, gradio, numpy … stay what they are. A package that fails gets one sentence, and the WebUI starts.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lib_trainer.packages import PACKAGES, Package

TIMEOUT_S = 900
# lycoris-lora 4.x calls torch.library.custom_op, which came with torch 2.4; bitsandbytes 0.46 and later want it too.
FIRST_TORCH_OF_TODAY = (2, 4)
LYCORIS_FOR_OLD_TORCH, LYCORIS_OF_TODAY = "3.4.0", "4.1.3"
BITSANDBYTES_FOR_OLD_TORCH, BITSANDBYTES_OF_TODAY = "0.45.3", "0.50.2"
# It needs nothing but torch and numpy, and imports on torch 2.3.1 with Python 3.10 as on today's.
PYTORCH_OPTIMIZER = "4.1.0"


@dataclass(frozen=True)
class Wanted:
    """One package to add. `version`: the release that this environment can use; "" for any."""

    package: Package
    version: str = ""

    @property
    def requirement(self) -> str:
        return f"{self.package.name}=={self.version}" if self.version else self.package.name


def installed() -> dict[str, str]:
    """Normalised name -> version of every distribution of this environment."""
    importlib.invalidate_caches()
    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"]
        if name:
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), distribution.version)
    return found


def release(version: str) -> tuple[int, int]:
    """ "2.3.1+cu121" -> (2, 3)."""
    major, minor, *_ = [*re.findall(r"\d+", version), 0, 0]
    return int(major), int(minor)


def host_bitsandbytes(search_path: list[str]) -> str:
    """The bitsandbytes release that Forge itself would install; "" when the host names none."""
    for folder in search_path:
        installer = Path(folder or ".") / "modules_forge" / "bnb_installer.py"
        if installer.is_file():
            match = re.search(r"target_bitsandbytes_version\s*=\s*['\"]([\w.]+)['\"]", installer.read_text("utf-8"))
            return match.group(1) if match else ""
    return ""


def wanted(have: dict[str, str], search_path: list[str]) -> list[Wanted]:
    """What is missing here, in the releases that the torch of this environment can use. No torch: nothing."""
    if "torch" not in have:
        return []
    old = release(have["torch"]) < FIRST_TORCH_OF_TODAY
    versions = {
        "lycoris-lora": LYCORIS_FOR_OLD_TORCH if old else LYCORIS_OF_TODAY,
        # Forge installs its own release when an nf4 checkpoint is loaded, and would replace another.
        "bitsandbytes": host_bitsandbytes(search_path)
        or (BITSANDBYTES_FOR_OLD_TORCH if old else BITSANDBYTES_OF_TODAY),
        "pytorch-optimizer": PYTORCH_OPTIMIZER,
    }
    missing = [package for package in PACKAGES if package.name not in have and not package.comes_along]
    # The only installed package that is ever replaced: LyCORIS 4 on an old torch cannot be imported at all.
    missing += [p for p in PACKAGES if p.name == "lycoris-lora" and old and release(have.get(p.name, "")) >= (4, 0)]
    return [Wanted(package, versions.get(package.name, "")) for package in missing]


def pip_install(requirement: str, constraints: Path) -> str:
    """Installs one package without dependencies from the index the user has set. Returns "" or what went wrong."""
    if importlib.util.find_spec("pip"):
        command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--retries", "1"]
        command.append("--prefer-binary")
    elif shutil.which("uv"):
        command = ["uv", "pip", "install", "--python", sys.executable]
    else:
        return "neither pip nor uv is installed"
    command += ["--no-deps", "--constraint", str(constraints), requirement]
    # The WebUIs' own variable for a mirror.
    if os.environ.get("INDEX_URL"):
        command += ["--index-url", os.environ["INDEX_URL"]]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return f"no answer within {TIMEOUT_S // 60} minutes"
    except OSError as error:
        return str(error)
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")] or lines
    return "" if done.returncode == 0 else (errors[-1] if errors else f"pip ended with {done.returncode}")


def add(items: list[Wanted], have: dict[str, str], pip: Callable[[str, Path], str]) -> list[str]:
    """Installs `items` one by one; one that fails does not stop the others. Returns a sentence each."""
    said = []
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        for item in items:
            held = {name: version for name, version in have.items() if name != item.package.name}
            constraints.write_text("".join(f"{n}=={v}\n" for n, v in sorted(held.items())), "utf-8")
            problem = pip(item.requirement, constraints)
            said.append(
                f"{item.requirement} could not be installed ({problem}). {item.package.without_it}"
                if problem
                else f"installed {item.requirement}."
            )
    return said


def unasked_changes(before: dict[str, str], after: dict[str, str], items: list[Wanted]) -> list[str]:
    """A sentence for every package that changed without being asked for, and how to restore it."""
    asked = {item.package.name for item in items}
    return [
        f"{name} is now {after.get(name, 'gone')} and was {before.get(name, 'not there')}; "
        + (f"put it back with: pip install {name}=={before[name]}" if name in before else f"pip uninstall {name}")
        for name in sorted(before.keys() | after.keys())
        if name not in asked and before.get(name) != after.get(name)
    ]


def main(pip: Callable[[str, Path], str] = pip_install) -> None:
    """Prints a line for each change; silent if nothing is missing."""
    before = installed()
    if "torch" not in before:
        print("Train LoRA: PyTorch is not installed here, so no packages could be chosen; nothing was installed.")
        return
    items = wanted(before, sys.path)
    if not items:
        return
    for sentence in [*add(items, before, pip), *unasked_changes(before, installed(), items)]:
        print(f"Train LoRA: {sentence}")


if __name__ == "__main__":
    try:
        main()
    except Exception as error:  # noqa: BLE001 - the WebUI must start whatever happens, and the tab names what is missing
        print(f"Train LoRA: its packages could not be checked ({type(error).__name__}: {error}).")
