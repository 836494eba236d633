"""README and docs against the code: commands parse, recipes and settings exist, links and paths lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from lib_trainer.cli.main import _parser as cli_parser
from lib_trainer.cli.recipe import open_recipe, parse_settings

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = re.compile(r"python -m (lib_trainer|benchmarks|pytest)\b([^`\n&|]*)")
LINK = re.compile(r"\]\(([^)\s]+)\)")
# A file or folder of ours in code style: `host/base.py`, `tests/fakes`, `benchmarks/`.
OWN_PATH = re.compile(r"`((?:\w+/)+\w*(?:\.py|\.json)?)`")

OF_THE_WEBUI = ("models/Lora", "cache/", "out/", "train_lora/datasets/")


def text_of(page: Path) -> str:
    """The page with continued lines joined."""
    return re.sub(r"\\\n\s*", "", page.read_text("utf-8"))


def commands(program: str) -> list[tuple[str, str]]:
    """(page, arguments) of every command that a page shows with arguments."""
    found = [(page.name, match) for page in PAGES for match in COMMAND.finditer(text_of(page))]
    return [(name, match[2].strip()) for name, match in found if match[1] == program and match[2].strip()]


@pytest.mark.parametrize(("page", "arguments"), commands("lib_trainer"))
def test_commands_are_what_the_command_line_takes(page: str, arguments: str) -> None:
    words = shlex.split(arguments)
    if "--help" in words:
        with pytest.raises(SystemExit, match="0"):
            cli_parser().parse_args(words)
        return
    options = cli_parser().parse_args(words)
    assert callable(options.command)
    recipe = getattr(options, "recipe", None)
    # In capitals it stands for any recipe.
    assert not recipe or recipe.isupper() or words[0] == "demo" or open_recipe(recipe)
    parse_settings(getattr(options, "set", None) or [])


@pytest.mark.parametrize(("page", "arguments"), commands("benchmarks"))
def test_commands_are_what_the_benchmarks_take(page: str, arguments: str) -> None:
    pytest.importorskip("diffusers")
    from benchmarks.__main__ import _parser

    assert callable(_parser().parse_args(shlex.split(arguments)).run)


@pytest.mark.parametrize(("page", "arguments"), commands("pytest"))
def test_tests_that_are_named_exist(page: str, arguments: str) -> None:
    for word in shlex.split(arguments):
        assert not word.startswith("tests") or (ROOT / word).exists(), word


def test_there_is_something_to_hold_to_the_code() -> None:
    assert len(commands("lib_trainer")) > 8 and len(commands("benchmarks")) > 6 and len(commands("pytest")) > 4


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_paths_lead_somewhere(page: Path) -> None:
    text = page.read_text("utf-8")
    for target in LINK.findall(text):
        assert target.startswith("https://") or (page.parent / target).exists(), target
    for path in OWN_PATH.findall(text):
        places = [folder / path for folder in (ROOT, ROOT / "lib_trainer")]
        assert path.startswith(OF_THE_WEBUI) or any(place.exists() for place in places), f"{path} is not there"


def test_the_readme_stays_a_page() -> None:
    assert len(PAGES[0].read_text("utf-8").splitlines()) <= 120


def test_the_line_that_ci_runs_is_the_tests_line() -> None:
    _, _, after = PAGES[0].read_text("utf-8").partition("<!-- The tests in one line")
    assert "-m pytest" in after.split("```")[1]
