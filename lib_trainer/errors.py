"""Errors that a person can fix. Everything else keeps its traceback."""

from __future__ import annotations


class UserError(Exception):
    """Something that a person can fix.

    Args:
        message: one sentence: what is wrong, with the wrong value in it.
        hint: one sentence: what to do.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message} {hint}".strip())
        self.message = message
        self.hint = hint


class ConfigError(UserError):
    """Every problem of a configuration at once.

    Args:
        problems: field name of `lib_trainer.config.recipe` -> what is wrong with it.
    """

    def __init__(self, problems: dict[str, str]) -> None:
        self.problems = dict(problems)
        super().__init__("; ".join(f"{name}: {text}" for name, text in self.problems.items()))


class OutOfMemory(UserError):
    """The device ran out of memory.

    Args:
        settings: recipe fields -> values with which the same run takes less; empty if there are none.
    """

    def __init__(self, message: str, hint: str, settings: dict[str, float]) -> None:
        super().__init__(message, hint)
        self.settings = dict(settings)


class NotWritten(UserError):
    """A file that a person asked for could not be written; what stood at its path still does."""


class MissingPackage(UserError):
    """A feature needs a package that is not installed."""

    def __init__(self, package: str, needed_for: str) -> None:
        self.package = package
        super().__init__(
            f"{needed_for} needs the package {package}, which is not installed here.",
            f"Restart the WebUI so that the extension's installer can fetch it, or run: pip install {package}",
        )
