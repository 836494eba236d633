"""Who may call us over the network, read from the program's own options."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lib_trainer.errors import UserError

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
        allow_option: of the command line, which adds a folder.
        page_key: part of the tab's page; with it the tab may read without a login, and change nothing.
    """

    changes: bool = False
    api_users: Mapping[str, str] = field(default_factory=dict)
    logins: Mapping[str, str] = field(default_factory=dict)
    folders: tuple[Path, ...] = ()
    origins: tuple[str, ...] = ()
    origin_pattern: str = ""
    local_only: bool = True
    allow_option: str = "--gradio-allowed-path"
    page_key: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)

    def folder(self, text: str) -> Path:
        """The folder that a caller names, links followed. Raises UserError outside the allowed folders."""
        try:
            # Links are followed before the comparison: a link inside could lead anywhere.
            found = Path(os.path.realpath(Path(text).expanduser()))
        except (OSError, RuntimeError, ValueError):
            # Python raises for a NUL, an endless link, or an unknown user's ~.
            raise UserError(f"{text!r} is not a folder.", "Name one that exists.") from None
        roots = [Path(os.path.realpath(root)) for root in self.folders]
        if not any(found == root or root in found.parents for root in roots):
            # The tab of a program that listens on this machine alone takes every folder.
            instead = ", or use the tab" if self.local_only else ""
            raise UserError(
                f"{text} lies outside the folders that calls over the network may name.",
                f"Start the program with {self.allow_option} FOLDER{instead}.",
            )
        return found
