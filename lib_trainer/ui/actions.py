"""What steps 1 to 3 do when something is pressed: values of inputs in, updates of components out."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from lib_trainer.errors import ConfigError, UserError
from lib_trainer.host.base import Host
from lib_trainer.jobs.queue import Jobs
from lib_trainer.recipes.loaded import LoadedRecipe
from lib_trainer.ui.dataset_panel import EMPTY, pictures_per_epoch, show_scan
from lib_trainer.ui.form import WRONG, Form, help_of
from lib_trainer.ui.grid_panel import propose_prompt
from lib_trainer.ui.history_panel import HistoryActions
from lib_trainer.ui.last_settings import read_settings, write_settings
from lib_trainer.ui.memory_bar import show_memory
from lib_trainer.ui.messages import show_error
from lib_trainer.ui.missing_packages import show_missing
from lib_trainer.ui.recipe_check import checked_recipe, name_from, scan_pictures
from lib_trainer.ui.recipe_panel import load_preset, load_upload, preset_for, recipe_values, show_length, show_notices
from lib_trainer.ui.settings_panel import read_base, reset_to_base, show_base
from lib_trainer.ui.starting_point import starting_point
from lib_trainer.ui.train_panel import LiveView

# What was proposed last, (name, prompt): only what the person has not changed is proposed anew.
Proposed = tuple[str, str]


@dataclass(frozen=True)
class Typed:
    """What a person has chosen and typed beside the settings, in the order in which every event sends it."""

    kind: str
    prompt: str
    proposed: Proposed


class Actions:
    """The tab's behaviour. It keeps no state of its own: a page's state lives in the page, a run's in the jobs."""

    def __init__(self, host: Host, jobs: Jobs, form: Form, page_key: str = "", *, in_webui: bool = True) -> None:
        self._host, self._jobs, self._form, self._in_webui = host, jobs, form, in_webui
        self.live = LiveView(jobs, page_key)
        self.history = HistoryActions(jobs, self.live)

    def open_page(self) -> list[Any]:
        """-> head, kind, preset, base, prompt, proposed, *form: as the last run was started with."""
        start = starting_point(self._host.settings_file, self._host.drawing_family())
        proposed = self._propose(start.kind, "", ("", ""), start.values)
        head = f'<p class="train-lora-head">{escape(self._host.describe())}</p>{show_missing(in_webui=self._in_webui)}'
        filled = self._form.show(start.values)
        return [head, start.kind, start.preset, show_base(start.base), proposed[1], proposed, *filled]

    def scan(self, kind: str, prompt: str, proposed: Proposed, *values: Any) -> list[Any]:
        """-> gallery, pictures, length, folder, trigger word, name, prompt, proposed."""
        entered = self._form.read(values)
        try:
            scan = scan_pictures(entered)
        except UserError as error:
            # The message stands at the folder's field: the gallery has no place for a mistake.
            complaint = gr.update(info=f"{WRONG} {error}")
            return [EMPTY, 0, "", complaint, gr.update(), gr.update(), gr.update(), proposed]
        # kohya's folder names carry it: 10_jeff_person.
        entered["trigger_word"] = entered["trigger_word"] or scan.trigger_word
        new = self._propose(kind, prompt, proposed, entered)
        count = pictures_per_epoch(scan)
        folder = gr.update(info=help_of("train_data_dir"))
        # A proposal must not replace what was typed.
        name, prompt = _keep_typed(entered["output_name"], prompt, proposed, new)
        length = show_length(count, entered)
        return [show_scan(scan), count, length, folder, entered["trigger_word"], name, prompt, new]

    def propose(self, kind: str, prompt: str, proposed: Proposed, *values: Any) -> list[Any]:
        """-> name, prompt, proposed: from the trigger word, where the person has not typed their own."""
        entered = self._form.read(values)
        new = self._propose(kind, prompt, proposed, entered)
        return [*_keep_typed(entered["output_name"], prompt, proposed, new), new]

    def memory(self, *values: Any) -> str:
        """-> the memory bar."""
        return show_memory(self._host, self._form.read(values))

    def choose_kind(self, kind: str, prompt: str, proposed: Proposed, *values: Any) -> list[Any]:
        """-> preset, notices, base, prompt, proposed, *form, fold: the recipe shipped for this kind."""
        preset = preset_for(kind, self._host.drawing_family())
        if not preset:
            proposal = self.propose(kind, prompt, proposed, *values)[1:]
            return [gr.update(), "", gr.update(), *proposal, *self._form.complain({}, {})]
        return [preset, *self.choose_preset(preset, kind, prompt, proposed, *values)]

    def choose_preset(self, preset: str, kind: str, prompt: str, proposed: Proposed, *values: Any) -> list[Any]:
        """-> notices, base, prompt, proposed, *form, fold."""
        return self._fill(lambda: load_preset(preset), "", Typed(kind, prompt, proposed), values)

    def open_recipe(self, file: Any, kind: str, prompt: str, proposed: Proposed, *values: Any) -> list[Any]:
        """-> preset, notices, base, prompt, proposed, *form, fold: what is valid in a recipe file or an adapter."""
        # gradio 3 hands over an object, gradio 4 a string; the server may run on Windows.
        title = re.split(r"[/\\]", str(getattr(file, "name", file)))[-1]
        return [None, *self._fill(lambda: load_upload(file), title, Typed(kind, prompt, proposed), values)]

    def use_run(self, chosen: str | None, kind: str, prompt: str, proposed: Proposed, *values: Any) -> list[Any]:
        """-> preset, notices, base, prompt, proposed, *form, fold: the settings of a past run."""
        # The line ends with the run's id, which says nothing to a person.
        title = (chosen or "").rpartition(" · ")[0]
        typed = Typed(kind, prompt, proposed)
        return [None, *self._fill(lambda: self.history.settings(chosen), title, typed, values)]

    def reset(self, name: str, base: str) -> list[Any]:
        """-> *form: one setting, or with "" all of them, as the chosen recipe has them."""
        return reset_to_base(self._form, name, base)

    def train(self, kind: str, preset: str | None, base: str, *values: Any) -> list[Any]:
        """-> message, *form, fold, *live. Everything is checked before the host's model is touched."""
        return self._start({"kind": kind, "preset": preset, "recipe": read_base(base)}, self._form.read(values), ())

    def train_with_less(self, kind: str, preset: str | None, base: str, *values: Any) -> list[Any]:
        """As `train`, with the settings by which a run that failed may do better."""
        # Read from the run that failed, not from the page: its inputs may have changed since.
        remedy = self._jobs.status().remedy
        page = {"kind": kind, "preset": preset, "recipe": read_base(base)}
        return self._start(page, {**self._form.read(values), **remedy}, tuple(remedy))

    def _start(self, page: dict[str, Any], entered: dict[str, Any], changed: tuple[str, ...]) -> list[Any]:
        """`page`: what is remembered beside the values; `changed`: settings that the inputs do not show yet."""
        try:
            recipe = checked_recipe(entered)
            self._jobs.start(recipe)
        except UserError as error:
            problems = error.problems if isinstance(error, ConfigError) else {}
            return [show_error(error, "Not started."), *self._form.complain(problems, {}), *self.live.show()]
        path = self._host.settings_file
        # What other panels remember in the same file stays.
        write_settings(path, {**read_settings(path), **page, "values": recipe.flat()})
        # Only what was left open: the person may have typed more while the answer travelled.
        filled = [name for name in ("trigger_word", "output_name") if not entered[name]]
        named = {name: recipe.flat()[name] for name in (*filled, *changed)}
        return ["", *self._form.complain({}, named), *self.live.show()]

    def _fill(self, load: Callable[[], LoadedRecipe], title: str, typed: Typed, values: tuple) -> list[Any]:
        """-> notices, base, prompt, proposed, *form, fold."""
        try:
            loaded = load()
        except UserError as error:
            # Nothing is changed, but complaints of an earlier attempt go.
            shown = self._form.complain({}, {})
            return [show_error(error, "Not loaded."), gr.update(), typed.prompt, typed.proposed, *shown]
        changes = recipe_values(loaded)
        entered = {**self._form.read(values), **changes}
        new = self._propose(typed.kind, typed.prompt, typed.proposed, entered)
        _, prompt = _keep_typed(entered["output_name"], typed.prompt, typed.proposed, new)
        # A shipped recipe has nothing to report.
        notices = show_notices(title, loaded) if title else ""
        return [notices, show_base(changes), prompt, new, *self._form.complain(loaded.problems, changes)]

    def _propose(self, kind: str, prompt: str, proposed: Proposed, entered: dict[str, Any]) -> Proposed:
        trigger_word, name = entered.get("trigger_word", ""), entered.get("output_name", "")
        # The proposed prompt has to name the file as it will be called.
        new_name = name_from(trigger_word)
        used = new_name if name in ("", proposed[0]) else name
        return new_name, propose_prompt(kind, trigger_word, used, entered.get("preferred_weight") or 0.8)


def _keep_typed(name: str, prompt: str, proposed: Proposed, new: Proposed) -> tuple[str, str]:
    """(name, prompt): the new proposals, except where the person has typed over the last ones."""
    return (
        new[0] if name in ("", proposed[0]) else name,
        new[1] if prompt in ("", proposed[1]) else prompt,
    )
