"""Who may call which route: names and passwords, requests from other sites, and folders.

The WebUI's login does not cover the routes of an extension, so ours check it themselves.
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from fastapi import HTTPException, Request

from lib_trainer.errors import ConfigError, UserError
from lib_trainer.host.access import LOOPBACK, Access

PAGE_KEY = "x-train-lora-key"
UNAUTHORIZED, FORBIDDEN, WRONG_TYPE = 401, 403, 415


class Guard:
    """Raises HTTPException for every request that the program's options do not allow."""

    def __init__(self, access: Access) -> None:
        self.access = access

    def reads(self, request: Request) -> None:
        """A name and password, a login of the page, or the page's own key where one of them is asked for."""
        self._refuse_other_sites(request)
        self._refuse_other_names(request)
        access = self.access
        # Without any login the routes are as open as the WebUI itself.
        if not (access.api_users or _has_login(request, access)):
            return
        # An <img> cannot send a header, so its address carries the key.
        key = request.headers.get(PAGE_KEY) or request.query_params.get("key", "")
        # The key is in the page, which only somebody who is logged in can open.
        if secrets.compare_digest(key.encode(), access.page_key.encode()) or _is_logged_in(request):
            return
        if not _is_known(request, access.api_users or _logins(request, access)):
            _ask_for_password(request)

    def changes(self, request: Request) -> None:
        """Stricter than `reads`: needs `--api-auth` where that is set, and takes neither the page's key nor a form."""
        self._refuse_other_sites(request)
        self._refuse_other_names(request)
        if request.headers.get("content-type", "application/json").partition(";")[0].strip() != "application/json":
            # Without this a form of another site's page could be sent here unasked.
            refuse(WRONG_TYPE, "The content is not JSON.", "Send it as application/json.")
        access = self.access
        if access.api_users:
            if not _is_known(request, access.api_users):
                _ask_for_password(request)
        elif _has_login(request, access) and not (
            _is_logged_in(request) or _is_known(request, _logins(request, access))
        ):
            _ask_for_password(request)

    def folder(self, text: str) -> Path:
        """The folder that a caller names, links followed. Raises HTTPException outside what the program allows."""
        try:
            return self.access.folder(text)
        except UserError as error:
            refuse(FORBIDDEN, error.message, error.hint)

    def _refuse_other_sites(self, request: Request) -> None:
        origin = request.headers.get("origin", "")
        # What --cors-allow-origins names may call us.
        if origin and self._is_trusted(origin):
            return
        # Older browsers send no sec-fetch-site, programs send neither.
        same = not origin or urlsplit(origin).netloc == request.headers.get("host", "")
        if not same or request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            refuse(FORBIDDEN, "Pages of other sites may not call this.", "See --cors-allow-origins.")

    def _refuse_other_names(self, request: Request) -> None:
        """Refuses other host names: with DNS rebinding a foreign page would have the same origin as ours."""
        # With --listen any name may lead here, and --api-auth protects by itself.
        if not self.access.local_only or self.access.api_users:
            return
        host = request.headers.get("host", "")
        # Behind a proxy the name is the proxy's, which --cors-allow-origins names.
        if any(self._is_trusted(f"{scheme}://{host}") for scheme in ("http", "https")):
            return
        if (urlsplit(f"//{host}").hostname or "") not in LOOPBACK:
            refuse(FORBIDDEN, "This program is called by another name.", "Call 127.0.0.1, or start it with --listen.")

    def _is_trusted(self, origin: str) -> bool:
        access = self.access
        by_pattern = bool(access.origin_pattern) and re.fullmatch(access.origin_pattern, origin) is not None
        return by_pattern or origin in access.origins or "*" in access.origins


def refuse(status: int, message: str, hint: str = "", **more: Any) -> NoReturn:
    """Ends the request with a sentence that says why, and one that says what to do."""
    raise HTTPException(status, _writable({"error": message, "hint": hint, **more}))


def _writable(value: Any) -> Any:
    """The same without unpaired surrogates, which a caller's JSON may hold and an answer cannot."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {_writable(key): _writable(item) for key, item in value.items()}
    return [_writable(item) for item in value] if isinstance(value, list | tuple) else value


def refuse_error(error: UserError) -> NoReturn:
    """As `refuse`, for what a person can mend: 422 with the problems of fields, 409 for all else."""
    if isinstance(error, ConfigError):
        refuse(422, "The recipe is invalid.", "Correct these fields.", problems=error.problems)
    refuse(409, error.message, error.hint)


def _has_login(request: Request, access: Access) -> bool:
    app = request.app
    return bool(access.logins or getattr(app, "auth", None) or getattr(app, "auth_dependency", None))


def _logins(request: Request, access: Access) -> Mapping[str, str]:
    # gradio 3 and 4 keep the names of --gradio-auth there.
    auth = getattr(request.app, "auth", None)
    return access.logins or (auth if isinstance(auth, dict) else {})


def _is_logged_in(request: Request) -> bool:
    """gradio keeps the sessions of its login in `tokens`; its cookies differ in their ends between releases."""
    tokens = getattr(request.app, "tokens", None) or {}
    return any(name.startswith("access-token") and value in tokens for name, value in request.cookies.items())


def _is_known(request: Request, users: Mapping[str, str]) -> bool:
    kind, _, text = request.headers.get("authorization", "").partition(" ")
    try:
        name, _, password = base64.b64decode(text, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return False
    # An unknown name takes as long as a wrong password.
    wanted = users.get(name)
    fits = secrets.compare_digest(password.encode(), ("" if wanted is None else wanted).encode())
    return kind.lower() == "basic" and wanted is not None and fits


def _ask_for_password(request: Request) -> NoReturn:
    # A browser answers this header with a dialog; the tab has a second way to ask and needs none.
    headers = None if PAGE_KEY in request.headers else {"WWW-Authenticate": "Basic"}
    detail = {"error": "A name and a password are needed.", "hint": "See --api-auth and --gradio-auth."}
    raise HTTPException(UNAUTHORIZED, detail, headers)
