"""Which package may import which: read from the source, wherever in a file the import stands."""

from __future__ import annotations

import ast
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "lib_trainer"
MODULES = sorted(PACKAGE.rglob("*.py"))
BASE = {"errors", "events", "config", "utils"}
RUN = BASE | {"models", "adapter", "dataset", "memory", "training"}

# package -> the packages of ours that it may import besides itself
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "events": set(),
    "packages": set(),
    "config": {"errors"},
    "utils": {"errors"},
    "models": BASE,
    "adapter": BASE | {"models"},
    "adapter.kernels": {"adapter.delta_weight", "adapter.dora", "models", "utils"},
    "dataset": BASE | {"models"},
    "memory": BASE | {"models", "adapter", "dataset"},
    "workbench": BASE | {"dataset", "captioning", "host.base"},
    "captioning": BASE | {"dataset"},
    "recipes": {"errors", "config", "utils", "adapter.metadata"},
    "lora": BASE | {"models", "adapter"},
    "host": BASE | {"models", "lora.info"},
    "host.webui": BASE | {"models", "adapter.embedding", "lora", "host.base", "host.access"},
    "host.forge": BASE | {"models", "adapter", "lora", "host.base", "host.webui"},
    "host.neo": BASE | {"models", "host.forge", "host.webui"},
    "host.a1111": BASE | {"models", "adapter", "lora", "host.base", "host.webui"},
    "host.reforge": BASE | {"models", "host.a1111", "host.webui"},
    "host.standalone": BASE | {"models", "adapter", "lora", "host.base", "host.webui"},
    "training": BASE | {"models", "adapter", "dataset", "memory", "lora", "host.base", "preview.grid_image"},
    "evaluation": RUN,
    "run": RUN | {"evaluation", "host.base", "jobs.history"},
    "jobs": BASE | {"host.base"},
    "preview": {"errors", "utils", "models", "lora", "host.base"},
    "demo": BASE | RUN | {"recipes", "host.standalone"},
    "ui": BASE
    | {"models", "adapter", "dataset", "memory", "recipes", "lora", "jobs", "preview", "host.base", "host.access"}
    | {"packages", "evaluation.report", "workbench"},
    "web": BASE | {"workbench", "models", "recipes", "lora", "jobs", "preview", "host.base", "host.access"},
    "app": BASE | {"workbench", "run", "jobs", "preview", "host.base", "host.access", "host.detect", "ui", "web"},
    "cli": RUN
    | {
        "captioning",
        "recipes",
        "run",
        "jobs",
        "lora",
        "preview",
        "host.base",
        "host.access",
        "host.standalone",
        "demo",
        "app",
    },
    "__main__": {"cli"},
}
# The one place that names every host.
HOST_REGISTRY = "host.detect"

HOST_PACKAGES = {"modules", "modules_forge", "backend", "ldm_patched", "ldm", "scripts", "extensions"}
# third-party package -> the packages of ours that may import it
ONLY_IN = {
    "gradio": ("ui",),
    "fastapi": ("web",),
    "starlette": ("web",),
    "diffusers": ("host.standalone", "demo"),
    "lycoris": ("adapter",),
    **dict.fromkeys(HOST_PACKAGES, ("host",)),
}
STANDARD_LIBRARY_ONLY = (
    "errors",
    "events",
    "config",
    "jobs.status",
    "jobs.history",
    "jobs.past_run",
    "jobs.loss_log",
    "jobs.lock",
)
HEAVY = {"torch", "numpy", "PIL", "transformers"}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def package_of(module: str) -> str:
    """ "dataset.scan" -> "dataset", "host.forge.model" -> "host.forge", "host.base" -> "host", "run" -> "run"."""
    parts = module.split(".")
    return ".".join(parts[:2]) if ".".join(parts[:2]) in MAY_IMPORT else parts[0]


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


