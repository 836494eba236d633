"""Who may call us from outside, as the program's own options say it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

# What a person names who starts the program without a word about the network.
LOOPBACK = frozenset(("localhost", "127.0.0.1", "::1"))


@dataclass(frozen=True)
class Access:
    """The rules for calls over HTTP.

    Attributes:
        changes: whether there are routes that change anything (`--api`).
        api_users: name -> password of `--api-auth`; empty where anybody may call.
        logins: name -> password of the page's login (`--gradio-auth`); empty where there is none.
        folders: pictures may lie below these alone.
        origins, origin_pattern: pages of other sites that the program trusts, listed and as a regular expression.
        local_only: the program listens on this machine alone.
        page_key: shown on the tab only; with it the tab may read, and change nothing.
    """

    changes: bool = False
    api_users: Mapping[str, str] = field(default_factory=dict)
    logins: Mapping[str, str] = field(default_factory=dict)
    folders: tuple[Path, ...] = ()
    origins: tuple[str, ...] = ()
    origin_pattern: str = ""
    local_only: bool = True
    page_key: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
