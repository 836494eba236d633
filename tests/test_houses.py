"""Who may import whom: the rooms of the package, read from the source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "lib_trainer"
MODULES = sorted(PACKAGE.rglob("*.py"))
BASE = {"errors", "config", "events", "families", "disk"}
STORY = {"adapter", "dataset", "training", "preview", "recipes", "run", "jobs"}
WATCHING = {"access", "history", "jobs", "losses", "status"}
CHOOSING = {"cards", "finals", "host.png"}
# room -> the rooms of this package that it may import besides itself
MAY_IMPORT = {
    "access": set(),
    "errors": set(),
    "events": set(),
    "families": set(),
    "overrides": set(),
    "settings": set(),
    "disk": {"errors"},
    "config": {"errors", "settings"},
    "kohya": {"config"},
    "status": {"events"},
    "claims": set(),
    "losses": {"disk", "events"},
    "history": {"claims", "config", "disk", "errors", "events", "losses"},
    "dataset": BASE | {"host.base"},
    "adapter": BASE | {"host.base", "overrides"},
    "training": BASE | {"host.base", "adapter", "dataset", "overrides"},
    "memory": BASE | {"host.base", "adapter"},
    "preview": BASE | {"host.base"},
    "host.base": {"families"},
    "host": BASE | {"access", "overrides", "adapter"},
    "host.standalone": BASE | {"overrides", "adapter", "demo"},
    "demo": BASE | STORY | {"host.base", "host.standalone"},
    "recipes": {"config", "disk", "errors", "kohya", "adapter.metadata"},
    "ui": BASE
    | WATCHING
    | CHOOSING
    | {"planning", "recipes", "dataset", "host.base", "host.detect", "preview", "memory", "adapter"},
    "web": BASE | WATCHING | CHOOSING | {"recipes", "host.base", "host.detect", "preview", "memory", "dataset", "ui"},
    "__main__": None,
    "cli": None,
}
# Everything else at the top (run, jobs, saving …) tells the story: all rooms but these.
CONCRETE = ("ui", "web", "demo", "cli", "__main__", "host.forge", "host.a1111", "host.standalone", "host.webui")
HOST_PACKAGES = {"modules", "modules_forge", "backend", "ldm_patched", "ldm", "scripts", "extensions"}
# third-party package -> the rooms that may import it
ONLY_IN = {
    "gradio": ("ui",),
    "fastapi": ("web",),
    "starlette": ("web",),
    "diffusers": ("host.standalone", "demo"),
    "lycoris": ("adapter",),
    **dict.fromkeys(HOST_PACKAGES, ("host",)),
}
LIGHT = {"errors", "disk", "events", "families", "settings", "config", "kohya", "status", "recipes"}
LIGHT |= {"access", "claims", "history", "losses"}


def room_of(module: str) -> str:
    """"dataset.scan" -> "dataset", "host.standalone_model" -> "host.standalone", "jobs" -> "jobs"."""
    parts = module.split(".")
    if parts[0] == "host" and len(parts) > 1:
        named = f"host.{parts[1].split('_')[0]}"
        return named if named in MAY_IMPORT else "host"
    return parts[0]


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imports(path: Path) -> set[str]:
    """Every module that a file names in an import, wherever in the file it stands."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import of {node.module}"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} if node.module else set()
    return found


def own(name: str) -> str | None:
    """"lib_trainer.host.base.Host" -> "host.base"; None for other packages."""
    parts = name.split(".")
    if parts[0] != "lib_trainer":
        return None
    for depth in range(len(parts), 1, -1):
        place = PACKAGE.joinpath(*parts[1:depth])
        if place.is_dir() or place.with_suffix(".py").exists():
            return ".".join(parts[1:depth])
    return ""


def is_within(module: str, room: str) -> bool:
    return module == room or module.startswith((f"{room}.", f"{room}_"))


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_a_room_imports_only_the_rooms_it_may(path: Path) -> None:
    module = module_name(path)
    room = room_of(module) if module else ""
    used = {name for name in map(own, imports(path)) if name}
    if not module:
        assert not used, "the package itself imports nothing"
    elif room in MAY_IMPORT:
        allowed = MAY_IMPORT[room]
        if allowed is not None:
            allowed = allowed | {room} | ({"host"} if room.startswith("host.") and room != "host.base" else set())
            strangers = {name for name in used if not any(is_within(name, other) for other in allowed)}
            assert not strangers, f"{module} may not import {sorted(strangers)}"
    else:
        strangers = {name for name in used if any(is_within(name, other) for other in CONCRETE)}
        assert not strangers, f"{module} may not import {sorted(strangers)}"


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_hosts_and_web_frameworks_stay_in_their_rooms(path: Path) -> None:
    module = module_name(path)
    for name in imports(path):
        package = name.split(".")[0]
        for_rooms = ONLY_IN.get(package)
        if for_rooms:
            assert any(is_within(module, room) for room in for_rooms), f"{module} imports {package}"
    assert module != "host.base" or not {name.split(".")[0] for name in imports(path)} & HOST_PACKAGES


@pytest.mark.parametrize("path", [p for p in MODULES if room_of(module_name(p)) in LIGHT], ids=module_name)
def test_what_describes_a_run_needs_the_standard_library_alone(path: Path) -> None:
    heavy = {name for name in imports(path) if name.split(".")[0] in ("torch", "numpy", "PIL", "transformers")}
    assert not heavy


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_importing_a_module_does_no_work(path: Path) -> None:
    """Top level: imports, definitions, names and docstrings. A bare call, a loop or a `with` is work."""
    tree = ast.parse(path.read_text("utf-8"))
    allowed = (ast.Import, ast.ImportFrom, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    allowed += (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.If)
    for node in tree.body:
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        setup = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and _fills_a_name(node.value)
        assert docstring or setup or isinstance(node, allowed), f"{path.name}:{node.lineno} works at import time"
        if isinstance(node, ast.If):
            assert _is_guard(node.test), f"{path.name}:{node.lineno} decides at import time"


def _fills_a_name(call: ast.Call) -> bool:
    """`TABLE.update(…)`: a table written in two steps."""
    return isinstance(call.func, ast.Attribute) and call.func.attr == "update" and isinstance(call.func.value, ast.Name)


def _is_guard(test: ast.expr) -> bool:
    text = ast.unparse(test)
    return text in ("TYPE_CHECKING", "__name__ == '__main__'") or text.startswith("sys.version_info")


def test_reading_the_names_works() -> None:
    assert own("lib_trainer.host.base.Host") == "host.base"
    assert own("lib_trainer.errors.UserError") == "errors"
    assert own("torch.nn") is None
    assert room_of("host.standalone_model") == "host.standalone"
    assert room_of("host.forge_model") == "host" and room_of("dataset.scan") == "dataset"
