"""The tab's actions with the inputs of one page."""

from __future__ import annotations

import gradio as gr

from lib_trainer.jobs.queue import Jobs
from lib_trainer.ui.actions import Actions
from lib_trainer.ui.form import Form
from lib_trainer.ui.proposals import Proposed
from tests.ui.fakes import FakeHost, SlowRun

NOTHING = Proposed()


class Page:
    """The tab's actions with the inputs of one page."""

    def __init__(self, folder, run=None, access=None):
        self.host = FakeHost(folder)
        self.jobs = Jobs(self.host, run or SlowRun(steps=3, seconds=0.001))
        self.form = Form({})
        with gr.Blocks():
            self.form.place_rest()
        self.actions = Actions(self.host, self.jobs, self.form, access)
        self.values = dict(zip(self.form.inputs, (component.value for component in self.form.components), strict=True))

    def train(self, **changes):
        """(message, {field: update}) of pressing Train."""
        message, fields, *_ = self.press("train", **changes)
        return message, fields

    def press(self, button, asked="", proposed=NOTHING, **changes):
        """(message, {field: update}, replace, asked, proposed) of pressing Train or one of its kind."""
        act = getattr(self.actions.start, button)
        message, *updates = act("face", None, "{}", asked, proposed, *{**self.values, **changes}.values())
        return message, dict(zip(self.form.inputs, updates, strict=False)), *updates[-3:]

    def scan(self, prompt="", proposed=NOTHING, **changes):
        names = ("gallery", "pictures", "length", "folder", "trigger_word", "name", "prompt", "proposed")
        out = self.actions.scan("face", prompt, proposed, *{**self.values, **changes}.values())
        return dict(zip(names, out, strict=True))
