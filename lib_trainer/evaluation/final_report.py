"""What a run leaves beside its adapter: the report, with what only its end has."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator
from pathlib import Path

from lib_trainer.errors import UserError
from lib_trainer.evaluation.evaluation import Evaluation
from lib_trainer.evaluation.likeness import Likeness, compare_with_dataset
from lib_trainer.evaluation.report import write_report
from lib_trainer.events import Evaluated, Event, Notice
from lib_trainer.training.comparison import Comparison

_log = logging.getLogger(__name__)


def leave_report(path: Path, evaluation: Evaluation, last: Evaluated, compared: Comparison) -> Iterator[Event]:
    """Writes the report to `path`. The adapter is written: a run does not fail for its report."""
    name = path.name.removesuffix(".report.html")
    likenesses = yield from _likenesses(evaluation, compared)
    try:
        write_report(path, name, evaluation.found, last, compared.png, likenesses)
    except UserError as error:
        yield Notice(str(error))


def _likenesses(evaluation: Evaluation, compared: Comparison) -> Generator[Event, None, list[Likeness]]:
    models = compared.sampling.host.lora_dir.parent
    try:
        return compare_with_dataset(models, compared.pictures, evaluation.pictures)
    except Exception as error:  # noqa: BLE001 - a CLIP is anybody's file, and never needed
        _log.warning("Likeness could not be measured", exc_info=error)
        text = str(error).strip() or type(error).__name__
        yield Notice(f"Likeness could not be measured: {text.splitlines()[0]:.200}")
        return []
