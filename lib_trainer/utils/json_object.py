"""JSON from files that anybody may have written."""

from __future__ import annotations

import json
from typing import Any


def json_object(text: str | bytes) -> dict[str, Any]:
    """The object in a JSON text; {} for anything else that may stand there."""
    try:
        found = json.loads(text)
    # What is nested some thousand levels deep ends in a RecursionError.
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
