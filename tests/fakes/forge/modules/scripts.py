class ScriptRunner:
    """Runs no script: there is none."""
