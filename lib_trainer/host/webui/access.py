"""What the WebUI's own options say of calls over the network."""

from __future__ import annotations

from pathlib import Path

from lib_trainer.host.access import Access


def access() -> Access:
    """`--api`, `--api-auth`, `--gradio-auth`, `--gradio-allowed-path`, `--cors-allow-origins`, `--listen`."""
    from modules.initialize_util import get_gradio_auth_creds
    from modules.shared_cmd_options import cmd_opts

    folders = tuple(Path(folder) for folder in cmd_opts.gradio_allowed_path or ())
    return Access(
        changes=bool(cmd_opts.api or cmd_opts.nowebui),
        api_users=dict(pair.split(":", 1) for pair in (cmd_opts.api_auth or "").split(",") if ":" in pair),
        logins=dict(get_gradio_auth_creds()),
        folders=folders,
        origins=tuple(filter(None, (cmd_opts.cors_allow_origins or "").split(","))),
        origin_pattern=cmd_opts.cors_allow_origins_regex or "",
        local_only=not cmd_opts.webui_is_non_local,
    )
