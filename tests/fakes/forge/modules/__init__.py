"""What both WebUIs have in common lies in the folder beside."""

from pathlib import Path

__path__.append(str(Path(__file__).parents[2] / "webui" / "modules"))
