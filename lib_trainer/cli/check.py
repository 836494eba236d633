"""`check`: what may spoil the result of training on a folder."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from tqdm import tqdm

from lib_trainer.cli.output import Answer
from lib_trainer.cli.recipe import parse_settings
from lib_trainer.config.recipe import Recipe
from lib_trainer.dataset.checks.check_folder import check_folder
from lib_trainer.dataset.checks.finding import Finding
from lib_trainer.dataset.epoch_table import epoch_table
from lib_trainer.dataset.scan import Scan, scan_folder
from lib_trainer.events import Progress

_MARKS = {"warning": "⚠", "note": "·"}


def run_check(options: argparse.Namespace) -> Answer:
    """All findings. Raises UserError where the folder cannot be scanned."""
    config = Recipe().with_values({**parse_settings(options.set), "train_data_dir": options.folder}).dataset
    scan = scan_folder(config)
    found: list[Finding] = []
    # On stderr, and only where somebody watches.
    with tqdm(total=len(scan.samples), unit="picture", disable=None, leave=False) as bar:
        for event in check_folder(scan, config, options.kind):
            if isinstance(event, Progress):
                bar.update(event.phase == "checking")
            else:
                found.append(event)
    return Answer(_describe(scan, found), tuple(_lines(scan, found)))


def _describe(scan: Scan, found: list[Finding]) -> dict[str, Any]:
    return {
        "pictures": len(scan.samples),
        "trigger_word": scan.trigger_word,
        "skipped": [{"path": item.path, "reason": item.reason} for item in scan.skipped],
        "folders": [{**asdict(row), "folder": row.folder.name} for row in epoch_table(scan)],
        "notices": list(scan.notices),
        "findings": [
            {"kind": item.kind, "severity": item.severity, "sentence": item.sentence, "pictures": list(item.pictures)}
            for item in found
        ],
    }


def _lines(scan: Scan, found: list[Finding]) -> list[str]:
    lines = [f"{len(scan.samples)} pictures, trigger word “{scan.trigger_word}”."]
    rows = epoch_table(scan)
    for row in rows if len(rows) > 1 else ():
        mark = " (regularisation)" if row.regularising else ""
        drawn = f"{row.pictures} × {row.shown_repeats} = {row.drawn} ({row.share:.0%})"
        lines.append(f"  {row.folder.name}{mark}: {drawn} in an epoch")
    lines += [f"⚠ {item.path.name} is skipped: {item.reason}" for item in scan.skipped]
    lines += [f"⚠ {text}" for text in scan.notices]
    lines += [f"{_MARKS[item.severity]} {item.sentence}" for item in found]
    return lines if found or scan.skipped or scan.notices else [*lines, "Nothing to mend."]
