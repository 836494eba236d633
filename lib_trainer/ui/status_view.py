"""The state of a run, as HTML."""

from __future__ import annotations

from html import escape
from typing import Any

from lib_trainer.evaluation.report import show_meter
from lib_trainer.jobs.status import Status
from lib_trainer.ui.elements import progress_bar, show_duration
from lib_trainer.ui.form import shown_name
from lib_trainer.ui.loss_chart import draw_curve

TITLES = {
    "queued": "Waiting",
    "preparing": "Preparing",
    "caching": "Caching latents and captions",
    "training": "Training",
    "saving": "Saving",
    "paused": "Paused",
    "done": "Done",
    "stopped": "Stopped",
    "failed": "Failed",
}
PARTS = ("head", "error", "result", "bar", "numbers", "meter", "curve", "samples", "queue", "log")
SHOWN_SAMPLES = 24
BUSY = "Other pictures wait until the run is over."
LAST_NOTICES = 3
NOTHING_YET = "Choose an image folder and a trigger word on the left, then press Train."


def show_status(status: Status) -> str:
    """The whole progress panel, in parts that javascript/train_lora.js replaces one by one."""
    parts = "".join(f'<div data-part="{name}">{html}</div>' for name, html in show_parts(status).items())
    return f'<div class="train-lora-status {status.state}" data-live="{int(status.live)}">{parts}</div>'


def show_panel(status: Status) -> dict[str, Any]:
    """Everything that javascript/train_lora.js shows of a run."""
    return {
        "live": status.live,
        "state": status.state,
        "buttons": buttons_of(status),
        "saved": status.path.stem if status.path and not status.live else "",
        "parts": show_parts(status),
    }


def show_parts(status: Status) -> dict[str, str]:
    """Part -> its HTML, in the order in which they stand."""
    # Every part is always there, possibly empty: the script finds it by its name.
    parts = dict.fromkeys(PARTS, "")
    if status.state == "idle":
        return {**parts, "head": f'<p class="idle">{NOTHING_YET}</p>{_interrupted(status)}'}
    return {
        "head": _head(status),
        "error": _error(status),
        "result": _result(status),
        "bar": _bar(status),
        "numbers": _numbers(status),
        "meter": show_meter(status.evaluations, status.evaluated),
        "curve": draw_curve(status.losses, status.rates),
        "samples": _samples(status),
        "queue": _queue(status),
        "log": _notices(status.notices),
    }


def buttons_of(status: Status) -> str:
    """What the buttons depend on: when it changes, gradio has to update them."""
    parts = (status.state, int(status.stopping), int(status.step > 0), len(status.queue), status.more_steps)
    return "-".join(map(str, (status.id, *parts)))


def _head(status: Status) -> str:
    title = "Stopping after this step" if status.stopping else TITLES[status.state]
    # Said while paused, because then a person wonders why Generate does nothing.
    phase = BUSY if status.state == "paused" else status.phase
    phase = "" if phase in ("", title) or status.stopping else f" <span>{escape(phase)}</span>"
    return f'<p class="head" role="status"><b>{title}</b> <code>{escape(status.name)}</code>{phase}</p>'


def _interrupted(status: Status) -> str:
    if not status.interrupted:
        return ""
    # javascript/train_lora_settings.js opens the fold.
    button = '<button type="button" class="train-lora-open" data-fold="train_lora_history">Past runs</button>'
    name = escape(status.interrupted)
    return f"<p>Training of <code>{name}</code> was interrupted: resume it from {button}</p>"


def _bar(status: Status) -> str:
    # After the end `done` of `total` are files written; the person wants to see the steps.
    done, total = (status.step, status.steps) if not status.live else (status.done, status.total)
    if not total or status.state == "failed":
        return ""
    return progress_bar(done, total)


def _numbers(status: Status) -> str:
    # Before the first step there is neither pace nor loss.
    if status.state in ("preparing", "caching", "saving"):
        return f'<p class="numbers"><span>{status.done} of {status.total}</span></p>' if status.total else ""
    if not status.steps:
        return ""
    numbers = [f"step {status.step} of {status.steps}", f"epoch {status.epoch}", show_pace(status.seconds_per_step)]
    if status.live and not status.stopping:
        numbers.append(f"{show_duration(status.eta_seconds)} left")
    numbers += [f"loss {status.loss:.4f}", f"learning rate {status.learning_rate:.2e}"]
    # Once it is done nobody resumes it.
    if status.kept_step > 0 and status.state != "done":
        numbers.append(f"resumable from step {status.kept_step}")
    # A CPU reports none.
    if status.peak_bytes:
        planned = f" ({status.planned_bytes / 2**30:.1f} planned)" if status.planned_bytes else ""
        numbers.append(f"{status.peak_bytes / 2**30:.1f} GB at most{planned}")
    return f'<p class="numbers">{"".join(f"<span>{number}</span>" for number in numbers if number)}</p>'


def _result(status: Status) -> str:
    if not status.tag:
        return ""
    tag = escape(status.tag, quote=True)
    return (
        f'<div class="result"><p>Put this into a prompt:</p><p><code>{tag}</code>'
        f'<button type="button" class="train-lora-copy" data-run="{status.id}" data-copy="{tag}">Copy</button></p>'
        f"<p><small>{escape(str(status.path))}</small></p></div>"
    )


def _samples(status: Status) -> str:
    """The test pictures, newest first; the script knows where to fetch them."""
    if not status.samples:
        return ""
    figures = []
    for sample in reversed(status.samples[-SHOWN_SAMPLES:]):
        # A path below /train-lora/v1/, which the script completes with the page's key.
        place, prompt = f"jobs/{status.id}/samples/{sample.path.name}", escape(sample.prompt, quote=True)
        figures.append(
            f'<figure title="{prompt}"><a target="_blank">'
            f'<img data-src="{escape(place, quote=True)}" alt="{prompt}"></a>'
            f"<figcaption>step {sample.step}</figcaption></figure>"
        )
    return f'<p class="title">Test pictures</p><div class="samples">{"".join(figures)}</div>'


def _queue(status: Status) -> str:
    if not status.queue:
        return ""
    names = ", ".join(f"<code>{escape(waiting.name)}</code>" for waiting in status.queue)
    return f'<p class="queue">Next: {names}</p>'


def _error(status: Status) -> str:
    if status.state != "failed":
        return ""
    problems = "".join(f"<li>{escape(shown_name(name))}: {escape(text)}</li>" for name, text in status.problems.items())
    # A recipe's problems by field; everything else is one sentence.
    what = f"<ul>{problems}</ul>" if problems else f"<p>{escape(status.error)}</p>"
    return f'<div class="error">{what}<p>{escape(status.hint)}</p></div>'


def _notices(notices: tuple[str, ...]) -> str:
    if not notices:
        return ""
    lines = [f"<li>{escape(text)}</li>" for text in notices]
    # A long run collects hundreds; the last ones say what is going on.
    older = lines[:-LAST_NOTICES]
    fold = f"<details><summary>{len(older)} earlier</summary><ul>{''.join(older)}</ul></details>" if older else ""
    return f'<div class="notices">{fold}<ul>{"".join(lines[-LAST_NOTICES:])}</ul></div>'


def show_pace(seconds_per_step: float) -> str:
    """`1.9 it/s`, or `2.4 s/it` where a step takes longer than a second."""
    if seconds_per_step <= 0:
        return ""
    return f"{1 / seconds_per_step:.1f} it/s" if seconds_per_step < 1 else f"{seconds_per_step:.1f} s/it"
