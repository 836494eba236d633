"""The same text as ldm's, read a second time: these are classes of their own, and the WebUI patches both."""

from pathlib import Path

__path__.append(str(Path(__file__).parents[2] / "ldm" / "modules"))

from .encoders.modules import GeneralConditioner  # noqa: E402, F401
