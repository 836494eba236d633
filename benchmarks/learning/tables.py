"""The tables of the study."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.learning.cells import Cell
from benchmarks.learning.picks import SCORES, Pick, cell_of, cells_of, evaluations_of, picks, shares, verdict_of
from benchmarks.report import say, table

Runs = Sequence[dict[str, Any]]


# `long` is good with three times the steps, `stopped` the same that ends by itself; `good-prior` and `bare-prior` hold
# what other prompts draw.
MORE_KINDS = ("long", "stopped", "good-prior", "bare-prior")


def report_study(runs: Runs) -> None:
    """What each way to choose gets, runs that stopped beside long ones, and preservation beside none."""
    drawn = [values for values in runs if any(cell.whole.a for cell in cells_of(values))]
    plain = [values for values in drawn if values["kind"] not in MORE_KINDS]
    _report_verdicts(runs)
    _report_choice(plain)
    _report_stopped(drawn)
    _report_prior(drawn)


def _name(values: dict[str, Any]) -> str:
    return f"{values['subject']}, {values['kind']}, {values['seed']}"


def _report_verdicts(runs: Runs) -> None:
    rows = []
    for values in runs:
        last = evaluations_of(values)[-1]
        figures = (last.learned, last.trained, last.drift, last.least_loss_strength)
        rows.append([_name(values), verdict_of(values), *(f"{figure:.2f}" for figure in figures)])
    say(table(["run", "verdict at the end", "L", "T", "E", "s*"], rows))


def _report_choice(runs: Runs) -> None:
    """A row a run, and one a way: the share of the best cell's A and B, plain and cross-fitted."""
    if not runs:
        return
    found = [{way: (pick, shares(values, pick)) for way, pick in picks(values).items()} for values in runs]
    ways = list(found[0])
    rows = []
    for values, chosen in zip(runs, found, strict=True):
        texts = []
        for way in ways:
            pick, share = chosen[way]
            told = " · ".join(f"{share[name][0]:.2f} ({share[name][1]:.2f})" for name in SCORES)
            texts.append(f"{pick.step} at {pick.strength:g}: {told}")
        rows.append([_name(values), *texts])
    say(table(["run", *(f"{way}: step, A · B, plain (cross-fitted)" for way in ways)], rows))
    rows = []
    for way in ways:
        figures = []
        for place in (0, 1):
            for name in SCORES:
                got = [chosen[way][1][name][place] for chosen in found]
                figures += [f"{sum(got) / len(got):.2f}", f"{min(got):.2f}"]
        rows.append([way, *figures])
    heads = [f"{name} {what}{how}" for how in ("", ", cross-fitted") for name in SCORES for what in ("mean", "worst")]
    say(table(["chosen by", *heads], rows))


def _report_stopped(runs: Runs) -> None:
    """What ending by itself saves of a run that is far too long, and what its file loses beside that run's."""
    by_name = {_name(values): values for values in runs}
    rows = []
    for values in runs:
        whole = by_name.get(_name({**values, "kind": "long"})) if values["kind"] == "stopped" else None
        if whole is None:
            continue
        (mine,), chosen = cells_of(values), picks(whole)
        steps, last = evaluations_of(values)[-1].step, chosen["last step at 1"]
        row = [_name(values), f"{steps} of {last.steps}", f"{1 - steps / last.steps:.0%}", f"{mine.step}"]
        for other in (cell_of(cells_of(whole), pick) for pick in (chosen["evaluation"], last)):
            row += [f"{_gain(mine, other, name):+.0%}" for name in SCORES]
        rows.append(row)
    if rows:
        beside = [f"{name} beside {what}" for what in ("the whole run's choice", "the last step") for name in SCORES]
        say(table(["run", "steps", "saved", "its choice", *beside], rows))


def _gain(mine: Cell, other: Cell, name: str) -> float:
    return getattr(mine.whole, name.lower()) / getattr(other.whole, name.lower()) - 1


def _report_prior(runs: Runs) -> None:
    """Each run that preserved the base, at its last step and strength 1, beside the cell without it that is as like."""
    by_name = {_name(values): values for values in runs}
    rows = []
    for values in runs:
        without = by_name.get(_name({**values, "kind": values["kind"].removesuffix("-prior")}))
        if without is None or without is values:
            continue
        last = evaluations_of(values)[-1].step
        held = cell_of(cells_of(values), Pick(last, 1.0, last))
        like = min(cells_of(without), key=lambda cell: abs(cell.whole.likeness - held.whole.likeness))
        pairs = ((held, values), (like, without))
        row = [_name(without), *(f"{cell.step} at {cell.strength:g}" for cell, _ in pairs)]
        for measure in ("likeness", "variety", "kept"):
            row.append(" / ".join(f"{getattr(cell.whole, measure):.2f}" for cell, _ in pairs))
        rows.append([*row, " / ".join(f"{_drift_of(cell, run):.3f}" for cell, run in pairs)])
    if rows:
        say(table(["run", "with", "without", "likeness", "variety", "kept", "drift E: with / without"], rows))


def _drift_of(cell: Cell, values: dict[str, Any]) -> float:
    """E at the cell's strength; between the strengths it is measured at by its square."""
    found = next(item for item in evaluations_of(values) if item.step == cell.step)
    return found.drift * cell.strength**2
