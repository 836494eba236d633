class Script:
    """What a file in `scripts` derives from."""


class ScriptRunner:
    """Runs no script: there is none."""
