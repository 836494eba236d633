"""What the installer would add to an environment, with a pip that only writes down what it is asked."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
FORGE = {"torch": "2.3.1+cu121", "numpy": "1.26.2", "gradio": "4.40.0", "einops": "0.4.1", "tqdm": "4.66.1"}
TODAY = {"torch": "2.13.0", "numpy": "2.4.6", "einops": "0.8.2", "tqdm": "4.70.1"}


@pytest.fixture(scope="module")
def install() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_lora_install", ROOT / "install.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class Pip:
    """Writes down requirement and constraints; `broken` packages do not exist."""

    def __init__(self, *broken: str) -> None:
        self.asked: list[str] = []
        self.held: dict[str, set[str]] = {}
        self.broken = broken

    def __call__(self, requirement: str, constraints: Path) -> str:
        self.asked.append(requirement)
        self.held[requirement] = set(constraints.read_text("utf-8").split())
        return "no such release" if requirement.startswith(self.broken) else ""


OPTIMIZERS = ("prodigyopt", "pytorch-optimizer==4.1.0")
NEW = {"pytorch-optimizer": "4.1.0"}


def requirements(install: ModuleType, have: dict[str, str], path: list[str] | None = None) -> list[str]:
    return [item.requirement for item in install.wanted(have, path or [])]


def test_an_old_torch_gets_releases_that_it_can_import(install: ModuleType) -> None:
    assert requirements(install, FORGE) == [
        "toml",
        "lycoris-lora==3.4.0",
        "bitsandbytes==0.45.3",
        "prodigyopt",
        "pytorch-optimizer==4.1.0",
    ]


def test_a_torch_of_today_gets_releases_of_today(install: ModuleType) -> None:
    assert requirements(install, TODAY) == [
        "toml",
        "lycoris-lora==4.1.3",
        "bitsandbytes==0.50.2",
        "prodigyopt",
        "pytorch-optimizer==4.1.0",
    ]


@pytest.mark.parametrize(("torch", "old"), [("2.3.1", True), ("2.4.0+cu124", False), ("2.13.0", False), ("1.13", True)])
def test_the_border_lies_at_torch_2_4(install: ModuleType, torch: str, old: bool) -> None:
    assert ("lycoris-lora==3.4.0" in requirements(install, {"torch": torch})) is old


def test_nothing_is_missing(install: ModuleType) -> None:
    have = {**FORGE, "toml": "0.10", "lycoris-lora": "3.4.0", "bitsandbytes": "0.45.3", "prodigyopt": "1.1.2", **NEW}
    assert requirements(install, have) == []


def test_what_is_installed_stays_in_its_release(install: ModuleType) -> None:
    have = {**TODAY, "toml": "0.9", "lycoris-lora": "3.2.0", "bitsandbytes": "0.46.0", "prodigyopt": "1.0", **NEW}
    assert requirements(install, have) == []


def test_a_lycoris_that_cannot_be_imported_is_replaced(install: ModuleType) -> None:
    have = {**FORGE, "toml": "0.10", "lycoris-lora": "4.1.3", "bitsandbytes": "0.45.3", "prodigyopt": "1.1.2", **NEW}
    assert requirements(install, have) == ["lycoris-lora==3.4.0"]


def test_bitsandbytes_in_the_release_that_the_host_would_take(install: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "modules_forge").mkdir()
    (tmp_path / "modules_forge" / "bnb_installer.py").write_text("target_bitsandbytes_version = '0.49.1'\n")
    assert "bitsandbytes==0.49.1" in requirements(install, FORGE, [str(tmp_path)])


def test_every_other_package_is_held_at_its_version(install: ModuleType) -> None:
    pip = Pip()
    install.add(install.wanted(FORGE, []), FORGE, pip)
    for requirement in pip.asked:
        assert {f"{name}=={version}" for name, version in FORGE.items()} <= pip.held[requirement]


def test_one_that_fails_does_not_stop_the_others(install: ModuleType) -> None:
    pip = Pip("bitsandbytes")
    said = install.add(install.wanted(FORGE, []), FORGE, pip)
    assert pip.asked[-2] == "prodigyopt" and said[-2] == "installed prodigyopt."
    assert said[2].startswith("bitsandbytes==0.45.3 could not be installed (no such release). AdamW replaces")


def test_the_command_asks_for_no_dependencies(
    install: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commands = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 1, "", "WARNING: old\nERROR: no matching distribution\n")

    monkeypatch.setattr(install.subprocess, "run", run)
    monkeypatch.setenv("INDEX_URL", "https://mirror.example/simple")
    assert install.pip_install("toml", tmp_path / "held.txt") == "ERROR: no matching distribution"
    (command,) = commands
    assert command[:4] == [sys.executable, "-m", "pip", "install"]
    assert "--no-deps" in command and command[command.index("--constraint") + 1] == str(tmp_path / "held.txt")
    assert command[command.index("--index-url") + 1] == "https://mirror.example/simple"


def test_a_pip_that_hangs_is_given_up(install: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def run(command: list[str], timeout: float, **_: object) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(install.subprocess, "run", run)
    assert install.pip_install("toml", tmp_path / "held.txt") == "no answer within 15 minutes"


def test_what_changed_without_being_asked_for_is_said(install: ModuleType) -> None:
    before, after = {"torch": "2.3.1", "six": "1.0"}, {"torch": "2.14.0", "toml": "1", "new": "2"}
    said = install.unasked_changes(
        before, after, [install.Wanted(next(p for p in install.PACKAGES if p.name == "toml"))]
    )
    assert said == [
        "new is now 2 and was not there; pip uninstall new",
        "six is now gone and was 1.0; put it back with: pip install six==1.0",
        "torch is now 2.14.0 and was 2.3.1; put it back with: pip install torch==2.3.1",
    ]


def test_main_says_what_it_did_and_nothing_else(
    install: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    states = [FORGE, {**FORGE, "toml": "0.10.2", "numpy": "2.0.0"}]
    monkeypatch.setattr(install, "installed", lambda: states.pop(0) if len(states) > 1 else states[0])
    install.main(Pip("lycoris"))
    out = capsys.readouterr().out
    assert "Train LoRA: installed toml." in out
    assert "lycoris-lora==3.4.0 could not be installed" in out and "Training does not work" in out
    assert "numpy is now 2.0.0 and was 1.26.2" in out


def test_without_torch_nothing_is_touched(
    install: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pip = Pip()
    monkeypatch.setattr(install, "installed", lambda: {"numpy": "1.26.2"})
    install.main(pip)
    assert pip.asked == [] and "PyTorch is not installed" in capsys.readouterr().out


def test_it_reads_this_environment(install: ModuleType) -> None:
    have = install.installed()
    assert have["pytest"] == pytest.__version__ and "torch" in have
    assert all(name == name.lower() and "_" not in name for name in have)


def test_the_start_goes_on_whatever_happens(tmp_path: Path) -> None:
    """A broken environment: metadata of a distribution that cannot be read."""
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.metadata\n"
        "def broken(*a, **k): raise RuntimeError('unreadable')\n"
        "importlib.metadata.distributions = broken\n"
    )
    done = subprocess.run(
        [sys.executable, str(ROOT / "install.py")],
        env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    assert "RuntimeError: unreadable" in done.stdout and "Traceback" not in done.stderr


def test_todays_lycoris_stays_with_todays_torch(install: ModuleType) -> None:
    have = {**TODAY, "toml": "0.9", "lycoris-lora": "4.1.3", "bitsandbytes": "0.50.2", "prodigyopt": "1.0", **NEW}
    assert requirements(install, have) == [], "nothing is installed anew at every start"


def test_a_package_that_is_replaced_is_not_held_at_the_version_that_goes(install: ModuleType) -> None:
    pip, have = Pip(), {**FORGE, "lycoris-lora": "4.1.3"}
    install.add(install.wanted(have, []), have, pip)
    assert "lycoris-lora==4.1.3" not in pip.held["lycoris-lora==3.4.0"] and "lycoris-lora==4.1.3" in pip.held["toml"]


def test_warnings_of_a_pip_that_succeeds_are_no_failure(
    install: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    done = {"code": 0}
    run = lambda command, **_: subprocess.CompletedProcess(command, done["code"], "", "WARNING: as root\n")  # noqa: E731
    monkeypatch.setattr(install.subprocess, "run", run)
    assert install.pip_install("toml", tmp_path / "held.txt") == ""
    done["code"] = 1
    assert install.pip_install("toml", tmp_path / "held.txt") == "WARNING: as root"
