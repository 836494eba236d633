"""Where Neo is as Forge, the fake Forge's modules serve."""

from pathlib import Path

_FAKES = Path(__file__).parents[2]
__path__.extend([str(_FAKES / "forge" / "modules"), str(_FAKES / "webui" / "modules")])
