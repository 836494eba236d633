"""Who may call us over the network, read from the program's own options."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

# Host names of a program that listens on this machine only.
LOOPBACK = frozenset(("localhost", "127.0.0.1", "::1"))


@dataclass(frozen=True)
class Access:
    """The rules for calls over HTTP.

    Attributes:
        changes: whether there are routes that change anything (`--api`).
        api_users: name -> password of `--api-auth`; empty where anybody may call.
        logins: name -> password of the page's login (`--gradio-auth`); empty where there is none.
        folders: training images must be below one of these.
        origins, origin_pattern: pages of other sites that the program trusts, listed and as a regular expression.
        local_only: the program listens on this machine only.
        page_key: part of the tab's page; with it the tab may read without a login, and change nothing.
    """

    changes: bool = False
    api_users: Mapping[str, str] = field(default_factory=dict)
    logins: Mapping[str, str] = field(default_factory=dict)
    folders: tuple[Path, ...] = ()
    origins: tuple[str, ...] = ()
    origin_pattern: str = ""
    local_only: bool = True
    page_key: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
