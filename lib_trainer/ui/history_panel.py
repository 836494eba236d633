"""Past runs: shown, resumed, trained again, removed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from lib_trainer.config.task import named_folders
from lib_trainer.errors import UserError
from lib_trainer.evaluation.report import show_details, show_meter
from lib_trainer.events import Evaluated
from lib_trainer.host.access import Access
from lib_trainer.jobs.history import PastRun
from lib_trainer.jobs.queue import Jobs
from lib_trainer.jobs.status import LIVE
from lib_trainer.recipes.loaded import LoadedRecipe
from lib_trainer.ui.form import label_of, to_input
from lib_trainer.ui.loss_chart import draw_curve
from lib_trainer.ui.messages import show_error
from lib_trainer.ui.recipe_check import require_allowed, require_allowed_files
from lib_trainer.ui.train_panel import LiveView

SHOWN_SETTINGS = ("algo", "network_dim", "learning_rate", "max_train_steps", "epoch", "resolution_px", "seed")


@dataclass(frozen=True)
class HistoryPanel:
    choice: gr.Dropdown
    use: gr.Button
    resume: gr.Button
    remove: gr.Button
    shown: gr.HTML
    beside: gr.Dropdown

    @property
    def chosen(self) -> list[gr.components.Component]:
        """The run that is shown, and the one beside it."""
        return [self.choice, self.beside]

    @property
    def changing(self) -> list[gr.components.Component]:
        """What is set anew when the history has changed."""
        return [self.choice, self.shown, self.beside]


def place_history() -> HistoryPanel:
    with gr.Accordion("Past runs", open=False, elem_id="train_lora_history"):
        choice = gr.Dropdown(
            choices=[],
            label="Run",
            info="Newest first; Remove takes a waiting run out of the queue.",
            elem_id="train_lora_past",
        )
        # WebUIs keep their own copy of every default; ours are remembered by us.
        choice.do_not_save_to_config = True
        with gr.Row(elem_classes="train-lora-buttons train-lora-small"):
            use = gr.Button("Use these settings", size="sm", min_width=90, elem_id="train_lora_past_use")
            resume = gr.Button("Resume", size="sm", min_width=90, elem_id="train_lora_past_resume")
            remove = gr.Button("Remove", size="sm", min_width=90, elem_id="train_lora_past_remove")
        beside = gr.Dropdown(
            choices=[], label="Beside it", info="Shows a second run beside the first.", elem_id="train_lora_past_beside"
        )
        beside.do_not_save_to_config = True
        shown = gr.HTML("", elem_id="train_lora_past_shown", elem_classes="train-lora-maybe")
    return HistoryPanel(choice, use, resume, remove, shown, beside)


class HistoryActions:
    """What the panel's buttons do.

    A run is chosen by its line, which ends with its id: gradio 3 lists plain strings only.
    """

    def __init__(self, jobs: Jobs, live: LiveView, access: Access) -> None:
        self._jobs, self._live, self._access = jobs, live, access

    def list_runs(self, chosen: str | None = None, beside: str | None = None) -> list[Any]:
        """-> choice, shown, beside: every run, and those that were chosen if they are still there."""
        runs = self._jobs.past()
        # The chosen run's line changes while it runs, its id does not.
        kept, other = (
            next((past for past in runs if line and past.id == _id_of(line)), None) for line in (chosen, beside)
        )
        lines = [line_of(past) for past in runs]
        updates = [gr.update(choices=lines, value=line_of(past) if past else None) for past in (kept, other)]
        return [updates[0], self._show_both(kept, other) if kept else "", updates[1]]

    def show_past(self, chosen: str | None, beside: str | None = None) -> str:
        """-> shown."""
        try:
            return self._show_both(self._past(chosen), self._past(beside) if beside else None)
        except UserError as error:
            return show_error(error)

    def resume(self, chosen: str | None, beside: str | None = None) -> list[Any]:
        """-> choice, shown, beside, *live."""
        try:
            past = self._past(chosen)
            self._require_allowed(past)
            self._jobs.resume_run(past.id, past.proposed_steps)
        except UserError as error:
            return [gr.update(), show_error(error, "Not resumed."), gr.update(), *self._live.show()]
        return [*self.list_runs(chosen, beside), *self._live.show()]

    def train_more(self) -> list[Any]:
        """-> message, *live: the run that has just ended goes on to the steps that may still help."""
        status = self._jobs.status()
        try:
            if status.more_steps:
                self._require_allowed(self._jobs.history.find(status.id))
                self._jobs.resume_run(status.id, status.step + status.more_steps)
        except UserError as error:
            return [show_error(error, "Not started."), *self._live.show()]
        return ["", *self._live.show()]

    def leave_out(self, names: list[str] | None) -> str:
        """-> message: these pictures of the run that has just ended are left out of the next."""
        # Imported late, as all of the dataset.
        from lib_trainer.dataset.edits import exclude_pictures
        from lib_trainer.dataset.folders import existing_folder

        status = self._jobs.status()
        # Names come from a browser: those that the run has named lie in its folder.
        chosen = [name for name in names or [] if name in status.odd_pictures]
        try:
            recipe = self._jobs.history.find(status.id).recipe or {} if chosen else {}
            for folder in named_folders(recipe):
                require_allowed(self._access, folder)
            done = exclude_pictures(existing_folder(str(recipe["train_data_dir"])), chosen) if chosen else []
        except UserError as error:
            return show_error(error, "Not left out.")
        gone = f" {len(chosen) - len(done)} not found." if len(done) < len(chosen) else ""
        left = escape(", ".join(done)) or "Nothing"
        return f'<div class="train-lora-note">{left} will be left out of the next run.{gone}</div>'

    def remove(self, chosen: str | None, beside: str | None = None) -> list[Any]:
        """-> choice, shown, beside, *live. A run that waits leaves the queue, and stays in the history."""
        try:
            past = self._past(chosen)
            # One button for both: neither a waiting nor a past run is needed any more.
            if past.state == "queued":
                self._jobs.stop(save=False, run_id=past.id)
            else:
                self._jobs.forget(past.id)
        except UserError as error:
            return [gr.update(), show_error(error), gr.update(), *self._live.show()]
        return [*self.list_runs(chosen, beside), *self._live.show()]

    def settings(self, chosen: str | None) -> LoadedRecipe:
        """The settings of the chosen run. Raises UserError where there is none."""
        return LoadedRecipe(self._past(chosen).as_recipe())

    def _require_allowed(self, past: PastRun) -> None:
        """Raises UserError for a run of folders or files that were allowed then and are not now."""
        recipe = past.recipe or {}
        for folder in named_folders(recipe):
            require_allowed(self._access, folder)
        require_allowed_files(self._access, recipe)

    def _past(self, chosen: str | None) -> PastRun:
        found = next((past for past in self._jobs.past() if chosen and past.id == _id_of(chosen)), None)
        if found is None:
            raise UserError("No run is chosen.", "Choose one in the list.")
        return found

    def _show_both(self, past: PastRun, other: PastRun | None) -> str:
        if other is None or other.id == past.id:
            return self._show(past)
        columns = "".join(f"<div><b>{escape(run.name)}</b>{self._show(run)}</div>" for run in (past, other))
        return f'<div class="train-lora-two-runs">{columns}</div>'

    def _show(self, past: PastRun) -> str:
        # Read from disk when it is asked for: hundreds of runs would fill the memory.
        losses = self._jobs.history.losses(past.id)
        curve = draw_curve([(step, loss) for step, loss, _ in losses], [(step, rate) for step, _, rate in losses])
        last = Evaluated.from_values(past.evaluated) if past.evaluated else None
        found = [Evaluated.from_values(values) for values in past.evaluations]
        report = show_meter(found, last) + show_details(found, last)
        return f'<div class="train-lora-status">{_facts(past)}{report}{curve}</div>'


def line_of(past: PastRun) -> str:
    """`jeff_person · done · 1200 steps · 24 Nov 15:44 · 20261124-154408-3f2a1b`"""
    when = time.strftime("%d %b %H:%M", time.localtime(past.started))
    steps = f"{past.step} of {past.steps} steps" if past.step < past.steps else f"{past.steps} steps"
    return f"{past.name} · {past.state} · {steps} · {when} · {past.id}"


def _id_of(line: str) -> str:
    return line.rpartition(" · ")[2]


def _facts(past: PastRun) -> str:
    recipe = past.recipe or {}
    settings = ", ".join(
        f"{label_of(name)} {to_input(name, recipe[name])}" for name in SHOWN_SETTINGS if name in recipe
    )
    facts = {
        "Trained on": past.checkpoint,
        "Pictures": " and ".join(named_folders(recipe)),
        "Fingerprint": past.pictures[:12],
        "Settings": settings,
        "Loss": f"{past.loss:.4f}" if past.step else "",
        "Files": ", ".join(past.files),
        "Error": past.error,
    }
    # A run that is still live shows its own buttons.
    if past.resumable and past.state not in LIVE:
        to = f" to step {past.proposed_steps}" if past.proposed_steps else ""
        begins = f"from step {past.kept_step}" if past.kept_step > 0 else "from the start: no state was saved"
        facts["Resume"] = begins + to
    lines = "".join(f"<li>{name}: {escape(str(text))}</li>" for name, text in facts.items() if text)
    return f"<ul>{lines}</ul>"
