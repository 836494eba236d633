"""The WebUI's folders and files that we use."""

from __future__ import annotations

from pathlib import Path


def lora_dir() -> Path:
    from modules import shared

    return Path(shared.cmd_opts.lora_dir)


def embeddings_dir() -> Path:
    from modules import shared

    return Path(shared.cmd_opts.embeddings_dir)


def cache_dir() -> Path:
    """Folder of encoded pictures and run records: in the WebUI's data folder, never among a person's pictures."""
    from modules.paths_internal import data_path

    return Path(data_path) / "cache" / "train_lora"


def settings_file() -> Path:
    from modules.paths_internal import data_path

    return Path(data_path) / "train_lora.json"
