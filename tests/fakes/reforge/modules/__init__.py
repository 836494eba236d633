"""Where reForge is as A1111, the fake A1111's modules serve."""

from pathlib import Path

_FAKES = Path(__file__).parents[2]
__path__.extend([str(_FAKES / "a1111" / "modules"), str(_FAKES / "webui" / "modules")])
