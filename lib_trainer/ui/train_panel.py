"""Step 3: the buttons, and the state of the run."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import Any

import gradio as gr

from lib_trainer.events import Command
from lib_trainer.jobs.queue import Jobs
from lib_trainer.jobs.status import Status
from lib_trainer.ui.elements import show_duration
from lib_trainer.ui.status_view import buttons_of, show_status

# Stop asks once where more training than this would be lost.
ASK_SECONDS = 60.0


@dataclass(frozen=True)
class TrainPanel:
    """`refresh` is pressed by javascript/train_lora.js; `heartbeat` changes with every answer, for which it waits."""

    train: gr.Button
    pause: gr.Button
    stop_save: gr.Button
    stop: gr.Button
    save: gr.Button
    sample: gr.Button
    odd: gr.CheckboxGroup
    leave_out: gr.Button
    more: gr.Button
    less: gr.Button
    replace: gr.Button
    stop_anyway: gr.Button
    message: gr.HTML
    status: gr.HTML
    refresh: gr.Button
    heartbeat: gr.HTML

    @property
    def live(self) -> list[gr.components.Component]:
        """What follows the run: the outputs of `LiveView.show`."""
        buttons = [self.train, self.pause, self.stop_save, self.stop, self.save, self.sample]
        buttons += [self.odd, self.leave_out, self.more, self.less, self.stop_anyway]
        return [self.status, *buttons, self.heartbeat]


def place_train() -> TrainPanel:
    gr.Markdown("### 3 · Train")
    with gr.Row(elem_classes="train-lora-buttons"):
        train = gr.Button("Train", variant="primary", min_width=90, elem_id="train_lora_train")
        pause = gr.Button("Pause", interactive=False, min_width=90, elem_id="train_lora_pause")
        stop_save = gr.Button("Stop & save", interactive=False, min_width=90, elem_id="train_lora_stop_save")
        stop = gr.Button("Stop", interactive=False, min_width=90, elem_id="train_lora_stop")
    with gr.Row(elem_classes="train-lora-buttons train-lora-small"):
        save = gr.Button("Save a copy now", interactive=False, size="sm", min_width=90, elem_id="train_lora_save")
        sample = gr.Button("Sample now", interactive=False, size="sm", min_width=90, elem_id="train_lora_sample")
    stop_anyway = gr.Button("Stop without saving", visible=False, variant="stop", elem_id="train_lora_stop_anyway")
    message = gr.HTML("", elem_id="train_lora_message", elem_classes="train-lora-maybe")
    replace = gr.Button("Replace", visible=False, elem_id="train_lora_replace")
    status = gr.HTML(show_status(Status()), elem_id="train_lora_status")
    less = gr.Button("Train with less memory", visible=False, elem_id="train_lora_less")
    more = gr.Button("Train more steps", visible=False, elem_id="train_lora_more")
    # Without a label: gradio appends the label of what was hidden at first behind its choices.
    odd = gr.CheckboxGroup([], show_label=False, label="", visible=False, elem_id="train_lora_odd")
    odd.do_not_save_to_config = True
    leave_out = gr.Button(
        "Leave the ticked pictures out of the next run", visible=False, size="sm", elem_id="train_lora_leave_out"
    )
    # Hidden by style.css, not by gradio: what gradio hides may be missing from the page.
    with gr.Row(elem_classes="train-lora-hidden"):
        refresh = gr.Button("Refresh", elem_id="train_lora_refresh")
        heartbeat = gr.HTML("", elem_id="train_lora_heartbeat")
    buttons = (train, pause, stop_save, stop, save, sample, odd, leave_out, more, less, replace, stop_anyway)
    return TrainPanel(*buttons, message, status, refresh, heartbeat)


class LiveView:
    """Turns the status of the jobs into updates of `TrainPanel.live`."""

    def __init__(self, jobs: Jobs, page_key: str = "") -> None:
        self._jobs, self._page_key = jobs, page_key
        self._heartbeats = count(1)

    def show(self, *, asking: bool = False) -> list[Any]:
        """-> *live. `asking`: Stop was pressed, and would lose more than a person may expect."""
        status = self._jobs.status()
        # Only a run that has taken a step has something to save or to draw with.
        learning = status.state in ("training", "paused") and status.step > 0 and not status.stopping
        # A run in the queue can only be taken out of it.
        begun = status.live and status.state != "queued" and not status.stopping
        odd = [] if status.live else status.odd_pictures
        return [
            show_status(status),
            # A second run joins the queue.
            gr.update(value="Train next" if status.live else "Train"),
            gr.update(interactive=begun, value="Resume" if status.state == "paused" else "Pause"),
            gr.update(interactive=begun),
            gr.update(interactive=status.live and not status.stopping),
            gr.update(interactive=learning),
            gr.update(interactive=learning),
            gr.update(choices=odd, value=odd, visible=bool(odd)),
            gr.update(visible=bool(odd)),
            gr.update(visible=status.more_steps > 0, value=f"Train {status.more_steps} more steps"),
            gr.update(visible=status.state == "failed" and bool(status.remedy)),
            _question(status, asking),
            f'<i data-heartbeat="{next(self._heartbeats)}" data-key="{self._page_key}"'
            f' data-buttons="{buttons_of(status)}"></i>',
        ]

    def pause(self) -> list[Any]:
        # One button for both, as its label says.
        if self._jobs.status().state == "paused":
            self._jobs.resume()
        else:
            self._jobs.pause()
        return self.show()

    def save(self) -> list[Any]:
        self._jobs.ask(Command.SAVE)
        return self.show()

    def sample(self) -> list[Any]:
        self._jobs.ask(Command.SAMPLE)
        return self.show()

    def stop_save(self) -> list[Any]:
        self._jobs.stop(save=True)
        return self.show()

    def stop(self) -> list[Any]:
        """Stops at once, or asks first where a resume would repeat more than a minute of training."""
        if _is_worth_asking(self._jobs.status()):
            return self.show(asking=True)
        return self.stop_anyway()

    def stop_anyway(self) -> list[Any]:
        self._jobs.stop(save=False)
        return self.show()


def _is_worth_asking(status: Status) -> bool:
    return status.live and not status.stopping and status.unsaved_seconds > ASK_SECONDS


def _question(status: Status, asking: bool) -> dict[str, Any]:
    if asking:
        lost = show_duration(status.unsaved_seconds)
        return gr.update(visible=True, value=f"Stop without saving: {lost} of training are lost")
    # A question that was put stays until it is answered, or there is nothing left to lose.
    return gr.update() if _is_worth_asking(status) else gr.update(visible=False)