@cache
def imports(path: Path) -> frozenset[str]:
    """Every module that a file names in an import, wherever in the file it stands."""
    found: set[str] = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import of {node.module}"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} if node.module else set()
    return frozenset(found)


def own(name: str) -> str | None:
    """ "lib_trainer.host.base.Host" -> "host.base"; None for other packages."""
    parts = name.split(".")
    if parts[0] != "lib_trainer":
        return None
    for depth in range(len(parts), 1, -1):
        place = PACKAGE.joinpath(*parts[1:depth])
        if place.is_dir() or place.with_suffix(".py").exists():
            return ".".join(parts[1:depth])
    return ""


def is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def strangers(module: str, used: set[str]) -> set[str]:
    """What `module` imports of ours and may not."""
    package = package_of(module)
    allowed = {package, *MAY_IMPORT[package]}
    if module == HOST_REGISTRY:
        allowed |= {name for name in MAY_IMPORT if name.startswith("host.")}
    return {name for name in used if not any(is_within(name, other) for other in allowed)}


def test_a_package_imports_only_what_it_may() -> None:
    """And lib_trainer itself nothing."""
    forbidden = {}
    for path in MODULES:
        module = module_name(path)
        used = {name for name in map(own, imports(path)) if name}
        forbidden[module] = sorted(strangers(module, used) if module else used)
    assert {module: names for module, names in forbidden.items() if names} == {}


def test_no_package_imports_in_a_circle() -> None:
    graph: dict[str, set[str]] = {}
    for path in MODULES:
        module = module_name(path)
        # The registry stands above the hosts that it names, and kernels are a part of the adapter.
        package = module if module == HOST_REGISTRY else package_of(module).removesuffix(".kernels")
        used = {name if name == HOST_REGISTRY else package_of(name) for name in map(own, imports(path)) if name}
        graph.setdefault(package, set()).update({name.removesuffix(".kernels") for name in used} - {package})
    list(TopologicalSorter(graph).static_order())


def test_hosts_and_web_frameworks_stay_in_their_packages() -> None:
    found = []
    for path in MODULES:
        module = module_name(path)
        for package in {name.split(".")[0] for name in imports(path)}:
            allowed = ONLY_IN.get(package, (module,))
            in_base = module == "host.base" and package in HOST_PACKAGES
            if in_base or not any(is_within(module, room) for room in allowed):
                found.append(f"{module} imports {package}")
    assert found == []


@pytest.mark.parametrize("module", STANDARD_LIBRARY_ONLY)
def test_what_describes_a_run_needs_the_standard_library_alone(module: str) -> None:
    for path in MODULES:
        if is_within(module_name(path), module):
            assert not {name.split(".")[0] for name in imports(path)} & HEAVY, path.name


def test_commands_that_need_no_model_start_without_diffusers() -> None:
    heavy = ("cli.train", "cli.host", "cli.run_training", "host")
    for command in ("plan", "check", "save_recipe", "recipe"):
        used = {name for name in map(own, imports(PACKAGE / "cli" / f"{command}.py")) if name}
        assert not [name for name in used if any(is_within(name, other) for other in heavy)], command


def test_importing_a_module_does_no_work() -> None:
    """Top level: imports, definitions, names and docstrings. A bare call, a loop or a `with` is work."""
    allowed = (ast.Import, ast.ImportFrom, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    allowed += (ast.Assign, ast.AnnAssign, ast.AugAssign)
    found = []
    for path in MODULES:
        for node in parsed(path).body:
            docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            setup = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and _fills_a_name(node.value)
            guard = isinstance(node, ast.If) and _is_guard(node.test)
            if not (docstring or setup or guard or isinstance(node, allowed)):
                found.append(f"{module_name(path)}:{node.lineno} works or decides at import time")
    assert found == []


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
    assert package_of("host.forge.model") == "host.forge" and package_of("host.detect") == "host"
    assert package_of("adapter.kernels.loha") == "adapter.kernels" and package_of("run") == "run"
