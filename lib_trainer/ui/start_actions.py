"""What the buttons that start a run do: check everything, ask before a file is replaced, remember the settings."""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr

from lib_trainer.config.recipe import Recipe
from lib_trainer.errors import ConfigError, UserError
from lib_trainer.host.access import Access
from lib_trainer.host.base import Host
from lib_trainer.jobs.queue import Jobs
from lib_trainer.ui.form import Form
from lib_trainer.ui.last_settings import read_settings, write_settings
from lib_trainer.ui.messages import show_error
from lib_trainer.ui.proposals import Proposed, existing_adapter
from lib_trainer.ui.recipe_check import checked_recipe
from lib_trainer.ui.settings_panel import read_base
from lib_trainer.ui.train_panel import LiveView

_FOLLOWING = ("trigger_word", "output_name")


class StartActions:
    """Every answer is: message, *form, fold, *live, replace, asked, proposed.

    `asked` is the name of the file that the page has asked about: only that one is replaced.
    """

    def __init__(self, host: Host, jobs: Jobs, form: Form, live: LiveView, access: Access) -> None:
        self._host, self._jobs, self._form, self._live, self._access = host, jobs, form, live, access

    def train(self, kind: str, preset: str | None, base: str, _asked: str, proposed: Proposed, *values: Any) -> list:
        """Everything is checked before the host's model is touched."""
        return self._start(_page(kind, preset, base), proposed, self._form.read(values), {}, asked="")

    def replace_existing(
        self, kind: str, preset: str | None, base: str, asked: str, proposed: Proposed, *values: Any
    ) -> list:
        """As `train`, once a person has agreed that the file `asked` about is replaced."""
        return self._start(_page(kind, preset, base), proposed, self._form.read(values), {}, asked)

    def train_with_less(
        self, kind: str, preset: str | None, base: str, _asked: str, proposed: Proposed, *values: Any
    ) -> list:
        """As `train`, with the settings by which a run that failed may do better."""
        # Read from the run that failed, not from the page: its inputs may have changed since.
        remedy = self._jobs.status().remedy
        return self._start(_page(kind, preset, base), proposed, self._form.read(values), remedy, asked="")

    def _start(
        self, page: dict[str, Any], proposed: Proposed, typed: dict[str, Any], remedy: dict[str, float], asked: str
    ) -> list[Any]:
        """`page`: what is remembered beside the values; `remedy`: settings that the inputs do not show yet."""
        entered = {**proposed.opened(typed), **remedy}
        # Only what was left open is filled in: the person may have typed more while the answer travelled.
        left_open = [name for name in _FOLLOWING if not entered[name]]
        try:
            recipe = checked_recipe(entered, self._access)
            if question := self._question(recipe, asked):
                shown = self._form.complain({}, {name: recipe.flat()[name] for name in (*left_open, *remedy)})
                return [question, *shown, *self._live.show(), *self._asking(recipe), proposed]
            self._jobs.start(recipe)
        except UserError as error:
            problems = error.problems if isinstance(error, ConfigError) else {}
            # A folder without a name of its own leaves them empty, and not as the last folder had them.
            emptied = dict.fromkeys(left_open, "") if "output_name" in problems else {}
            shown = self._form.complain(problems, emptied)
            return [
                show_error(error, "Not started."),
                *shown,
                *self._live.show(),
                gr.update(visible=False),
                "",
                proposed,
            ]
        named = {name: recipe.flat()[name] for name in left_open}
        self._remember(page, recipe, named)
        shown = self._form.complain({}, {**named, **{name: recipe.flat()[name] for name in remedy}})
        return ["", *shown, *self._live.show(), gr.update(visible=False), "", proposed._replace(**named)]

    def _question(self, recipe: Recipe, asked: str) -> str:
        """The sentence that asks whether a file may be replaced; "" where there is none, or a person has agreed.

        Raises ConfigError for a file that another program made, which is never replaced.
        """
        found = existing_adapter(self._host.lora_dir, recipe.output.output_name)
        if found is None or asked == recipe.output.output_name:
            return ""
        # Imported late: it pulls in torch, which a page that is only opened does not need.
        from lib_trainer.adapter.io import is_ours

        if not is_ours(found):
            problem = f"{found.name} exists and was made by another program; choose another name"
            raise ConfigError({"output_name": problem})
        text = f"<b>{escape(found.name)} exists.</b> Choose another name, or replace it."
        return f'<div class="train-lora-note train-lora-question">{text}</div>'

    def _asking(self, recipe: Recipe) -> list[Any]:
        """-> the button that replaces, asked."""
        name = recipe.output.output_name
        return [gr.update(visible=True, value=f"Train, and keep the old file as {name}-previous"), name]

    def _remember(self, page: dict[str, Any], recipe: Recipe, named: dict[str, Any]) -> None:
        path = self._host.settings_file
        # What other panels remember in the same file stays.
        write_settings(path, {**read_settings(path), **page, "proposed": named, "values": recipe.flat()})


def _page(kind: str, preset: str | None, base: str) -> dict[str, Any]:
    """What is remembered beside the values."""
    return {"kind": kind, "preset": preset, "recipe": read_base(base)}
